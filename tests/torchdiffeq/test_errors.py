"""Invalid input raises torchdiffeq's types of error, with messages that name the input and the expected values."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any, NamedTuple

import pytest
import torch
from both import Field, ours, state, theirs
from torch import Tensor

import neuralode.torchdiffeq._impl as our_impl
from neuralode import GradientError, SolveError, Status
from neuralode.core.status import BackwardSolveError

Y = torch.ones(3, dtype=torch.float64)
T = torch.tensor([0.0, 1.0], dtype=torch.float64)
NAN, INF = float("nan"), float("inf")


def decay(t: Tensor, y: Any) -> Any:
    return tuple(-part for part in y) if isinstance(y, tuple) else -y


def explode(t: Tensor, y: Tensor) -> Tensor:
    return y * y


class Bad(NamedTuple):
    """A call and the error that it raises; ``theirs`` is the type of torchdiffeq's error, if it raises one too."""

    call: Callable[[Any], Any]
    error: type[Exception]
    message: str
    theirs: type[Exception] | None = None


def solve(func: Any = decay, y0: Any = Y, t: Any = T, **arguments: Any) -> Callable[[Any], Any]:
    return lambda library: library.odeint(func, y0, t, **arguments)


def with_options(method: str = "dopri5", **options: Any) -> Callable[[Any], Any]:
    return solve(method=method, options=options)


def grid(func: Any, y0: Any, t: Tensor) -> Tensor:
    return t


def requiring_gradient(value: float) -> Tensor:
    return torch.tensor(value, requires_grad=True)


A, V = AssertionError, ValueError
BAD = {
    # the state
    "a list for a state": Bad(solve(y0=[Y]), A, "^y0 must be either a torch.Tensor or a tuple.*got a list", A),
    "a number for a state": Bad(solve(y0=1.0), A, "^y0 must be either a torch.Tensor or a tuple.*got a float", A),
    "an empty tuple": Bad(solve(y0=()), V, "y0 is an empty tuple"),
    "a tuple of numbers": Bad(solve(y0=(1.0, 2.0)), TypeError, r"y0\[0\] is a float; wanted a tensor"),
    "a nested tuple": Bad(solve(y0=(Y, (Y,))), TypeError, r"y0\[1\] is a tuple; wanted a tensor"),
    "an integer state": Bad(solve(y0=torch.ones(3, dtype=torch.int64)), TypeError, "y0 has dtype torch.int64"),
    # times
    "a list of times": Bad(solve(t=[0.0, 1.0]), A, "^t must be a torch.Tensor; got a list", A),
    "integer times": Bad(
        solve(t=torch.tensor([0, 1])), TypeError, "^`t` must be a floating point Tensor but is a torch.LongTensor",
        TypeError,
    ),
    "two-dimensional times": Bad(solve(t=T[None]), A, r"^t must be one dimensional; its shape is \[1, 2\]", A),
    "a 0-d tensor of times": Bad(solve(t=T[0]), A, "^t must be one dimensional", A),
    "times that change direction": Bad(
        solve(t=torch.tensor([0.0, 1.0, 0.5])), A, r"^t must be strictly increasing or decreasing; t\[1\]=1 is", A
    ),
    "repeated times": Bad(
        solve(t=torch.tensor([0.0, 1.0, 1.0])), A, "^t must be strictly increasing or decreasing", A
    ),
    "two equal times": Bad(solve(t=torch.zeros(2)), A, "^t must be strictly increasing or decreasing", A),
    "a NaN time": Bad(
        solve(t=torch.tensor([0.0, NAN])), A, "^t must be strictly increasing or decreasing", A
    ),
    "an infinite time": Bad(solve(t=torch.tensor([0.0, INF])), V, "t holds a time that is not finite"),
    "no times": Bad(solve(t=torch.zeros(0)), V, "t is empty"),
    # tolerances
    "too few tolerances": Bad(
        solve(y0=(Y, Y), rtol=[1e-3]), A, "^If using tupled rtol it must have the same length.*got 1 for 2", A
    ),
    "too many tolerances": Bad(
        solve(y0=(Y, Y), atol=[1e-3] * 3), A, "^If using tupled atol it must have the same length.*got 3 for 2", A
    ),
    "an rtol that requires gradients": Bad(solve(rtol=requiring_gradient(1e-3)), A, "^rtol cannot require gradient", A),
    "an atol that requires gradients": Bad(solve(atol=requiring_gradient(1e-3)), A, "^atol cannot require gradient", A),
    "a part of atol that requires gradients": Bad(
        solve(y0=(Y, Y), atol=(1e-3, requiring_gradient(1e-3))), A, "^atol cannot require gradient", A
    ),
    "tolerances of zero": Bad(solve(rtol=0.0, atol=0.0), A, "^underflow in dt 0.0.*both 0", A),
    "a NaN tolerance": Bad(solve(rtol=NAN), A, "rtol=nan", A),
    "a negative tolerance": Bad(solve(atol=-1e-3), A, "atol=-0.001.*not negative"),
    "tolerances of the wrong shape": Bad(solve(rtol=[1e-3, 1e-4]), V, r"does not broadcast against y0 of shape \[3\]"),
    "a tolerance of the wrong shape in a tuple": Bad(
        solve(y0=(Y, Y), rtol=(1e-3, [1e-3, 1e-4])), V, r"rtol\[1\].*wanted a number or 3 of them"
    ),
    # methods and options
    "an unknown method": Bad(
        solve(method="dopri6"), V, '^Invalid method "dopri6". Must be one of {"dopri8".*Did you mean "dopri', V
    ),
    "a method that is not a name": Bad(solve(method=4), V, '^Invalid method "4"', V),
    "options that are not a dict": Bad(solve(method="rk4", options=[1]), TypeError, "options is a list", TypeError),
    "a step size and a grid constructor": Bad(
        with_options("euler", step_size=0.1, grid_constructor=grid), V,
        "^step_size and grid_constructor are mutually exclusive", V,
    ),
    "a grid that begins late": Bad(
        with_options("euler", grid_constructor=lambda f, y, t: t[1:]), A, "^grid_constructor.*returned", A
    ),
    "a grid that ends early": Bad(
        with_options("rk4", grid_constructor=lambda f, y, t: t * 0.5), A, "^grid_constructor.*returned", A
    ),
    "an unknown interpolation": Bad(
        with_options("euler", interp="quintic"), V, "^Unknown interpolation method quintic", V
    ),
    "a step size of zero": Bad(with_options("euler", step_size=0.0), V, "step_size=0.0"),
    "a negative step size": Bad(with_options("euler", step_size=-0.1), V, "step_size=-0.1"),
    "a first step of zero": Bad(with_options(first_step=0.0), A, "^underflow in dt 0.0: first_step", A),
    "a negative first step": Bad(with_options(first_step=-1.0), A, "^underflow in dt -1.0: first_step", A),
    "a largest step of zero": Bad(with_options(max_step=0.0), A, "^underflow in dt 0.0: max_step", A),
    "a negative largest step": Bad(with_options(max_step=-1.0), A, "^underflow in dt -1.0: max_step", A),
    "no steps allowed": Bad(with_options(max_num_steps=0), A, r"^max_num_steps exceeded \(0>=0\)", A),
    "too few steps allowed": Bad(with_options(max_num_steps=2), A, r"^max_num_steps exceeded \(2>=2\)", A),
    "a time in both step_t and jump_t": Bad(
        with_options(step_t=torch.tensor([0.5]), jump_t=torch.tensor([0.5])), V,
        "^`step_t` and `jump_t` must not have any repeated elements between them", V,
    ),
    "a norm that is not callable": Bad(with_options(norm="rms"), TypeError, "norm is a str", TypeError),
    "an order that is too high": Bad(
        with_options("explicit_adams", max_order=13), A, "^max_order must be at most 12; got 13", A
    ),
    "an order that is too high, implicitly": Bad(
        with_options("implicit_adams", max_order=13), A, "^max_order must be at most 12; got 13", A
    ),
    "an unknown SciPy solver": Bad(with_options("scipy_solver", solver="Euler"), V, "solver='Euler'", V),
    # the function
    "a func that is not callable": Bad(solve(func=3), TypeError, "func is a int; wanted a callable", TypeError),
    "a returned tensor of the wrong shape": Bad(
        solve(func=lambda t, y: torch.ones(4)), V, r"func returned shape \[4\]; wanted \[3\]"
    ),
    "a func that returns None": Bad(solve(func=lambda t, y: None), TypeError, "func returned a NoneType", TypeError),
    "a returned tuple with too few parts": Bad(
        solve(func=lambda t, y: (y[0],), y0=(Y, Y)), V, "func returned 1 parts for a tuple y0 of 2"
    ),
    "a complex value for a real state": Bad(
        solve(func=lambda t, y: 1j * y), TypeError, "func returned torch.complex128 for a state of torch.float64"
    ),
    "a func that modifies the state": Bad(
        solve(func=lambda t, y: y.neg_(), y0=Y.clone()), V, "f writes into its arguments"
    ),
    # solves that fail
    "a state that is not finite": Bad(solve(y0=Y * NAN), A, "^underflow in dt.*non-finite values in state `y`", A),
    "a state that is not finite, with a first step": Bad(
        solve(y0=Y * NAN, method="dopri5", options={"first_step": 0.1}), A, "^non-finite values in state `y`", A
    ),
    "a func that is not finite": Bad(
        solve(func=lambda t, y: y * NAN), A, "^underflow in dt.*non-finite values in state `y` or in func", A
    ),
    "a solution that blows up": Bad(solve(func=explode, t=2 * T), A, "^underflow in dt", A),
    # events
    "an event with many times": Bad(
        solve(t=torch.tensor([0.0, 1.0, 2.0]), event_fn=lambda t, y: y[0]), V,
        r"^We require len\(t\) == 2 when in event handling mode, but got len\(t\)=3", V,
    ),
    "an event with fixed steps and no step size": Bad(
        solve(method="euler", event_fn=lambda t, y: y[0] - 0.5), A, "^Event handling for fixed step solvers", A
    ),
    "an event that never happens": Bad(
        solve(event_fn=lambda t, y: y[0] + 1, method="dopri5", options={"max_num_steps": 9}), A,
        r"^max_num_steps exceeded \(9>=9\)", A,
    ),
    "an event that never happens with fixed steps": Bad(
        solve(func=lambda t, y: 0 * y, event_fn=lambda t, y: y[0] + 1, method="euler", options={"step_size": 1.0}),
        RuntimeError, "^Reached maximum number of iterations", RuntimeError,
    ),
    "an event with a SciPy solver": Bad(
        solve(method="scipy_solver", event_fn=lambda t, y: y[0] - 0.5), V, "scipy_solver.*no events"
    ),
    "an event with a start time that is not a tensor": Bad(
        lambda library: library.odeint_event(decay, Y, 0.0, event_fn=lambda t, y: y[0] - 0.5), TypeError,
        "t0 is a float; wanted a floating-point tensor with one element",
    ),
    # the adjoint
    "an adjoint of a plain function": Bad(
        lambda library: library.odeint_adjoint(decay, Y, T), V,
        "^func must be an instance of nn.Module to specify the adjoint parameters.*is a function", V,
    ),
    "a different adjoint method without options": Bad(
        lambda library: library.odeint_adjoint(
            Field(False), state(False), T, method="rk4", options={"step_size": 0.1}, adjoint_method="dopri5"
        ), V, "^If `adjoint_method != method` then we cannot infer `adjoint_options`", V,
    ),
    "an unknown adjoint method": Bad(
        lambda library: library.odeint_adjoint(Field(False), state(False), T, adjoint_method="rk5"), V,
        '^Invalid method "rk5"',
    ),
    "adjoint parameters that are not tensors": Bad(
        lambda library: library.odeint_adjoint(decay, Y, T, adjoint_params=(1.0,)), TypeError,
        r"adjoint_params\[0\] is a float",
    ),
    "an unknown adjoint norm": Bad(
        lambda library: library.odeint_adjoint(Field(False), state(False), T, adjoint_options={"norm": "semi"}),
        TypeError, r"adjoint_options\['norm'\]='semi'; wanted 'seminorm'",
    ),
    "parameters of a function": Bad(
        lambda library: (our_impl if library is ours else theirs._impl).adjoint.find_parameters(decay), A,
        "module is a function", A,
    ),
    # dense solutions
    "a dense solution of a tuple": Bad(
        lambda library: library.odeint_dense(decay, (Y, Y), T[0], T[1]), A, "^y0 must be a torch.Tensor here", A
    ),
    "a dense solution of a SciPy solver": Bad(
        lambda library: library.odeint_dense(decay, Y, 0.0, 1.0, method="scipy_solver"), A, "no dense output", A
    ),
    "positional tolerances": Bad(
        lambda library: library.odeint(decay, Y, T, 1e-3), TypeError, "positional argument", TypeError
    ),
}  # fmt: skip


@pytest.mark.parametrize("bad", BAD.values(), ids=BAD)
def test_invalid_input_raises_the_type_of_error_that_torchdiffeq_raises(bad: Bad) -> None:
    with pytest.raises(bad.error, match=f"(?s){bad.message}") as refused:
        bad.call(ours)
    if bad.theirs is not None:
        assert issubclass(bad.error, bad.theirs)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with pytest.raises(bad.theirs):
                bad.call(theirs)
    assert len(str(refused.value)) > 20


def test_the_table_covers_torchdiffeqs_assertions() -> None:
    assert sum(bad.theirs is AssertionError for bad in BAD.values()) >= 25


def test_the_failed_solution_is_the_cause_of_the_error() -> None:
    with pytest.raises(AssertionError) as failed:
        ours.odeint(explode, Y, torch.linspace(0, 2, 9, dtype=torch.float64))
    assert isinstance(failed.value.__cause__, SolveError)
    ys = failed.value.__cause__.solution.ys
    assert torch.allclose(ys[2], 2 * Y, rtol=1e-6)  # 1 / (1 - t) at 0.5
    assert ys[-1].isnan().all()


@pytest.mark.parametrize("library", [ours, theirs], ids=["ours", "theirs"])
def test_a_failed_backward_solve_raises_the_error_of_a_failed_solve(library: Any) -> None:
    broken = False
    y0 = Y.clone().requires_grad_()
    end = library.odeint_adjoint(lambda t, y: y * NAN if broken else -y, y0, T, adjoint_params=())[-1]
    broken = True
    with pytest.raises(AssertionError, match="non-finite values in state `y`"):
        end.sum().backward()


def test_a_failed_backward_solve_is_the_cause_of_the_error() -> None:
    broken = False
    y0 = Y.clone().requires_grad_()
    end = ours.odeint_adjoint(lambda t, y: y * NAN if broken else -y, y0, T, adjoint_params=())[-1]
    broken = True
    with pytest.raises(AssertionError) as failed:
        end.sum().backward()
    cause = failed.value.__cause__
    assert isinstance(cause, BackwardSolveError)
    assert isinstance(cause, GradientError)
    assert (cause.status, cause.time) == (Status.NONFINITE, 1.0)


@pytest.mark.parametrize("library", [ours, theirs], ids=["ours", "theirs"])
def test_fixed_steps_continue_with_nan_without_an_error(library: Any) -> None:
    ys = library.odeint(lambda t, y: y * torch.where(t > 0.4, NAN, 1.0), Y, torch.linspace(0, 1, 5), method="rk4")
    assert ys[1].isfinite().all()
    assert not ys[-1].isfinite().any()
