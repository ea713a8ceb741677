"""Solver classes that users put into the registry, called by torchdiffeq's protocol.

The protocol is ``Solver(func=, y0=, rtol=, atol=, **options).integrate(t)`` with increasing times and a state of one
tensor: a tuple state is flattened to a vector. ``func(t, y, perturb=)`` has the callbacks as attributes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any

import torch
from torch import Tensor, nn

from neuralode.torchdiffeq.arguments import Arguments, CheckedTolerance, EventFunction, State
from neuralode.torchdiffeq.user_function import CALLBACK_NAMES, Callback, CheckedFunction, find_callbacks, no_callback


class Perturb(Enum):
    """The side of a time at which a function is evaluated."""

    NONE = 0
    PREV = 1
    NEXT = 2


@dataclass(frozen=True)
class FlatArguments:
    """Arguments as torchdiffeq's solver classes take them: increasing times, and a state of one tensor.

    ``shapes`` are the shapes of the parts of a tuple state; None if the state is a tensor.
    """

    func: FlatFunction
    y0: Tensor
    t: Tensor
    rtol: float | Tensor
    atol: float | Tensor
    options: dict[str, Any]
    event_fn: EventFunction | None
    shapes: tuple[torch.Size, ...] | None


class FlatFunction(nn.Module):
    """The user's function of increasing times and one tensor, with its callbacks."""

    def __init__(self, arguments: Arguments, shapes: tuple[torch.Size, ...] | None) -> None:
        super().__init__()
        func = arguments.func
        self.func = CheckedFunction(func, arguments.y0)
        self.shapes, self.direction = shapes, arguments.direction
        callbacks = find_callbacks(arguments)
        for name in CALLBACK_NAMES:
            setattr(self, name, self._unflattened(callbacks.get(name)))
            if hasattr(func, name + "_adjoint"):
                setattr(self, name + "_adjoint", getattr(func, name + "_adjoint"))

    def forward(self, t: Tensor, y: Tensor, *, perturb: Perturb = Perturb.NONE) -> Tensor:
        """Evaluate at t, or at the next floating-point number before or after t."""
        assert isinstance(perturb, Perturb), f"perturb argument must be of type Perturb, not {type(perturb).__name__}."
        t = t.to(y.dtype.to_real())
        if perturb is not Perturb.NONE:
            beyond = t.detach() + (1 if perturb is Perturb.NEXT else -1)
            t = t + (torch.nextafter(t.detach(), beyond) - t.detach())
        slope = flatten(self.func(t * self.direction, unflatten(y, self.shapes)))
        return slope * self.direction if self.direction < 0 else slope

    def _unflattened(self, callback: Callback | None) -> Callable[..., Any]:
        if callback is None:
            return no_callback
        return lambda t, y, dt: callback(t * self.direction, unflatten(y, self.shapes), dt)


def solve_by_external_solver(arguments: Arguments) -> Any:
    """Return the outputs of a user's solver class: the states, or the event time and the states at both ends."""
    flat = flatten_arguments(arguments)
    solver = arguments.solver(func=flat.func, y0=flat.y0, rtol=flat.rtol, atol=flat.atol, **flat.options)
    if flat.event_fn is None:
        return unflatten(solver.integrate(flat.t), flat.shapes, (len(flat.t),))
    event_t, states = solver.integrate_until_event(flat.t[0], flat.event_fn)
    return event_t.to(arguments.t) * arguments.direction, unflatten(states, flat.shapes, (len(states),))


def flatten_arguments(arguments: Arguments) -> FlatArguments:
    """Convert checked arguments to those that torchdiffeq's solver classes take."""
    y0, direction, event_fn = arguments.y0, arguments.direction, arguments.event_fn
    shapes = None if isinstance(y0, Tensor) else tuple(part.shape for part in y0)
    options = with_increasing_times(arguments.options, direction)
    norm = options.get("norm", rms_norm if shapes is None else mixed_norm)
    options["norm"] = norm if shapes is None else lambda y: norm(unflatten(y, shapes))

    def flat_event_fn(t: Tensor, y: Tensor) -> Any:
        assert event_fn is not None
        return event_fn(t * direction, unflatten(y, shapes))

    flat_y0 = flatten(y0)
    return FlatArguments(
        func=FlatFunction(arguments, shapes),
        y0=flat_y0,
        t=(arguments.t * direction).to(flat_y0.device),
        rtol=_flatten_tolerance(arguments.rtol),
        atol=_flatten_tolerance(arguments.atol),
        options=options,
        event_fn=None if event_fn is None else flat_event_fn,
        shapes=shapes,
    )


def flatten(state: State) -> Tensor:
    """Return a tensor unchanged, and a tuple as one vector."""
    return state if isinstance(state, Tensor) else torch.cat([part.reshape(-1) for part in state])


def unflatten(y: Tensor, shapes: Sequence[torch.Size] | None, lead: tuple[int, ...] = ()) -> Any:
    """Undo `flatten` along the last axis; each part keeps the leading axes ``lead``."""
    if shapes is None:
        return y
    parts = y.split([shape.numel() for shape in shapes], dim=-1)
    return tuple(part.reshape((*lead, *shape)) for part, shape in zip(parts, shapes, strict=True))


def with_increasing_times(options: dict[str, Any], direction: float) -> dict[str, Any]:
    """Return a copy of the options in which times have the sign that makes time increase."""
    if direction > 0:
        return dict(options)
    constructor = options.get("grid_constructor")
    negated = {name: -options[name] for name in ("step_t", "jump_t") if isinstance(options.get(name), Tensor)}
    if constructor is not None:
        negated["grid_constructor"] = lambda func, y0, t: -constructor(func, y0, -t)
    return {**options, **negated}


def rms_norm(y: Tensor) -> Tensor:
    """Return the root mean square of a tensor."""
    return y.abs().square().mean().sqrt()


def mixed_norm(parts: Sequence[Tensor]) -> Tensor | float:
    """Return the largest root mean square of some tensors."""
    return max((rms_norm(part) for part in parts), default=0.0)


def _flatten_tolerance(tolerance: CheckedTolerance) -> float | Tensor:
    return flatten(tolerance) if isinstance(tolerance, tuple) else tolerance
