"""Every option has its meaning in torchdiffeq, for the forward and the backward solve."""

from __future__ import annotations

import warnings
from functools import partial
from typing import Any

import pytest
import torch
from both import TIMES, Field, Module, agree, answers, flat, ours, state, theirs
from torch import Tensor

Y0 = torch.tensor([1.0, -0.5], dtype=torch.float64)
T = torch.tensor([0.0, 1.0], dtype=torch.float64)
BOTH = pytest.mark.parametrize("library", [ours, theirs], ids=["ours", "theirs"])


def swing(t: Tensor, y: Tensor) -> Tensor:
    return torch.stack((y[1], -4 * y[0])) * (1 + t)


class Recording:
    """A function that records the arguments of its callbacks."""

    def __init__(self, function: Any = swing) -> None:
        self.function = function
        self.steps: list[tuple[float, float]] = []
        self.accepted: list[tuple[float, float]] = []

    def __call__(self, t: Tensor, y: Any) -> Any:
        return self.function(t, y)

    def callback_step(self, t: Tensor, y: Any, dt: Tensor) -> None:
        self.steps.append((t.item(), dt.item()))

    def callback_accept_step(self, t: Tensor, y: Any, dt: Tensor) -> None:
        self.accepted.append((t.item(), dt.item()))


def nine(func: Any, y0: Any, t: Tensor) -> Tensor:
    return t[0] + (t[-1] - t[0]) * torch.linspace(0, 1, 9, dtype=t.dtype) ** 2


# ------------------------------------------------------------------------------------------------- fixed-step options

FIXED_STEP = [
    ("euler", {"step_size": 0.07}),
    ("rk4", {"step_size": 0.07}),
    ("rk4", {"step_size": 0.07, "interp": "cubic"}),
    ("heun3", {"step_size": 0.11, "interp": "cubic"}),
    ("heun2", {"perturb": True}),
    ("rk4", {"perturb": True, "step_size": 0.09}),
    ("midpoint", {"grid_constructor": nine}),
    ("rk4", {"grid_constructor": nine, "interp": "cubic"}),
]


@pytest.mark.parametrize("interface", ["odeint", "odeint_adjoint"])
@pytest.mark.parametrize("reverse", [False, True], ids=["forward", "reversed"])
@pytest.mark.parametrize("tupled", [False, True], ids=["tensor", "tuple"])
@pytest.mark.parametrize(("method", "options"), FIXED_STEP, ids=lambda x: x if isinstance(x, str) else "-".join(x))
def test_fixed_step_options_agree_to_rounding(
    method: str, options: dict[str, Any], tupled: bool, reverse: bool, interface: str
) -> None:
    # torchdiffeq differentiates a constructed grid with respect to t or not, depending on how it was constructed
    learnable = "grid_constructor" not in options
    arguments = {"method": method, "options": options, "learnable": learnable}
    found, wanted = (answers(library, interface, tupled, reverse, **arguments) for library in (ours, theirs))
    agree(found, wanted, 1e-12)


@BOTH
def test_a_grid_constructor_receives_the_users_times(library: Any) -> None:
    seen: list[Tensor] = []

    def constructor(func: Any, y0: Tensor, t: Tensor) -> Tensor:
        seen.append(t)
        return nine(func, y0, t)

    library.odeint(swing, Y0, T.flip(0), method="euler", options={"grid_constructor": constructor})
    assert torch.equal(seen[0], T.flip(0))


@BOTH
def test_perturb_evaluates_strictly_within_every_step(library: Any) -> None:
    times: list[float] = []

    def recording(t: Tensor, y: Tensor) -> Tensor:
        times.append(t.item())
        return swing(t, y)

    library.odeint(recording, Y0, T, method="rk4", options={"step_size": 0.25, "perturb": True})
    edges = [0.25, 0.5, 0.75]
    assert not set(edges) & set(times)
    for edge in edges:
        sides = sorted(t - edge for t in times if abs(t - edge) < 1e-10)
        assert len(sides) == 2
        assert -1e-15 < sides[0] < 0 < sides[1] < 1e-15


# ------------------------------------------------------------------------------------------------- adaptive options


def jumping(t: Tensor, y: Tensor) -> Tensor:
    assert t != 0.5, "evaluated at the jump"
    return torch.where(t < 0.5, 1.0, -2.0) * y


@pytest.mark.parametrize("given", [torch.tensor([0.5]), [0.5]], ids=["tensor", "list"])
@pytest.mark.parametrize("reverse", [False, True])
def test_func_is_evaluated_on_both_sides_of_a_jump_and_never_at_it(given: Any, reverse: bool) -> None:
    t = T.flip(0) if reverse else T
    end = ours.odeint(jumping, Y0, t, method="dopri5", options={"jump_t": given})[-1]
    assert torch.allclose(end, Y0 * torch.exp(torch.tensor(0.5 if reverse else -0.5)), rtol=1e-7)


def test_the_backward_solve_stops_at_jumps() -> None:
    field = Module(lambda t, y, p: p * jumping(t, y), torch.tensor(1.0, dtype=torch.float64))
    ys = ours.odeint_adjoint(field, Y0, T, method="dopri5", options={"jump_t": torch.tensor([0.5])})
    ys[-1].sum().backward()
    assert field.parameter is not None
    assert field.parameter.grad is not None
    exact = -0.5 * float(Y0.sum()) * torch.exp(torch.tensor(-0.5))
    assert torch.allclose(field.parameter.grad, exact.double(), rtol=1e-6)


@BOTH
def test_steps_end_at_step_t(library: Any) -> None:
    recording = Recording()
    stops = torch.tensor([0.7, 0.2], dtype=torch.float64)
    library.odeint(recording, Y0, T, method="dopri5", options={"step_t": stops})
    ends = [t + dt for t, dt in recording.accepted]
    assert all(min(abs(end - stop) for end in ends) < 1e-12 for stop in stops.tolist())


@BOTH
def test_step_sizes_are_bounded(library: Any) -> None:
    recording = Recording()
    library.odeint(recording, Y0, T, method="dopri5", options={"first_step": 0.055, "max_step": 0.06})
    assert recording.steps[0][1] == pytest.approx(0.055)
    assert all(dt <= 0.06 + 1e-12 for _, dt in recording.steps)
    recording = Recording()
    library.odeint(recording, Y0, T, method="dopri5", rtol=1e-12, atol=1e-12, options={"min_step": 0.2})
    assert len(recording.accepted) == len(recording.steps) <= 6  # steps of min_step are accepted whatever their error


@BOTH
def test_safety_and_factors_change_the_steps(library: Any) -> None:
    def sizes(**options: Any) -> list[float]:
        recording = Recording()
        library.odeint(
            recording, Y0, 3 * T, rtol=1e-9, atol=1e-9, method="dopri5", options={"first_step": 1e-4, **options}
        )
        return [dt for _, dt in recording.steps]

    growth = [b / a for a, b in zip(sizes(ifactor=2.0), sizes(ifactor=2.0)[1:], strict=False)]
    assert growth[0] == pytest.approx(2.0)
    assert max(growth) <= 2.0 + 1e-9
    assert len(sizes(safety=0.5)) > len(sizes())
    recording = Recording()
    library.odeint(recording, Y0, T, method="dopri5", options={"first_step": 1.0, "dfactor": 0.5})
    assert recording.steps[1][1] == pytest.approx(0.5)


@BOTH
def test_attempts_are_counted_from_output_to_output(library: Any) -> None:
    many = torch.linspace(0, 3, 31, dtype=torch.float64)
    options = {"max_num_steps": 20}
    library.odeint(swing, Y0, many, method="dopri5", options=options)
    with pytest.raises(AssertionError, match=r"^max_num_steps exceeded \(20>=20\)"):
        library.odeint(swing, Y0, many[[0, -1]], method="dopri5", options=options)


@BOTH
def test_the_backward_solve_has_its_own_limit(library: Any) -> None:
    field, y0 = Field(False), state(False)
    arguments = {"method": "dopri5", "adjoint_options": {"max_num_steps": 2}}
    ys = library.odeint_adjoint(field, y0, TIMES[[0, -1]], **arguments)
    with pytest.raises(AssertionError, match=r"^max_num_steps exceeded"):
        ys[-1].sum().backward()


@BOTH
@pytest.mark.parametrize("tupled", [False, True])
def test_a_norm_receives_the_structure_of_the_users_state(library: Any, tupled: bool) -> None:
    seen: set[Any] = set()

    def norm(errors: Any) -> Tensor:
        parts = errors if isinstance(errors, tuple) else (errors,)
        seen.add(tuple(tuple(part.shape) for part in parts))
        return max(part.abs().max() for part in parts)

    library.odeint(Field(tupled), state(tupled), TIMES, method="dopri5", options={"norm": norm})
    assert seen == {((4, 3), ()) if tupled else ((4, 3),)}


def test_a_norm_controls_the_steps() -> None:
    recording, strict = Recording(), Recording()
    ours.odeint(recording, Y0, T, method="dopri5")
    ours.odeint(strict, Y0, T, method="dopri5", options={"norm": lambda errors: 1e3 * errors.abs().max()})
    assert len(strict.accepted) > 2 * len(recording.accepted)


@BOTH
def test_a_time_dtype_is_accepted(library: Any) -> None:
    ys = library.odeint(swing, Y0, T, method="dopri5", options={"dtype": torch.float32})
    assert ys.dtype == torch.float64


@BOTH
@pytest.mark.parametrize(
    ("method", "options", "warning"),
    [
        ("dopri5", {"step_size": 0.1}, "Dopri5Solver: Unexpected arguments {'step_size': 0.1}"),
        ("euler", {"first_step": 0.1}, "Euler: Unexpected arguments {'first_step': 0.1}"),
        ("implicit_adams", {"foo": 1}, "AdamsBashforthMoulton: Unexpected arguments {'foo': 1}"),
        ("scipy_solver", {"foo": 1}, "ScipyWrapperODESolver: Unexpected arguments {'foo': 1}"),
    ],
)
def test_unknown_options_cause_a_warning_and_are_ignored(
    library: Any, method: str, options: dict[str, Any], warning: str
) -> None:
    with pytest.warns(UserWarning, match="Unexpected arguments") as warned:
        ys = library.odeint(swing, Y0, T, method=method, options=options)
    assert warning in [str(w.message) for w in warned]
    assert ys.shape == (2, 2)


@pytest.mark.parametrize(
    "solve", [ours.odeint, partial(ours.odeint_adjoint, adjoint_params=())], ids=["odeint", "odeint_adjoint"]
)
def test_warnings_name_the_line_of_the_caller(solve: Any) -> None:
    with pytest.warns(UserWarning, match="Unexpected arguments") as warned:
        solve(Recording(), Y0, T, method="explicit_adams", options={"foo": 1, "max_order": 3})
    beginnings = {str(w.message)[:25] for w in warned}
    assert beginnings == {"AdamsBashforth: Unexpecte", "Solver 'explicit_adams' d", "max_order is below 4, so "}
    assert {w.filename for w in warned} == {__file__}


def test_known_options_cause_no_warning_and_the_callers_dict_is_unchanged() -> None:
    options: dict[str, Any] = {"step_size": 0.1}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        ours.odeint_adjoint(Field(False), state(False), TIMES, method="rk4", options=options)
    assert options == {"step_size": 0.1}


@BOTH
def test_adams_methods_of_low_order_are_rk4(library: Any) -> None:
    t = torch.linspace(0, 1, 9, dtype=torch.float64)
    with pytest.warns(UserWarning, match="max_order is below 4"):
        low = library.odeint(swing, Y0, t, method="explicit_adams", options={"max_order": 3})
    assert torch.allclose(low, library.odeint(swing, Y0, t, method="rk4"), rtol=1e-13)


def test_scipy_solver_selects_a_solver_by_name() -> None:
    exact = ours.odeint(swing, Y0, T, rtol=1e-10, atol=1e-10)
    for name in ("RK45", "Radau"):
        ys = ours.odeint(swing, Y0, T, rtol=1e-8, atol=1e-8, method="scipy_solver", options={"solver": name})
        assert torch.allclose(ys, exact, rtol=1e-5)


# ------------------------------------------------------------------------------------------------ backward solve


@BOTH
@pytest.mark.parametrize("tupled", [False, True])
def test_an_adjoint_norm_receives_time_state_adjoint_and_parameters(library: Any, tupled: bool) -> None:
    seen: set[Any] = set()

    def norm(errors: Any) -> Tensor:
        seen.add(tuple(tuple(x.shape) for x in errors))
        return max(x.abs().max() for x in errors)

    ys = library.odeint_adjoint(
        Field(tupled), state(tupled), TIMES, rtol=1e-5, atol=1e-5, method="dopri5", adjoint_options={"norm": norm}
    )
    flat(ys).sum().backward()
    parts = ((4, 3), ()) if tupled else ((4, 3),)
    assert seen == {((), *parts, *parts, (3, 3), (3,))}


def backward_evaluations(**arguments: Any) -> int:
    count = 0

    def function(t: Tensor, y: Tensor, p: Tensor) -> Tensor:
        nonlocal count
        count += 1
        return torch.tanh(y) + p.sum() * torch.sin(20 * t)

    field = Module(function, torch.zeros(50, dtype=torch.float64))  # y does not depend on them, but their gradient does
    ys = ours.odeint_adjoint(field, Y0.clone().requires_grad_(), T, rtol=1e-6, atol=1e-6, **arguments)
    count = 0
    ys[-1].sum().backward()
    return count


def test_the_seminorm_saves_evaluations() -> None:
    full = backward_evaluations(method="dopri5")
    assert backward_evaluations(method="dopri5", adjoint_options={"norm": "seminorm"}) < full


def test_the_backward_solve_has_its_own_tolerances() -> None:
    strict = backward_evaluations()
    assert backward_evaluations(adjoint_rtol=1e-2, adjoint_atol=1e-2) < strict


@pytest.mark.parametrize("tupled", [False, True])
@pytest.mark.parametrize("norm", [None, "seminorm"])
def test_the_backward_solve_may_use_another_method(tupled: bool, norm: str | None) -> None:
    wanted = answers(theirs, "odeint", tupled, False, rtol=1e-10, atol=1e-10)
    options = {} if norm is None else {"norm": norm}
    for arguments in (
        {"method": "rk4", "options": {"step_size": 0.02}, "adjoint_method": "dopri5", "adjoint_options": options},
        {"method": "dopri5", "adjoint_method": "rk4", "adjoint_options": {"step_size": 0.02}},
        {"method": "dopri5", "adjoint_method": "rk4", "adjoint_options": {"grid_constructor": nine}},
    ):
        agree(answers(ours, "odeint_adjoint", tupled, False, rtol=1e-8, atol=1e-8, **arguments), wanted, 1e-4)


@BOTH
def test_only_adjoint_params_receive_gradients(library: Any) -> None:
    field, y0 = Field(False), state(False)
    ys = library.odeint_adjoint(field, y0, TIMES, adjoint_params=(p for p in [field.weight]))
    ys[-1].sum().backward()
    assert field.weight.grad is not None
    assert y0.grad is not None
    assert field.bias.grad is None


@BOTH
def test_adjoint_params_may_be_computed_tensors(library: Any) -> None:
    source = torch.tensor([0.3, 0.7], dtype=torch.float64, requires_grad=True)
    rate = source.exp()
    ys = library.odeint_adjoint(lambda t, y: -rate * y, Y0, T, adjoint_params=(rate,))
    ys[-1].sum().backward()
    assert source.grad is not None
    exact = -Y0 * torch.exp(-rate.detach()) * rate.detach()
    assert torch.allclose(source.grad, exact, rtol=1e-6)


@BOTH
def test_unused_adjoint_params_receive_zero(library: Any) -> None:
    unused = torch.ones(2, dtype=torch.float64, requires_grad=True)
    y0 = Y0.clone().requires_grad_()
    library.odeint_adjoint(swing, y0, T, adjoint_params=(unused,))[-1].sum().backward()
    assert torch.equal(unused.grad, torch.zeros(2, dtype=torch.float64))


@BOTH
def test_a_frozen_adjoint_parameter_causes_a_warning_with_a_norm(library: Any) -> None:
    field = Field(False)
    field.bias.requires_grad_(False)
    with pytest.warns(UserWarning, match="An adjoint parameter was passed without requiring gradient"):
        library.odeint_adjoint(field, state(False), TIMES, adjoint_options={"norm": lambda x: x[1].abs().max()})


@BOTH
def test_a_solve_without_differentiable_inputs_has_no_graph(library: Any) -> None:
    assert not library.odeint_adjoint(swing, Y0, T, adjoint_params=()).requires_grad
    assert not library.odeint(swing, Y0, T).requires_grad
    field = Field(False)
    with torch.no_grad():
        assert not library.odeint_adjoint(field, state(False), TIMES).requires_grad
