"""Check the arguments of a call, with the types of error that torchdiffeq raises.

`Arguments` is the checked call; every other module of this package works on it.
"""

from __future__ import annotations

import math
import sys
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from functools import reduce
from typing import Any, TypeAlias

import torch
from torch import Tensor

State: TypeAlias = Tensor | tuple[Tensor, ...]
Function: TypeAlias = Callable[[Tensor, Any], Any]  # func(t, y); y has the structure of y0
EventFunction: TypeAlias = Callable[[Tensor, Any], Any]  # event_fn(t, y); its value is a number or a tensor of numbers
Tolerance: TypeAlias = float | Tensor | Sequence[float | Tensor]
CheckedTolerance: TypeAlias = float | State

RTOL, ATOL = 1e-7, 1e-9
METHOD = "dopri5"


@dataclass(frozen=True)
class Arguments:
    """The checked arguments of one call.

    Parameters
    ----------
    func : callable
        The user's ``func(t, y)``.
    y0 : Tensor or tuple of Tensor
        The initial state; the parts of a tuple share one dtype.
    t : Tensor[T]
        The output times, strictly increasing or decreasing.
    rtol, atol : float, Tensor or tuple of Tensor
        A number, a tensor that broadcasts against y0, or one tensor of the shape of each part of y0.
    method : str or Solver
        The name of the solver, or the solver itself; prints as the name.
    solver : Solver or type
        The entry of the registry: one of ours, or a solver class of the user.
    options : dict
        A copy of the user's options.
    event_fn : callable, optional
        The user's ``event_fn(t, y)``.
    """

    func: Function
    y0: State
    t: Tensor
    rtol: CheckedTolerance
    atol: CheckedTolerance
    method: Any
    solver: Any
    options: dict[str, Any]
    event_fn: EventFunction | None = None

    @property
    def native(self) -> bool:
        """Whether the solver is one of ours; the registry may also hold solver classes of the user."""
        return getattr(self.solver, "native", False)

    @property
    def direction(self) -> float:
        """1 if time increases, −1 if it decreases."""
        return -1.0 if len(self.t) > 1 and bool(self.t[0] > self.t[1]) else 1.0


def check_arguments(
    func: Function,
    y0: State,
    t: Tensor,
    *,
    rtol: Tolerance | None,
    atol: Tolerance | None,
    method: Any,
    options: Mapping[str, Any] | None,
    event_fn: EventFunction | None,
    solvers: Mapping[str, Any],
) -> Arguments:
    """Check the arguments of a solve.

    ``method`` is a `Solver`, None for the default, or a name that is looked up in the registry ``solvers``.
    """
    if not callable(func):
        raise TypeError(f"func is a {type(func).__name__}; wanted a callable func(t, y).")
    check_times(t)
    if event_fn is not None and len(t) != 2:
        raise ValueError(
            f"We require len(t) == 2 when in event handling mode, but got len(t)={len(t)}: t[0] is the start time, and "
            "t[1] gives the direction of time."
        )
    y0 = check_state(y0)
    method = METHOD if method is None else method
    options = check_options(options)
    solver = find_solver(method, solvers)
    adaptive = getattr(solver, "adaptive", True)
    rtol = check_tolerance("rtol", rtol, y0, default=None if adaptive else RTOL)
    atol = check_tolerance("atol", atol, y0, default=None if adaptive else ATOL)
    if adaptive and _is_zero(rtol) and _is_zero(atol):
        raise AssertionError(
            "underflow in dt 0.0: rtol and atol are both 0, which no step satisfies; wanted at least one above 0."
        )
    return Arguments(
        func=func,
        y0=y0,
        t=t,
        rtol=rtol,
        atol=atol,
        method=method,
        solver=solver,
        options=options,
        event_fn=event_fn,
    )


def check_state(y0: State) -> State:
    """Return the state, the parts of a tuple promoted to the widest dtype among them."""
    if isinstance(y0, Tensor):
        parts: tuple[Any, ...] = (y0,)
    elif isinstance(y0, tuple):
        parts = tuple(y0)
    else:
        raise AssertionError(f"y0 must be either a torch.Tensor or a tuple of them; got a {type(y0).__name__}.")
    for index, part in enumerate(parts):
        where = "y0" if isinstance(y0, Tensor) else f"y0[{index}]"
        if not isinstance(part, Tensor):
            raise TypeError(f"{where} is a {type(part).__name__}; wanted a tensor.")
    if not parts:
        raise ValueError("y0 is an empty tuple; wanted at least one tensor.")
    dtype = reduce(torch.promote_types, (part.dtype for part in parts))
    if not (dtype.is_floating_point or dtype.is_complex):
        raise TypeError(f"y0 has dtype {dtype}; wanted a floating-point or complex dtype, for example y0.float().")
    return y0 if isinstance(y0, Tensor) else tuple(part.to(dtype) for part in parts)


def check_times(t: Tensor) -> None:
    """Require a floating-point tensor of at least one time, strictly increasing or decreasing."""
    assert isinstance(t, Tensor), f"t must be a torch.Tensor; got a {type(t).__name__}."
    if not t.is_floating_point():
        raise TypeError(f"`t` must be a floating point Tensor but is a {t.type()}; use t.double().")
    assert t.dim() == 1, f"t must be one dimensional; its shape is {list(t.shape)}."
    if not len(t):
        raise ValueError("t is empty; wanted at least one time.")
    times = t.detach()
    increases, decreases = times[1:] > times[:-1], times[1:] < times[:-1]
    if not bool(increases.all() or decreases.all()):
        index = int((~(increases if bool(increases[0]) else decreases)).nonzero()[0])
        raise AssertionError(
            f"t must be strictly increasing or decreasing; t[{index}]={times[index].item():.9g} is followed by "
            f"t[{index + 1}]={times[index + 1].item():.9g}."
        )
    if not bool(times.isfinite().all()):
        raise ValueError(f"t holds a time that is not finite: {times.tolist()}.")


def check_options(options: Mapping[str, Any] | None) -> dict[str, Any]:
    """Return a copy of the options, so that the caller's dict is never modified."""
    if options is None:
        return {}
    if not isinstance(options, Mapping):
        raise TypeError(f"options is a {type(options).__name__}; wanted a dict such as {{'step_size': 0.1}}.")
    return dict(options)


def find_solver(method: Any, solvers: Mapping[str, Any]) -> Any:
    """Return the registered solver or the given one, or raise an error that lists the registered names."""
    if isinstance(method, str) and method in solvers:
        return solvers[method]
    if getattr(method, "native", False):
        return method
    known = ", ".join(f'"{name}"' for name in solvers)
    near = get_close_matches(method, list(solvers), n=1) if isinstance(method, str) else []
    hint = f' Did you mean "{near[0]}"?' if near else ""
    raise ValueError(f'Invalid method "{method}". Must be one of {{{known}}}.{hint}')


def check_tolerance(name: str, tolerance: Tolerance | None, y0: State, *, default: float | None) -> CheckedTolerance:
    """Return a number, a tensor that broadcasts against y0, or one tensor for each part of y0.

    ``default`` replaces a tolerance of None; fixed-step methods have one, because they need no tolerance.
    """
    if tolerance is None and default is not None:
        return default
    entries = _entries(tolerance)
    for value in [tolerance, *(entries or ())]:
        if isinstance(value, Tensor):
            assert not value.requires_grad, f"{name} cannot require gradient; pass {name}.detach()."
    if entries is None:
        checked: CheckedTolerance = _number(name, tolerance)
        smallest = largest = checked
    elif isinstance(y0, Tensor):
        checked = _tensor(name, tolerance, y0)
        smallest, largest = (float(x) for x in checked.aminmax()) if checked.numel() else (0.0, 0.0)
    else:
        assert len(entries) == len(y0), (
            f"If using tupled {name} it must have the same length as the tuple y0: got {len(entries)} for {len(y0)} "
            "parts."
        )
        checked = tuple(_part(f"{name}[{n}]", *pair) for n, pair in enumerate(zip(entries, y0, strict=True)))
        extremes = [float(x) for part in checked if part.numel() for x in part.aminmax()] or [0.0]
        smallest, largest = min(extremes), max(extremes)
    valid = 0 <= smallest <= largest < math.inf  # False for NaN
    assert valid, f"{name}={tolerance!r}; wanted finite tolerances that are not negative."
    return checked


def tightest_tolerance(name: str, tolerance: Tolerance | None) -> float | None:
    """Return the smallest of some tolerances: the backward solve uses one number for all parts of its state."""
    if tolerance is None:
        return None
    parts = tolerance if isinstance(tolerance, (tuple, list)) else [tolerance]
    values = torch.cat([torch.as_tensor(part, dtype=torch.float64).reshape(-1) for part in parts])
    valid = (values >= 0) & values.isfinite()
    assert bool(valid.all()), f"{name}={tolerance!r}; wanted finite tolerances that are not negative."
    return float(values.min())


def check_parameters(parameters: Iterable[Tensor], norm: str | Callable[..., Any] | None) -> tuple[Tensor, ...]:
    """Return the parameters that require gradients, each once."""
    parameters = tuple(parameters)
    for index, x in enumerate(parameters):
        if not isinstance(x, Tensor):
            raise TypeError(f"adjoint_params[{index}] is a {type(x).__name__}; wanted tensors.")
    if callable(norm) and any(not x.requires_grad for x in parameters):
        warn_caller(
            "An adjoint parameter was passed without requiring gradient: the adjoint equation leaves it out, and the "
            "adjoint norm does not receive it."
        )
    return tuple({id(x): x for x in parameters if x.requires_grad}.values())


def warn_caller(message: str) -> None:
    """Warn, with the first line outside of this package (and of torch) as the location of the warning."""
    frame, stacklevel = sys._getframe(), 1
    while frame.f_back is not None and frame.f_globals.get("__name__", "").partition(".")[0] in ("neuralode", "torch"):
        frame, stacklevel = frame.f_back, stacklevel + 1
    warnings.warn(message, stacklevel=stacklevel)


def _entries(tolerance: Tolerance | None) -> list[float | Tensor] | None:
    """Return the entries of a tolerance; None for a number or a tensor without axes."""
    try:
        return list(tolerance)  # type: ignore[arg-type]
    except TypeError:
        return None


def _number(name: str, tolerance: Any) -> float:
    try:
        return float(tolerance)
    except (TypeError, ValueError) as error:
        raise TypeError(f"{name} is a {type(tolerance).__name__}; wanted a number, a tensor or a list.") from error


def _tensor(name: str, tolerance: Any, y0: Tensor) -> Tensor:
    """Convert the tolerance of a tensor state and check that it broadcasts."""
    if isinstance(tolerance, Sequence) and any(isinstance(x, Tensor) for x in tolerance):
        tolerance = torch.stack([torch.as_tensor(x, dtype=torch.float64, device=y0.device) for x in tolerance])
    try:
        converted = torch.as_tensor(tolerance, dtype=torch.float64, device=y0.device)
        converted.expand(y0.shape)
    except (TypeError, ValueError, RuntimeError) as error:
        raise ValueError(
            f"{name}={tolerance!r} does not broadcast against y0 of shape {list(y0.shape)}; wanted a number, or "
            "tolerances whose shape does."
        ) from error
    return converted


def _part(name: str, tolerance: float | Tensor, part: Tensor) -> Tensor:
    """Convert the tolerance of one part of a tuple: a number, or a flat list with one number for each element."""
    try:
        converted = torch.as_tensor(tolerance, dtype=torch.float64, device=part.device)
        if converted.dim() < 2:
            return converted.expand(part.numel()).reshape(part.shape)
        return converted.expand(part.shape)
    except (TypeError, ValueError, RuntimeError) as error:
        raise ValueError(
            f"{name}={tolerance!r} does not fit its part of y0, of shape {list(part.shape)}; wanted a number or "
            f"{part.numel()} of them."
        ) from error


def _is_zero(tolerance: CheckedTolerance) -> bool:
    parts = tolerance if isinstance(tolerance, tuple) else (tolerance,)
    return all(not bool(torch.as_tensor(part).any()) for part in parts)
