"""Users may register solver classes, which are called by torchdiffeq's protocol."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import pytest
import torch
from both import TIMES, Field, agree, answers, flat, ours, state, theirs
from torch import Tensor

import neuralode.torchdiffeq._impl as our_impl


def make_heun(base: Any, perturb: Any) -> Any:
    """Return Heun's method, written as torchdiffeq's users write solver classes."""

    class Heun(base):
        order = 2

        def _step_func(self, func: Any, t0: Tensor, dt: Tensor, t1: Tensor, y0: Tensor) -> tuple[Tensor, Tensor]:
            f0 = func(t0, y0, perturb=perturb.NEXT if self.perturb else perturb.NONE)
            f1 = func(t1, y0 + dt * f0, perturb=perturb.PREV if self.perturb else perturb.NONE)
            return dt * (f0 + f1) / 2, f0

    return Heun


HEUN = make_heun(our_impl.solvers.FixedGridODESolver, our_impl.misc.Perturb)


class MinimalEuler:
    """Euler's method with the minimum that the protocol requires."""

    def __init__(self, func: Any, y0: Tensor, rtol: float, atol: float, **options: Any) -> None:
        self.func, self.y0, self.options = func, y0, options

    def integrate(self, t: Tensor) -> Tensor:
        states = [self.y0]
        for t0, t1 in pairwise(t):
            assert t1 > t0
            states.append(states[-1] + (t1 - t0) * self.func(t0, states[-1]))
        return torch.stack(states)


@pytest.fixture(autouse=True)
def _registered() -> Iterator[None]:
    ours.SOLVERS["my_heun"], ours.SOLVERS["my_euler"] = HEUN, MinimalEuler
    yield
    del ours.SOLVERS["my_heun"], ours.SOLVERS["my_euler"]


BOTH_STATES = pytest.mark.parametrize("tupled", [False, True], ids=["tensor", "tuple"])
BOTH_WAYS = pytest.mark.parametrize("reverse", [False, True], ids=["forward", "reversed"])


@BOTH_STATES
@BOTH_WAYS
@pytest.mark.parametrize("interface", ["odeint", "odeint_adjoint"])
@pytest.mark.parametrize(("registered", "builtin"), [("my_heun", "heun2"), ("my_euler", "euler")])
def test_a_registered_solver_class_takes_the_steps(
    registered: str, builtin: str, tupled: bool, reverse: bool, interface: str
) -> None:
    agree(
        answers(ours, interface, tupled, reverse, method=registered),
        answers(theirs, interface, tupled, reverse, method=builtin),
        1e-12,
    )


@BOTH_STATES
@pytest.mark.parametrize("options", [{"step_size": 0.07}, {"step_size": 0.07, "interp": "cubic"}, {"perturb": True}])
def test_options_reach_a_registered_solver_class(options: dict[str, Any], tupled: bool) -> None:
    agree(
        answers(ours, "odeint", tupled, True, learnable=False, method="my_heun", options=options),
        answers(theirs, "odeint", tupled, True, learnable=False, method="heun2", options=options),
        1e-12,
    )


def test_the_backward_solve_may_use_a_registered_solver_class() -> None:
    arguments = {"method": "rk4", "adjoint_method": "my_heun", "adjoint_options": {"step_size": 0.01}}
    wanted = answers(theirs, "odeint", True, False, method="rk4", learnable=False)
    agree(answers(ours, "odeint_adjoint", True, False, learnable=False, **arguments), wanted, 1e-2)


def test_a_registered_solver_class_receives_a_norm_and_callbacks() -> None:
    class WithCallback(MinimalEuler):
        def integrate(self, t: Tensor) -> Tensor:
            assert self.options["norm"](self.y0) > 0
            self.func.callback_step(t[0], self.y0, t[1] - t[0])
            return super().integrate(t)

    ours.SOLVERS["my_euler"] = WithCallback
    field = Field(True)
    calls: list[Any] = []
    field.callback_step = lambda t, y, dt: calls.append((t, y, dt))
    with pytest.warns(UserWarning, match="does not support callbacks"):
        ours.odeint(field, state(True), TIMES.flip(0), method="my_euler")
    assert calls == []  # it does not declare that it supports them
    WithCallback.valid_callbacks = staticmethod(lambda: {"callback_step"})
    ours.odeint(field, state(True), TIMES.flip(0), method="my_euler")
    [(t, y, dt)] = calls
    assert t == 1.2
    assert [tuple(part.shape) for part in y] == [(4, 3), ()]
    assert dt == pytest.approx(0.5)


def test_an_unknown_option_of_a_derived_solver_class_causes_a_warning() -> None:
    with pytest.warns(UserWarning, match=r"^Heun: Unexpected arguments \{'foo': 1\}"):
        ours.odeint(Field(False), state(False), TIMES, method="my_heun", options={"foo": 1})


@pytest.mark.parametrize("method", ["rk4", "dopri5"])
def test_our_solvers_follow_the_protocol(method: str) -> None:
    field, y0 = Field(False), state(False)
    solver = ours.SOLVERS[method](func=field, y0=y0, rtol=1e-6, atol=1e-6)
    found = solver.integrate(TIMES)
    assert torch.equal(found, ours.odeint(field, y0, TIMES, rtol=1e-6, atol=1e-6, method=method))
    if method == "dopri5":
        t, ys = solver.integrate_until_event(TIMES[0], lambda t, y: t - 0.25)
        assert t.item() == pytest.approx(0.25)
        assert ys.shape == (2, 4, 3)


@BOTH_STATES
@BOTH_WAYS
def test_inputs_are_normalised_as_in_torchdiffeq(tupled: bool, reverse: bool) -> None:
    """Flatten the inputs, solve and unflatten the outputs, as packages that copied `odeint` do."""
    field, y0 = Field(tupled), state(tupled)
    t = TIMES.flip(0) if reverse else TIMES
    misc = our_impl.misc
    shapes, func, flat_y0, times, rtol, atol, method, options, event_fn, turned = misc._check_inputs(
        field, y0, t, 1e-7, 1e-9, "rk4", {"step_size": 0.05}, None, ours.SOLVERS
    )
    assert (shapes is None, turned, event_fn) == (not tupled, reverse, None)
    assert bool((times.diff() > 0).all())
    assert func(times[0], flat_y0, perturb=misc.Perturb.NEXT).shape == flat_y0.shape
    solution = ours.SOLVERS[method](func=func, y0=flat_y0, rtol=rtol, atol=atol, **options).integrate(times)
    found = solution if shapes is None else misc._flat_to_shape(solution, (len(times),), shapes)
    wanted = ours.odeint(field, y0, t, method="rk4", options={"step_size": 0.05})
    assert torch.allclose(flat(found), flat(wanted), rtol=1e-12)


def test_private_norms() -> None:
    x = torch.tensor([3.0, -4.0])
    misc = our_impl.misc
    assert misc._rms_norm(x) == pytest.approx((12.5) ** 0.5)
    assert misc._linf_norm(x) == 4
    assert misc._zero_norm(x) == 0
    assert misc._mixed_norm((x, 2 * x)) == pytest.approx(2 * 12.5**0.5)
    assert misc._mixed_norm(()) == 0
