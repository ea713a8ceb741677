"""`odeint`, `odeint_event` and `odeint_dense`: solve, with derivatives of the computed steps."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import replace
from functools import wraps
from typing import Any, ParamSpec, TypeVar, cast

import torch
from torch import Tensor

from neuralode.methods import Method, Tableau
from neuralode.torchdiffeq.arguments import EventFunction, Function, State, Tolerance, check_arguments
from neuralode.torchdiffeq.events import DifferentiableEvent, link_event_time
from neuralode.torchdiffeq.external_solvers import flatten
from neuralode.torchdiffeq.fixed_grid import without_interpolation
from neuralode.torchdiffeq.options import read_options
from neuralode.torchdiffeq.solve import solve, solve_natively
from neuralode.torchdiffeq.solvers import SOLVERS, as_solver

P = ParamSpec("P")
R = TypeVar("R")

COMPILER = "torch._dynamo"  # takes seconds to load, so it is used only if it is already loaded

_excluded: dict[str, Callable[..., Any]] = {}


def exclude_from_compile(function: Callable[P, R]) -> Callable[P, R]:
    """Exclude a function from `torch.compile`: the number of steps of a solve depends on values.

    Examples
    --------
    >>> @exclude_from_compile
    ... def double(x: float) -> float:
    ...     return 2 * x
    >>> double(2.0)
    4.0
    """
    name = f"{function.__module__}.{function.__qualname__}"

    @wraps(function)
    def call(*args: P.args, **kwargs: P.kwargs) -> R:
        if COMPILER not in sys.modules:
            return function(*args, **kwargs)
        if name not in _excluded:
            _excluded[name] = cast(Any, torch.compiler.disable)(function)
        return _excluded[name](*args, **kwargs)

    return call


@exclude_from_compile
def odeint(
    func: Function,
    y0: State,
    t: Tensor,
    *,
    rtol: Tolerance | None = 1e-7,
    atol: Tolerance | None = 1e-9,
    method: str | Method | Tableau | None = None,
    options: dict[str, Any] | None = None,
    event_fn: EventFunction | None = None,
) -> Any:
    """Solve dy/dt = func(t, y) from y(t[0]) = y0, with the signature of torchdiffeq's ``odeint``.

    Gradients are those of the computed steps. They are replayed from the state before each step, which needs much less
    memory than keeping all activations. If func draws random numbers, all activations are kept.

    Parameters
    ----------
    func : callable
        ``func(t, y)`` returns dy/dt; t is 0-d in the real dtype of the state.
    y0 : Tensor or tuple of Tensor
        The state at ``t[0]``, floating-point or complex. The parts of a tuple are promoted to the widest dtype among
        them.
    t : Tensor[T]
        Output times, strictly increasing or decreasing.
    rtol : float, Tensor or sequence, default=1e-7
        Relative tolerance; for a tuple state one for each part, or one for all.
    atol : float, Tensor or sequence, default=1e-9
        Absolute tolerance, likewise.
    method : str, Method or Tableau, default=None
        A name in `SOLVERS`, or a method object of `neuralode`; None stands for "dopri5".
    options : dict, default=None
        Options of the method. Options that it does not support cause a warning.
    event_fn : callable, default=None
        ``event_fn(t, y)`` returns a number or a tensor of numbers. The solve ends where one of them becomes zero. ``t``
        then has two times; the second one only gives the direction of time.

    Returns
    -------
    Tensor or tuple of Tensor
        The states, each with a leading axis of length T. With ``event_fn``: the time of the event, and the states at
        ``t[0]`` and at the event.

    Raises
    ------
    AssertionError, ValueError, TypeError
        For invalid arguments and for solves that fail, with the types that torchdiffeq raises.

    Examples
    --------
    >>> import torch
    >>> from neuralode.torchdiffeq import odeint
    >>> y0 = torch.ones(3, dtype=torch.float64, requires_grad=True)
    >>> ys = odeint(lambda t, y: -y, y0, torch.tensor([0.0, 1.0]))
    >>> ys[-1].sum().backward()
    >>> ys.shape, round(y0.grad[0].item(), 6)
    (torch.Size([2, 3]), 0.367879)
    """
    return solve(
        check_arguments(
            func,
            y0,
            t,
            rtol=rtol,
            atol=atol,
            method=as_solver(method),
            options=options,
            event_fn=event_fn,
            solvers=SOLVERS,
        )
    )


@exclude_from_compile
def odeint_event(
    func: Function,
    y0: State,
    t0: Tensor,
    *,
    event_fn: EventFunction,
    reverse_time: bool = False,
    odeint_interface: Callable[..., Any] = odeint,
    **kwargs: Any,
) -> tuple[Tensor, Any]:
    """Solve until an event, with gradients through the time of the event.

    Parameters
    ----------
    func : callable
        ``func(t, y)``, as in `odeint`.
    y0 : Tensor or tuple of Tensor
        The state at ``t0``.
    t0 : Tensor
        The start time, 0-d or with one element.
    event_fn : callable
        ``event_fn(t, y)``, as in `odeint`; the tensors that it uses receive gradients too.
    reverse_time : bool, default=False
        Solve backwards in time.
    odeint_interface : callable, default=odeint
        `odeint`, `odeint_adjoint`, or a function that calls one of them.
    **kwargs
        Further keyword arguments of ``odeint_interface``.

    Returns
    -------
    Tensor
        The time of the event.
    Tensor or tuple of Tensor
        The states at ``t0`` and at the event.

    Raises
    ------
    TypeError
        If ``t0`` is not a floating-point tensor with one element.

    Examples
    --------
    >>> import torch
    >>> from neuralode.torchdiffeq import odeint_event
    >>> rate = torch.tensor(2.0, dtype=torch.float64, requires_grad=True)
    >>> y0 = torch.ones(1, dtype=torch.float64)
    >>> t, ys = odeint_event(lambda t, y: -rate * y, y0, torch.tensor(0.0), event_fn=lambda t, y: y - 0.5)
    >>> t.backward()
    >>> round(t.item(), 5), round(rate.grad.item(), 5)  # log(2) / rate, -log(2) / rate²
    (0.34657, -0.17329)
    """
    if not isinstance(t0, Tensor) or t0.numel() != 1 or not t0.is_floating_point():
        given = f"{t0.dtype}, shape {list(t0.shape)}" if isinstance(t0, Tensor) else f"a {type(t0).__name__}"
        raise TypeError(f"t0 is {given}; wanted a floating-point tensor with one element.")
    start = t0.reshape(1)
    t = torch.cat((start, start.detach() + (-1 if reverse_time else 1)))
    event_t, states = odeint_interface(func, y0, t, event_fn=DifferentiableEvent(event_fn), **kwargs)
    if not event_t.requires_grad and flatten(states).requires_grad:
        return link_event_time(func, y0, t[0], event_fn=event_fn, event_t=event_t, states=states)
    return event_t, states


@exclude_from_compile
def odeint_dense(
    func: Function,
    y0: Tensor,
    t0: float | Tensor,
    t1: float | Tensor,
    *,
    rtol: Tolerance | None = 1e-7,
    atol: Tolerance | None = 1e-9,
    method: str | Method | Tableau | None = None,
    options: dict[str, Any] | None = None,
) -> Callable[[Any], Tensor]:
    """Solve from t0 to t1 and return the solution as a function of time: the method's own dense output.

    Parameters
    ----------
    func : callable
        ``func(t, y)``, as in `odeint`.
    y0 : Tensor
        The state at ``t0``.
    t0, t1 : float or Tensor
        The start and the end of the solve.
    rtol : float, Tensor or sequence, default=1e-7
        Relative tolerance.
    atol : float, Tensor or sequence, default=1e-9
        Absolute tolerance.
    method : str, Method or Tableau, default=None
        A name in `SOLVERS`, except "scipy_solver", or a method object of `neuralode`; None stands for "dopri5".
    options : dict, default=None
        Options of the method.

    Returns
    -------
    callable
        ``solution(t)`` for t between ``t0`` and ``t1``, 0-d or of any length; differentiable.

    Raises
    ------
    AssertionError, ValueError, TypeError
        For invalid arguments and for solves that fail, as `odeint`.

    Examples
    --------
    >>> import torch
    >>> from neuralode.torchdiffeq import odeint_dense
    >>> solution = odeint_dense(lambda t, y: -y, torch.ones(3, dtype=torch.float64), 0.0, 1.0)
    >>> round(solution(0.5)[0].item(), 6)
    0.606531
    """
    assert isinstance(y0, Tensor), f"y0 must be a torch.Tensor here; got a {type(y0).__name__}."
    ends = [torch.as_tensor(t, dtype=None if isinstance(t, Tensor) else torch.float64).reshape(()) for t in (t0, t1)]
    arguments = check_arguments(
        func,
        y0,
        torch.stack([end.to(ends[0]) for end in ends]),
        rtol=rtol,
        atol=atol,
        method=as_solver(method),
        options=options,
        event_fn=None,
        solvers=SOLVERS,
    )
    assert arguments.native, f'method "{arguments.method}" is an external solver, which has no dense output here.'
    solver_options = read_options(arguments)
    assert not solver_options.method.one_call, f'method "{arguments.method}" has no dense output.'
    # the method's own dense output, not the interpolation of fixed-step outputs
    own_output = replace(solver_options, method=without_interpolation(solver_options.method))
    return solve_natively(arguments, own_output, dense=True)
