"""Symplectic methods over very many steps: the energy error of a planet's orbit stays bounded."""

from __future__ import annotations

import gc
import math
import tracemalloc
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

import neuralode
from neuralode import Separable, SolveError, solve
from neuralode.methods.symplectic.order_conditions import residual, words

ECCENTRICITY = 0.6
A_REVOLUTION = 100  # steps
H = 2 * math.pi / A_REVOLUTION
# largest relative error of the energy over any revolution, measured and rounded up
BOUND = {"semi_implicit_euler": 0.3, "leapfrog": 4e-2, "ruth3": 2e-2, "yoshida4": 3e-3, "blanes_moan4": 3e-5}


def gravity(t: Tensor, q: Tensor) -> Tensor:
    return -q / torch.linalg.vector_norm(q, dim=-1, keepdim=True) ** 3


KEPLER = Separable(lambda t, p: p, gravity)


def perihelion() -> tuple[Tensor, Tensor]:
    speed = math.sqrt((1 + ECCENTRICITY) / (1 - ECCENTRICITY))
    return torch.tensor([1 - ECCENTRICITY, 0.0]).double(), torch.tensor([0.0, speed]).double()


def energy(q: Tensor, p: Tensor) -> Tensor:
    return p.square().sum(-1) / 2 - 1 / torch.linalg.vector_norm(q, dim=-1)


def errors(method: str, steps: int) -> tuple[float, float]:
    """Return the largest relative error of the energy over the first and the last tenth of the steps."""
    with torch.no_grad():
        sol = solve(KEPLER, perihelion(), (0.0, steps * H), method=method, step_size=H, save="steps")
    energies = energy(*sol.ys)
    off = ((energies - energies[0]) / energies[0]).abs()
    return float(off[: steps // 10].max()), float(off[-steps // 10 :].max())


@pytest.mark.parametrize("method", BOUND)
def test_the_energy_error_stays_bounded(method: str) -> None:
    first, last = errors(method, 1000)
    assert last <= BOUND[method]
    assert last <= 1.1 * first


def test_the_energy_of_rk4_drifts() -> None:
    first, last = errors("rk4", 2000)
    assert last > 5 * first


@pytest.mark.slow
@pytest.mark.parametrize("method", ["semi_implicit_euler", "leapfrog", "yoshida4"])
def test_the_energy_error_stays_bounded_over_a_hundred_thousand_steps(method: str) -> None:
    first, last = errors(method, 100_000)
    assert last <= BOUND[method]
    assert last <= 1.1 * first


@pytest.mark.slow
def test_the_energy_error_of_rk4_grows_over_a_hundred_thousand_steps() -> None:
    _, last = errors("rk4", 100_000)
    assert last > 0.1 > BOUND["leapfrog"]


def test_angular_momentum_is_conserved_to_rounding() -> None:
    """Kicks and drifts conserve it, so every composition does."""
    with torch.no_grad():
        sol = solve(KEPLER, perihelion(), (0.0, 1000 * H), method="leapfrog", step_size=H, save="steps")
    (x, y), (u, v) = (half.unbind(-1) for half in sol.ys)
    momentum = x * v - y * u
    assert (momentum - momentum[0]).abs().max() < 1e-12


@pytest.mark.parametrize("form", ["separable", "plain"])
def test_steps_without_gradients_are_not_kept(form: str) -> None:
    """Twice as many steps have the same peak memory."""
    f = KEPLER if form == "separable" else lambda t, y: (y[1], gravity(t, y[0]))

    def peak(steps: int) -> int:
        gc.collect()
        tracemalloc.start()
        with torch.no_grad():
            solve(f, perihelion(), (0.0, steps * H), method="leapfrog", step_size=H)
        highest = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return highest

    peak(100)  # fills the caches of Python and torch
    kept = 800 * 500  # a kept step has at least two tensors, whose Python objects alone are larger
    assert peak(1600) - peak(800) < kept / 4


def test_exceeding_max_steps_raises_with_the_partial_solution() -> None:
    with pytest.raises(SolveError, match="max_steps"):
        solve(KEPLER, perihelion(), (0.0, 100 * H), method="leapfrog", step_size=H, max_steps=99)
    sol = solve(KEPLER, perihelion(), (0.0, 100 * H), method="leapfrog", step_size=H, max_steps=100)
    assert int(sol.stats.accepted) == 100


def test_coefficients_of_words_are_the_known_ones() -> None:
    """Baker, Campbell and Hausdorff: e^A e^B has AB once and BA not at all; (A + B)³ / 6 has every word once."""
    found = words([(0, 1.0), (1, 1.0)], 3)
    assert found[0, 1] == 1
    assert found.get((1, 0), 0.0) == 0
    assert found[0, 0, 1] == found[0, 1, 1] == 1 / 2
    fine = words([(half, 1 / 1000) for _ in range(1000) for half in (0, 1)], 3)
    assert max(abs(fine[word] - 1 / 6) for word in fine if len(word) == 3) < 1e-3
    assert residual([(0, 1.0)], 1) == 1  # B is missing


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"kicks": (1.0,)}, "1 kicks and 2 drifts"),
        ({"kicks": (math.nan, 0.5)}, "wanted finite numbers"),
        ({"order": 0}, "order=0"),
        ({"kicks": (0.5, 0.4)}, "miss the conditions of order 1 by 1.0e-01"),
        ({"order": 3}, "miss the conditions of order 3"),
    ],
)
def test_invalid_coefficients_are_refused(change: dict[str, Any], words: str) -> None:
    given = {"name": "mine", "order": 2, "kicks": (0.5, 0.5), "drifts": (1.0, 0.0)}
    with pytest.raises(ValueError, match=words):
        neuralode.Partitioned(**(given | change))


def test_a_composition_may_start_with_a_drift() -> None:
    """Position Verlet: the method state is the velocity."""
    mine = neuralode.Partitioned("position_verlet", 2, kicks=(0, 1), drifts=(1 / 2, 1 / 2))
    assert mine.evaluations_per_step == 2
    assert mine.nodes == (0.0, 0.5, 1.0)
    calls: list[str] = []

    def noting(name: str, function: Callable[..., Tensor]) -> Callable[..., Tensor]:
        return lambda t, x: (calls.append(name), function(t, x))[1]

    f = Separable(noting("velocity", lambda t, p: p), noting("force", lambda t, q: -torch.sin(q) + torch.cos(t)))
    y0 = (torch.ones(1).double(), torch.zeros(1).double())
    wanted = solve(f, y0, (0.0, 2.0), method="dopri8", rtol=1e-11, atol=1e-12).y1[0]
    off = []
    for steps in (20, 40):
        calls.clear()
        off.append(float((solve(f, y0, (0.0, 2.0), method=mine, step_size=2 / steps).y1[0] - wanted).abs()))
        assert (calls.count("velocity"), calls.count("force")) == (steps + 1, steps + 1)  # f(t0, y0) evaluates both
    assert 3.5 < off[0] / off[1] < 4.5
