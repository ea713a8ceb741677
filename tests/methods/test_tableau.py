"""Tableaus: their checks, the registered ones, and those of users."""

from __future__ import annotations

import dataclasses
import importlib
import math
import pkgutil
from typing import Any

import numpy as np
import pytest
import torch
from fields import METHODS

import neuralode
from neuralode import ExplicitRungeKutta, Tableau, solve
from neuralode.methods.runge_kutta import tableaus
from neuralode.methods.runge_kutta.order_conditions import residual, trees

FILES = [
    importlib.import_module(f"{tableaus.__name__}.{file.name}") for file in pkgutil.iter_modules(tableaus.__path__)
]
TABLES: dict[str, Tableau] = {
    value.name: value for file in FILES for value in vars(file).values() if isinstance(value, Tableau)
}
EXPLICIT = [
    *("euler", "midpoint", "heun2", "heun3", "rk4", "rk4_38"),
    *("adaptive_heun", "fehlberg2", "bosh3", "dopri5", "tsit5", "dopri8"),
    *("ralston", "ssprk33", "ssprk43", "fehlberg45", "cash_karp", "dop853", "carpenter_kennedy54"),
    *("vern6", "vern7", "vern8", "vern9"),
]
DIAGONAL = ["implicit_euler", "implicit_midpoint", "trapezoid", "sdirk2", "trbdf2", "kvaerno3", "kvaerno4", "kvaerno5"]
FULL = ["gl4", "gl6", "radauIIA3", "radauIIA5"]
L_STABLE = ["implicit_euler", "sdirk2", "trbdf2", "radauIIA3", "radauIIA5", "kvaerno3", "kvaerno4", "kvaerno5"]
ROOT3 = 3**0.5

RALSTON: dict[str, Any] = {
    "name": "ralston",
    "order": 2,
    "c": (0, 2 / 3),
    "a": ((), (2 / 3,)),
    "b": (1 / 4, 3 / 4),
    "interpolant": ((1, -3 / 4), (0, 3 / 4)),
    "source": "A. Ralston, Runge-Kutta methods with minimum error bounds, Math. Comp. 16, 1962",
}


GAUSS: dict[str, Any] = {
    "name": "gauss",
    "order": 4,
    "c": (1 / 2 - ROOT3 / 6, 1 / 2 + ROOT3 / 6),
    "a": ((1 / 4, 1 / 4 - ROOT3 / 6), (1 / 4 + ROOT3 / 6, 1 / 4)),
    "b": (1 / 2, 1 / 2),
    "interpolant": ((1 / 2 + ROOT3 / 2, -ROOT3 / 2), (1 / 2 - ROOT3 / 2, ROOT3 / 2)),
    "interpolant_order": 2,
    "source": "J. C. Butcher, Implicit Runge-Kutta processes, Math. Comp. 18, 1964",
}

# Bogacki and Shampine's pair with its last stage as a dense stage.
LAZY: dict[str, Any] = {
    "name": "lazy",
    "order": 3,
    "c": (0, 1 / 2, 3 / 4),
    "a": ((), (1 / 2,), (0, 3 / 4)),
    "b": (2 / 9, 1 / 3, 4 / 9),
    "dense_c": (1,),
    "dense_a": ((2 / 9, 1 / 3, 4 / 9),),
    "interpolant": ((1, -4 / 3, 5 / 9), (0, 1, -2 / 3), (0, 4 / 3, -8 / 9), (0, -1, 1)),
    "interpolant_order": 3,
    "source": "P. Bogacki & L. F. Shampine, 1989",
}


def test_a_user_tableau_is_accepted_as_method() -> None:
    y0 = torch.ones(2, dtype=torch.float64)
    errors = []
    for step_size in (0.1, 0.05):
        sol = solve(lambda t, y: -y, y0, (0.0, 1.0), method=Tableau(**RALSTON), step_size=step_size)
        errors.append(float((sol.ys[-1] - math.exp(-1)).abs().max()))
    assert errors[1] < errors[0] / 3.5
    same = solve(lambda t, y: -y, y0, (0.0, 1.0), method=ExplicitRungeKutta(Tableau(**RALSTON)), step_size=0.05)
    assert torch.equal(same.ys, sol.ys)


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"order": 3}, "order 3"),
        ({"b": (1 / 2, 1 / 2)}, "order"),
        ({"b": (1 / 4, 1 / 2)}, "order"),
        ({"c": (0, 1 / 2)}, "sum"),
        ({"c": (0.1, 2 / 3)}, "sum"),
        ({"a": ((), (1 / 2,))}, "sum"),
        ({"interpolant": ((1, -1 / 2), (0, 3 / 4))}, "interpolant"),
        ({"interpolant": ((1 / 2, -1 / 4), (1 / 4, 1 / 2))}, "interpolant"),
        ({"interpolant": ((1, -3 / 4),)}, "interpolant"),
        ({"c": (0, 2 / 3, 1)}, "c"),
        ({"a": ((), (2 / 3,), (1, 1))}, "a"),
        ({"b_error": (1, 0, 0)}, "b_error"),
        ({"b_error": (-0.75, 0.5)}, "embedded"),
        ({"c": (0, math.nan)}, "sum|finite|c"),
    ],
)
def test_a_wrong_tableau_is_refused(wrong: dict[str, Any], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        Tableau(**(RALSTON | wrong))


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"order": 5}, "order 5"),
        ({"interpolant_order": 3}, "interpolant order 3"),
        ({"c": (1 / 3, 2 / 3)}, "sum"),
        # published elsewhere with both nodes at 1/2 - √3/6
        ({"c": (1 / 2 - ROOT3 / 6,) * 2}, "sum"),
        ({"a": ((1 / 4, 1 / 4 - ROOT3 / 6), (1 / 4 + ROOT3 / 6 + 0.1, 1 / 4 - 0.1))}, "order 4"),
        ({"a": ((1 / 4, 1 / 4 - ROOT3 / 6, 0), (1 / 4 + ROOT3 / 6, 1 / 4))}, "row 0 of a has 3 entries"),
        ({"a": ((1 / 4, 1 / 4 - ROOT3 / 6),)}, "a has 1 rows, wanted 2"),
        ({"a": ((math.nan, 1 / 4 - ROOT3 / 6), (1 / 4 + ROOT3 / 6, 1 / 4))}, "sum"),
        ({"interpolant": ((1 / 2 + ROOT3 / 2, -ROOT3 / 2), (1 / 2,))}, "interpolant differ in length"),
        ({"interpolant": ((1 / 2,), (1 / 2,))}, "interpolant order 2"),
    ],
)
def test_a_wrong_implicit_tableau_is_refused(wrong: dict[str, Any], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        Tableau(**(GAUSS | wrong))


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"dense_c": ()}, "dense_a has 1 rows, wanted 0"),
        ({"dense_c": (), "dense_a": ()}, "interpolant has 4 rows, wanted 3"),
        ({"dense_c": (1, 1)}, "dense_a has 1 rows, wanted 2"),
        ({"dense_c": (1 / 2,)}, "dense_a sum to dense_c"),
        ({"dense_a": ((2 / 9, 1 / 3, 4 / 9, 0, 0),)}, "row 0 of dense_a has 5 entries"),
        ({"dense_a": ((1, 0, 0),)}, "interpolant order 3"),
        ({"dense_a": ((2 / 9, 1 / 3, math.nan),)}, "dense_a"),
        ({"interpolant": ((1, -4 / 3, 5 / 9), (0, 1, -2 / 3), (0, 4 / 3, -8 / 9), (1, -1, 1))}, "ends in b"),
    ],
)
def test_a_wrong_dense_stage_is_refused(wrong: dict[str, Any], says: str) -> None:
    assert Tableau(**LAZY).stages == 3
    with pytest.raises(ValueError, match=says):
        Tableau(**(LAZY | wrong))


def test_short_rows_are_padded_with_zeros() -> None:
    explicit = Tableau(**(RALSTON | {"a": ((0, 0), (2 / 3, 0))}))
    assert explicit.a == ((), (2 / 3,)) == Tableau(**RALSTON).a
    assert explicit.explicit
    assert TABLES["trapezoid"].a == ((0.0, 0.0), (0.5, 0.5))
    assert Tableau(
        **(
            LAZY
            | {
                "dense_c": (0, 1),
                "dense_a": ((), (2 / 9, 1 / 3, 4 / 9)),
                "interpolant": (*LAZY["interpolant"][:3], (0, 0, 0), LAZY["interpolant"][3]),
            }
        )
    ).dense_a == ((0.0, 0.0, 0.0), (2 / 9, 1 / 3, 4 / 9, 0.0))


def test_every_file_holds_one_registered_table_with_its_name() -> None:
    assert len(FILES) == len(TABLES)
    assert [file.__name__.rpartition(".")[2] for file in FILES] == [name.lower() for name in TABLES]
    assert set(TABLES) == {*EXPLICIT, *DIAGONAL, *FULL}
    assert set(TABLES) <= set(neuralode.methods())


@pytest.mark.parametrize("name", TABLES)
def test_the_kind_of_a_table_follows_from_its_coefficients(name: str) -> None:
    table = TABLES[name]
    assert (table.explicit, table.diagonally_implicit) == (name in EXPLICIT, name not in FULL)
    together = tuple(range(table.stages))
    assert table.blocks == ((together,) if name in FULL else tuple((i,) for i in together))
    accurate = {"bosh3", "dopri5", "tsit5", "dop853", "vern6", "trapezoid", *L_STABLE}
    assert table.stiffly_accurate == (name in accurate)
    assert table.first_same_as_last == (table.stiffly_accurate and not any(table.a[0]))


def test_stages_that_depend_on_each_other_share_a_block() -> None:
    """Lobatto IIIA: an explicit stage, then two that must be solved together."""
    lobatto = Tableau(
        name="lobatto",
        order=4,
        c=(0, 1 / 2, 1),
        a=((), (5 / 24, 1 / 3, -1 / 24), (1 / 6, 2 / 3, 1 / 6)),
        b=(1 / 6, 2 / 3, 1 / 6),
        interpolant=((1, -3 / 2, 2 / 3), (0, 2, -4 / 3), (0, -1 / 2, 2 / 3)),
        source="B. L. Ehle, 1968",
    )
    assert lobatto.blocks == ((0,), (1, 2))
    assert lobatto.first_same_as_last
    assert not lobatto.diagonally_implicit


@pytest.mark.parametrize("name", TABLES)
def test_a_table_declares_its_full_order(name: str) -> None:
    table = TABLES[name]
    with pytest.raises(ValueError, match=f"'order {table.order + 1}'"):
        dataclasses.replace(table, order=table.order + 1)
    with pytest.raises(ValueError, match=f"'interpolant order {table.interpolant_order + 1}'"):
        dataclasses.replace(table, interpolant_order=table.interpolant_order + 1)
    if table.adaptive:
        with pytest.raises(ValueError, match=f"'embedded order {table.error_order + 1}'"):
            dataclasses.replace(table, error_order=table.error_order + 1)


@pytest.mark.parametrize("name", TABLES)
@pytest.mark.parametrize("part", ["c", "a", "b", "b_error", "interpolant", "dense_c", "dense_a"])
def test_a_wrong_coefficient_is_detected(name: str, part: str) -> None:
    """A wrong eighth digit, in each coefficient of the table in turn."""
    table = TABLES[name]
    data = getattr(table, part)
    if data is None:
        assert part == "b_error"
        assert not table.adaptive
        return
    nested = part in ("a", "interpolant", "dense_a")
    flat = [(i, j) for i, row in enumerate(data) for j in range(len(row))] if nested else None
    for place in flat if flat is not None else range(len(data)):
        if flat is None:
            changed = [x + 1e-8 * (i == place) for i, x in enumerate(data)]
        else:
            changed = [[x + 1e-8 * ((i, j) == place) for j, x in enumerate(row)] for i, row in enumerate(data)]
        with pytest.raises(ValueError, match=table.name):
            dataclasses.replace(table, **{part: changed})


@pytest.mark.parametrize("name", TABLES)
def test_every_tableau_names_its_source(name: str) -> None:
    table = TABLES[name]
    assert any(character.isdigit() for character in table.source), "no year in the source"


def test_the_registry_is_read_only() -> None:
    registry: Any = neuralode.methods()
    with pytest.raises(TypeError):
        registry["mine"] = METHODS["rk4"]


def test_the_numbers_of_trees_are_the_known_ones() -> None:
    assert [len(trees(nodes)) for nodes in range(1, 11)] == [1, 1, 2, 4, 9, 20, 48, 115, 286, 719]


def test_the_order_of_a_quadrature_is_found() -> None:
    """For f(t) the trees whose nodes all hang from the root give the moments of the weights."""
    nodes, weights = np.polynomial.legendre.leggauss(4)
    a = np.diag((nodes + 1) / 2)  # every stage depends on itself only, with the right row sum
    for order in (1, 2, 3):
        moment = abs(weights / 2 @ ((nodes + 1) / 2) ** order - 1 / (order + 1))
        assert moment < 1e-15
    assert residual(2, a, weights / 2) < 1e-15
    assert residual(3, a, weights / 2) == pytest.approx(1 / 3 - 1 / 6)  # Σ bᵢ aᵢⱼ cⱼ is then Σ bᵢ cᵢ²


def test_dopri8_has_the_published_coefficients() -> None:
    peer = pytest.importorskip("torchdiffeq._impl.dopri8")._DOPRI8_TABLEAU
    table = TABLES["dopri8"]
    for ours, theirs in (
        (table.c, [0, *peer.alpha[:12]]),
        (table.b, peer.c_sol[:13]),
        (table.b_error, peer.c_error[:13]),
        *zip(table.a[1:], peer.beta[:12], strict=True),
        (table.dense_a[0], peer.beta[12]),
    ):
        assert np.abs(np.array(ours) - np.array([float(x) for x in theirs])).max() < 1e-15


def amplification(table: Tableau, z: complex, theta: float = 1.0) -> complex:
    """Return y(θ) of a step with hλ = z from y = 1 on y' = λ y."""
    a = np.array([row + (0.0,) * (table.stages - len(row)) for row in table.a])
    weights = np.array(table.interpolant) @ theta ** np.arange(1, len(table.interpolant[0]) + 1)
    return 1 + z * weights @ np.linalg.solve(np.eye(table.stages) - z * a, np.ones(table.stages))


@pytest.mark.parametrize(
    ("name", "above", "below"),
    [
        ("implicit_euler", [1], [1, -1]),
        ("implicit_midpoint", [1, 1 / 2], [1, -1 / 2]),
        ("trapezoid", [1, 1 / 2], [1, -1 / 2]),
        ("gl4", [1, 1 / 2, 1 / 12], [1, -1 / 2, 1 / 12]),
        ("gl6", [1, 1 / 2, 1 / 10, 1 / 120], [1, -1 / 2, 1 / 10, -1 / 120]),
        ("radauIIA3", [1, 1 / 3], [1, -2 / 3, 1 / 6]),
        ("radauIIA5", [1, 2 / 5, 1 / 20], [1, -3 / 5, 3 / 20, -1 / 60]),
    ],
)
def test_the_stability_function_is_the_pade_approximation(name: str, above: list[float], below: list[float]) -> None:
    for z in (-0.3, -5.0, 0.4 + 1j, -2 + 7j, 3j, -50.0):
        wanted = np.polynomial.polynomial.polyval(z, above) / np.polynomial.polynomial.polyval(z, below)
        assert amplification(TABLES[name], z) == pytest.approx(wanted, rel=1e-12, abs=1e-12)


@pytest.mark.parametrize("name", [*DIAGONAL, *FULL])
def test_an_implicit_method_is_a_stable(name: str) -> None:
    axis = np.concatenate((np.linspace(0, 20, 401), np.geomspace(20, 1e6, 100)))
    sizes = [abs(amplification(TABLES[name], 1j * y)) for y in axis]
    assert max(sizes) < 1 + 1e-9
    # without a pole on the left the imaginary axis suffices: the diagonal blocks have no negative eigenvalue
    a = np.array(TABLES[name].a)
    assert np.linalg.eigvals(a).real.min() >= 0


@pytest.mark.parametrize("name", L_STABLE)
def test_a_stiff_component_is_damped_in_one_step(name: str) -> None:
    table = TABLES[name]
    assert abs(amplification(table, -1e7)) < 1e-6
    if not any(table.a[0]):  # an explicit first stage: the limits of the other states, the last one being the new state
        a = np.array(table.a)
        assert abs(np.linalg.solve(a[1:, 1:], a[1:, 0])[-1]) < 1e-14


@pytest.mark.parametrize("name", sorted({*L_STABLE, "implicit_midpoint", "gl4", "gl6"}))
@pytest.mark.parametrize("z", [-1e2, -1e5, -1e8])
def test_dense_output_does_not_overshoot_for_any_stiffness(name: str, z: float) -> None:
    values = [abs(amplification(TABLES[name], z, theta)) for theta in np.linspace(0, 1, 21)]
    assert max(values) < 1 + 1e-6


@pytest.mark.parametrize("name", ["kvaerno3", "kvaerno4", "kvaerno5"])
def test_the_error_estimate_is_bounded_for_any_stiffness(name: str) -> None:
    table = TABLES[name]
    assert table.b_error is not None
    z = -1e8
    stages = np.linalg.solve(np.eye(table.stages) - z * np.array(table.a), np.ones(table.stages))
    assert abs(z * np.array(table.b_error) @ stages) < 1


@pytest.mark.parametrize("name", ["heun3", "rk4_38", "fehlberg2", "dopri8", "trapezoid", "dopri5", "bosh3"])
def test_dense_output_starts_with_the_slope_of_the_first_stage(name: str) -> None:
    slopes = np.array(TABLES[name].interpolant)[:, 0]
    assert np.abs(slopes - np.eye(len(slopes))[0]).max() < 1e-12


@pytest.mark.parametrize(
    ("name", "last"),
    [("dopri8", 13), ("trapezoid", 1), ("trbdf2", 2), ("kvaerno3", 3), ("kvaerno4", 4), ("kvaerno5", 6)],
)
def test_dense_output_ends_with_the_slope_at_the_end(name: str, last: int) -> None:
    interpolant = np.array(TABLES[name].interpolant)
    slopes = interpolant @ np.arange(1, interpolant.shape[1] + 1)
    assert np.abs(slopes - np.eye(len(slopes))[last]).max() < 1e-11
