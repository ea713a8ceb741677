"""Both libraries give the same outputs and gradients.

With fixed steps, both compute the same numbers in a different order, so they differ by rounding only. With adaptive
steps, each is within a multiple of its tolerance of the solution. Steps end at the outputs (``step_t``), because
torchdiffeq interpolates outputs without controlling the error of the interpolation.
"""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from both import TIMES, agree, answers, ours, theirs
from torch import Tensor

ROUNDING = 1e-12  # a few thousand operations in float64
NEAR = 30.0  # times the tolerance: the errors of three dozen steps forward and backward, which hardly grow

FIXED_STEP: list[tuple[str, dict[str, Any]]] = [
    ("euler", {}),
    ("midpoint", {}),
    ("heun2", {}),
    ("heun3", {}),
    ("rk4", {}),
    ("explicit_adams", {"step_size": 0.05, "max_order": 5}),
    ("implicit_adams", {"step_size": 0.05, "max_order": 5, "max_iters": 10}),
    ("fixed_adams", {"step_size": 0.05, "max_order": 4, "max_iters": 10}),
]
ADAPTIVE = [("adaptive_heun", 1e-6), ("fehlberg2", 1e-6), ("bosh3", 1e-7), ("dopri5", 1e-9), ("dopri8", 1e-10)]

BOTH_STATES = pytest.mark.parametrize("tupled", [False, True], ids=["tensor", "tuple"])
BOTH_WAYS = pytest.mark.parametrize("reverse", [False, True], ids=["forward", "reversed"])
BOTH_GRADIENTS = pytest.mark.parametrize("interface", ["odeint", "odeint_adjoint"])


@BOTH_GRADIENTS
@BOTH_WAYS
@BOTH_STATES
@pytest.mark.parametrize(("method", "options"), FIXED_STEP, ids=[name for name, _ in FIXED_STEP])
def test_fixed_steps_agree_to_rounding(
    method: str, options: dict[str, Any], tupled: bool, reverse: bool, interface: str
) -> None:
    # Loose tolerances: the corrections of implicit_adams converge in both libraries before reaching their limit.
    arguments = {"method": method, "options": options, "rtol": 1e-4, "atol": 1e-4}
    learnable = "adams" not in method
    found, wanted = (answers(lib, interface, tupled, reverse, learnable, **arguments) for lib in (ours, theirs))
    agree(found, wanted, ROUNDING)


@BOTH_GRADIENTS
@BOTH_WAYS
@BOTH_STATES
@pytest.mark.parametrize("method", [name for name, _ in ADAPTIVE])
def test_adaptive_steps_agree_to_tolerance(method: str, tupled: bool, reverse: bool, interface: str) -> None:
    tolerance = dict(ADAPTIVE)[method]
    arguments: dict[str, Any] = {"method": method, "rtol": tolerance, "atol": tolerance, "options": {"step_t": TIMES}}
    found = answers(ours, interface, tupled, reverse, **arguments)
    if interface == "odeint_adjoint":
        # torchdiffeq does not negate these times in the backward solve when time decreases
        arguments["adjoint_options"] = {"step_t": -TIMES if reverse else TIMES}
    wanted = answers(theirs, interface, tupled, reverse, **arguments)
    if method == "fehlberg2" and interface == "odeint":
        # output times are differentiated through the dense output, whose derivative has order 1 only
        assert (found.pop("d/dt") - wanted.pop("d/dt")).abs().max() < 1e-3
    agree(found, wanted, NEAR * tolerance)


@BOTH_WAYS
@BOTH_STATES
def test_scipy_solvers_agree_to_tolerance(tupled: bool, reverse: bool) -> None:
    arguments: dict[str, Any] = {"method": "scipy_solver", "rtol": 1e-9, "atol": 1e-9}
    wanted = answers(theirs, "odeint_adjoint", tupled, reverse, **arguments)
    agree(
        answers(ours, "odeint_adjoint", tupled, reverse, **arguments), wanted, 1e-6
    )  # LSODA has errors of dozens of rtol
    # torchdiffeq has no gradient here
    agree(answers(ours, "odeint", tupled, reverse, **arguments), wanted, 1e-6)


@BOTH_GRADIENTS
@BOTH_STATES
def test_the_default_method_agrees(tupled: bool, interface: str) -> None:
    found, wanted = (answers(lib, interface, tupled, False, rtol=1e-9, atol=1e-9) for lib in (ours, theirs))
    derivative = found.pop("d/dt"), wanted.pop("d/dt")
    agree(found, wanted, 300e-9)  # torchdiffeq's interpolant has order 4
    assert (derivative[0] - derivative[1]).abs().max() < 1e-6  # and its derivative order 3


ROTATION = torch.tensor([[-0.1, 2.0], [-2.0, -0.1]], dtype=torch.float64)


def rotation(t: Tensor, y: Tensor) -> Tensor:
    return y @ ROTATION.T


@pytest.mark.parametrize("method", ["dopri8", "dopri5", "tsit5", "bosh3"])
def test_outputs_between_steps_are_more_accurate_than_torchdiffeqs(method: str) -> None:
    t, y0 = torch.linspace(0, 5, 20, dtype=torch.float64), torch.tensor([1.0, 0.0], dtype=torch.float64)
    exact = torch.stack([torch.linalg.matrix_exp(ROTATION * time) @ y0 for time in t])
    arguments: dict[str, Any] = {"method": method, "rtol": 1e-7, "atol": 1e-9}
    error = (ours.odeint(rotation, y0, t, **arguments) - exact).abs().max()
    assert error < 1e-6
    if method in theirs._impl.odeint.__globals__["SOLVERS"]:
        assert (theirs.odeint(rotation, y0, t, **arguments) - exact).abs().max() > error


IMPLICIT = {
    "implicit_euler": 1,
    "implicit_midpoint": 2,
    "trapezoid": 2,
    "sdirk2": 2,
    "trbdf2": 2,
    "radauIIA3": 3,
    "gl4": 4,
    "radauIIA5": 5,
    "gl6": 6,
}


@pytest.mark.parametrize("method", IMPLICIT)
def test_implicit_methods_of_the_repository_have_their_order(method: str) -> None:
    y0 = torch.tensor([1.0, 0.0], dtype=torch.float64)
    exact = torch.linalg.matrix_exp(ROTATION) @ y0
    errors = []
    for steps in (8, 16):
        t = torch.linspace(0, 1, steps + 1, dtype=torch.float64)
        errors.append(float((ours.odeint(rotation, y0, t, method=method)[-1] - exact).norm()))
    assert math.log2(errors[0] / errors[1]) > IMPLICIT[method] - 0.2


@pytest.mark.parametrize("method", IMPLICIT)
@BOTH_GRADIENTS
def test_implicit_methods_of_the_repository_have_gradients(method: str, interface: str) -> None:
    arguments = {"options": {"step_size": 0.1}, "learnable": False}
    wanted = answers(theirs, "odeint", True, False, learnable=False, rtol=1e-10, atol=1e-10)
    found = answers(ours, interface, True, False, method=method, **arguments)
    agree(found, wanted, {1: 0.2, 2: 1e-2}.get(IMPLICIT[method], 1e-3))


def robertson(t: Tensor, y: Tensor) -> Tensor:
    a, b, c = y
    slow, fast, back = 0.04 * a, 3e7 * b * b, 1e4 * b * c
    return torch.stack((back - slow, slow - back - fast, fast))


def test_implicit_methods_take_large_steps_on_a_stiff_problem() -> None:
    y0, t = torch.tensor([1.0, 0.0, 0.0], dtype=torch.float64), torch.tensor([0.0, 40.0], dtype=torch.float64)
    options = {
        "step_size": 0.5,
        "max_iters": 1,
    }  # for torchdiffeq's iteration; Newton's iteration takes as many as it needs
    found = ours.odeint(robertson, y0, t, method="radauIIA5", options=options)[-1]
    wanted = ours.odeint(robertson, y0, t, method="scipy_solver", rtol=1e-9, atol=1e-12, options={"solver": "Radau"})
    assert torch.allclose(found, wanted[-1], rtol=1e-4)


def test_iterations_that_do_not_converge_cause_a_warning() -> None:
    y0, t = torch.ones(1, dtype=torch.float64), torch.tensor([0.0, 1.0], dtype=torch.float64)
    with pytest.warns(UserWarning, match="^Functional iteration did not converge at t=0"):
        ys = ours.odeint(lambda t, y: 2 * y * y + 1, y0, t, method="implicit_euler")  # its equation has no solution
    assert ys[-1].isnan().all()


def test_float32_states_agree_to_their_own_rounding() -> None:
    y0, t = torch.linspace(-1, 1, 6).reshape(2, 3), torch.linspace(0, 1, 5)

    def field(t: Tensor, y: Tensor) -> Tensor:
        return torch.sin(y + t)

    for method, tolerance in (("rk4", 1e-6), ("dopri5", 1e-5)):
        found, wanted = (lib.odeint(field, y0, t, method=method, rtol=1e-6, atol=1e-6) for lib in (ours, theirs))
        assert found.dtype == wanted.dtype == torch.float32
        assert (found - wanted).abs().max() < tolerance


def test_explicit_adams_stays_finite_where_torchdiffeq_diverges() -> None:
    y0, t = torch.ones(1, dtype=torch.float64), torch.tensor([0.0, 20.0], dtype=torch.float64)

    def decay(t: Tensor, y: Tensor) -> Tensor:
        return -y

    options = {"step_size": 0.1}
    found = ours.odeint(decay, y0, t, method="explicit_adams", options=options)[-1]
    assert abs(float(found) - math.exp(-20)) < 1e-9
    diverged = theirs.odeint(decay, y0, t, method="explicit_adams", options=options)[-1]
    assert not abs(float(diverged)) < 1.0
