"""What is given to `odeint` and its sisters, checked once: the same types of error as torchdiffeq raises, and why."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from functools import reduce
from typing import Any, TypeAlias

import torch
from torch import Tensor

Given: TypeAlias = Tensor | tuple[Tensor, ...]  # a state as the user has it

RTOL, ATOL = 1e-7, 1e-9
METHOD = "dopri5"


@dataclass(frozen=True)
class Task:
    """A checked call.

    ``y0`` is a tensor, or a tuple of tensors of one dtype. ``rtol`` and ``atol`` are numbers, tensors that broadcast
    against y0, or tuples of tensors shaped as the parts of y0. ``options`` is a copy.
    """

    func: Callable[..., Any]
    y0: Given
    t: Tensor
    rtol: Any
    atol: Any
    method: str
    solver: Any
    options: dict[str, Any]
    event_fn: Callable[..., Any] | None = None

    @property
    def native(self) -> bool:
        """Whether the solver is one of ours: a registry that may be written into may hold others."""
        return getattr(self.solver, "native", False)

    @property
    def direction(self) -> float:
        """1 where time increases, −1 where it decreases."""
        return -1.0 if len(self.t) > 1 and bool(self.t[0] > self.t[1]) else 1.0


def check(
    func: Any, y0: Any, t: Any, rtol: Any, atol: Any, method: Any, options: Any, event_fn: Any, solvers: Mapping
) -> Task:
    """Check the arguments of a solve; ``solvers`` are the methods there are."""
    if not callable(func):
        raise TypeError(f"func is a {type(func).__name__}; wanted a callable func(t, y).")
    check_times(t)
    if event_fn is not None and len(t) != 2:
        raise ValueError(
            f"We require len(t) == 2 when in event handling mode, but got len(t)={len(t)}: t[0] is where the solve "
            "starts, and t[1] says which way it goes."
        )
    y0 = check_state(y0)
    method = METHOD if method is None else method
    options = check_options(options)
    solver = find_solver(method, solvers)
    adaptive = getattr(solver, "adaptive", True)
    rtol = check_tolerance("rtol", rtol, y0, adaptive, RTOL)
    atol = check_tolerance("atol", atol, y0, adaptive, ATOL)
    if adaptive and _is_zero(rtol) and _is_zero(atol):
        raise AssertionError(
            "underflow in dt 0.0: rtol and atol are both 0, which no step satisfies; wanted at least one above 0."
        )
    return Task(func, y0, t, rtol, atol, method, solver, options, event_fn)


def check_state(y0: Any) -> Given:
    """A tensor, or a tuple of tensors in the widest dtype among them."""
    if isinstance(y0, Tensor):
        parts: tuple[Any, ...] = (y0,)
    elif isinstance(y0, tuple):
        parts = tuple(y0)
    else:
        raise AssertionError(f"y0 must be either a torch.Tensor or a tuple of them; got a {type(y0).__name__}.")
    for place, part in enumerate(parts):
        where = "y0" if isinstance(y0, Tensor) else f"y0[{place}]"
        if not isinstance(part, Tensor):
            raise TypeError(f"{where} is a {type(part).__name__}; wanted a tensor.")
    if not parts:
        raise ValueError("y0 is an empty tuple; wanted at least one tensor.")
    dtype = reduce(torch.promote_types, (part.dtype for part in parts))
    if not (dtype.is_floating_point or dtype.is_complex):
        raise TypeError(f"y0 has dtype {dtype}; wanted a floating or complex one, as y0.float() gives.")
    return y0 if isinstance(y0, Tensor) else tuple(part.to(dtype) for part in parts)


def check_times(t: Any) -> None:
    """A floating tensor of at least one time, strictly increasing or decreasing."""
    assert isinstance(t, Tensor), f"t must be a torch.Tensor; got a {type(t).__name__}."
    if not t.is_floating_point():
        raise TypeError(f"`t` must be a floating point Tensor but is a {t.type()}; t.double() makes one.")
    assert t.dim() == 1, f"t must be one dimensional; its shape is {list(t.shape)}."
    if not len(t):
        raise ValueError("t is empty; wanted at least one time.")
    times = t.detach()
    ahead, behind = times[1:] > times[:-1], times[1:] < times[:-1]
    if not bool(ahead.all() or behind.all()):
        wrong = int((~(ahead if bool(ahead[0]) else behind)).nonzero()[0])
        raise AssertionError(
            f"t must be strictly increasing or decreasing; t[{wrong}]={times[wrong].item():.9g} is followed by "
            f"t[{wrong + 1}]={times[wrong + 1].item():.9g}."
        )
    if not bool(times.isfinite().all()):
        raise ValueError(f"t holds a time that is not finite: {times.tolist()}.")


def check_options(options: Any) -> dict[str, Any]:
    """A copy, so that the caller's own is never written into."""
    if options is None:
        return {}
    if not isinstance(options, Mapping):
        raise TypeError(f"options is a {type(options).__name__}; wanted a dict such as {{'step_size': 0.1}}.")
    return dict(options)


def find_solver(method: Any, solvers: Mapping) -> Any:
    """What the registry holds under a name."""
    if isinstance(method, str) and method in solvers:
        return solvers[method]
    known = ", ".join(f'"{name}"' for name in solvers)
    near = get_close_matches(method, list(solvers), n=1) if isinstance(method, str) else []
    hint = f' Did you mean "{near[0]}"?' if near else ""
    raise ValueError(f'Invalid method "{method}". Must be one of {{{known}}}.{hint}')


def check_tolerance(name: str, tolerance: Any, y0: Given, adaptive: bool, default: float) -> Any:
    """A number, a tensor that broadcasts against y0, or one tensor for each part of y0."""
    if tolerance is None and not adaptive:
        return default  # steps are stated
    values = _listed(tolerance)
    for value in [tolerance, *(values or ())]:
        if isinstance(value, Tensor):
            assert not value.requires_grad, f"{name} cannot require gradient; {name}.detach() does not."
    if values is None:
        found: Any = _number(name, tolerance)
        smallest = largest = found
    elif isinstance(y0, Tensor):
        found = _tensor(name, tolerance, y0)
        smallest, largest = (float(x) for x in found.aminmax()) if found.numel() else (0.0, 0.0)
    else:
        assert len(values) == len(y0), (
            f"If using tupled {name} it must have the same length as the tuple y0: got {len(values)} for {len(y0)} "
            "parts."
        )
        found = tuple(_part(f"{name}[{n}]", *pair) for n, pair in enumerate(zip(values, y0, strict=True)))
        extremes = [float(x) for part in found if part.numel() for x in part.aminmax()] or [0.0]
        smallest, largest = min(extremes), max(extremes)
    sound = 0 <= smallest <= largest < math.inf  # false of NaN
    assert sound, f"{name}={tolerance!r}; wanted finite tolerances that are not negative."
    return found


def _listed(tolerance: Any) -> list | None:
    """Its entries, if it has some."""
    try:
        return list(tolerance)
    except TypeError:  # a number, or a tensor without axes
        return None


def _number(name: str, tolerance: Any) -> float:
    try:
        return float(tolerance)
    except (TypeError, ValueError) as error:
        raise TypeError(f"{name} is a {type(tolerance).__name__}; wanted a number, a tensor or a list.") from error


def _tensor(name: str, tolerance: Any, like: Tensor) -> Tensor:
    if isinstance(tolerance, Sequence) and any(isinstance(x, Tensor) for x in tolerance):
        tolerance = torch.stack([torch.as_tensor(x, dtype=torch.float64, device=like.device) for x in tolerance])
    try:
        found = torch.as_tensor(tolerance, dtype=torch.float64, device=like.device)
        found.expand(like.shape)
    except (TypeError, ValueError, RuntimeError) as error:
        raise ValueError(
            f"{name}={tolerance!r} does not broadcast against y0 of shape {list(like.shape)}; wanted a number, or "
            "tolerances whose shape does."
        ) from error
    return found


def _part(name: str, tolerance: Any, like: Tensor) -> Tensor:
    """Of one part of a tuple: a number, or all numbers of the part in a row."""
    try:
        found = torch.as_tensor(tolerance, dtype=torch.float64, device=like.device)
        return found.expand(like.numel()).reshape(like.shape) if found.dim() < 2 else found.expand(like.shape)
    except (TypeError, ValueError, RuntimeError) as error:
        raise ValueError(
            f"{name}={tolerance!r} does not fit its part of y0, of shape {list(like.shape)}; wanted a number or "
            f"{like.numel()} of them."
        ) from error


def _is_zero(tolerance: Any) -> bool:
    parts = tolerance if isinstance(tolerance, tuple) else (tolerance,)
    return all(not bool(torch.as_tensor(part).any()) for part in parts)
