"""Solvers that someone else put into the registry: called by torchdiffeq's protocol.

That is ``Solver(func=, y0=, rtol=, atol=, **options).integrate(t)`` with increasing times, on one tensor; the state of
a tuple is laid out in a row. ``func(t, y, perturb=)`` has the callbacks as attributes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any

import torch
from torch import Tensor, nn

from neuralode.torchdiffeq.adapt import Adapted
from neuralode.torchdiffeq.callbacks import NAMES, find_callbacks, nothing
from neuralode.torchdiffeq.inputs import Task


class Perturb(Enum):
    """At which side of a time a function is asked."""

    NONE = 0
    PREV = 1
    NEXT = 2


@dataclass(frozen=True)
class Flat:
    """A task as torchdiffeq's solver classes want it; ``shapes`` are those of a tuple's parts."""

    func: FlatFunc
    y0: Tensor
    t: Tensor
    rtol: Any
    atol: Any
    options: dict[str, Any]
    event_fn: Callable[..., Any] | None
    shapes: tuple[torch.Size, ...] | None


class FlatFunc(nn.Module):
    """The user's function of increasing times and one tensor, with its callbacks."""

    def __init__(self, task: Task, shapes: tuple[torch.Size, ...] | None) -> None:
        super().__init__()
        self.func, self.shapes, self.direction = Adapted(task.func, task.y0), shapes, task.direction
        found = find_callbacks(task.func, task.solver, task.method)
        for name in NAMES:
            setattr(self, name, self._told(found.get(name)))
            if hasattr(task.func, name + "_adjoint"):
                setattr(self, name + "_adjoint", getattr(task.func, name + "_adjoint"))

    def forward(self, t: Tensor, y: Tensor, *, perturb: Perturb = Perturb.NONE) -> Tensor:
        """Evaluate; ``perturb`` asks just before or after t."""
        assert isinstance(perturb, Perturb), f"perturb argument must be of type Perturb, not {type(perturb).__name__}."
        t = t.to(y.dtype.to_real())
        if perturb is not Perturb.NONE:
            beyond = t.detach() + (1 if perturb is Perturb.NEXT else -1)
            t = t + (torch.nextafter(t.detach(), beyond) - t.detach())
        answer = self.func(t * self.direction, unflatten(y, self.shapes))
        return flatten(answer) * self.direction if self.direction < 0 else flatten(answer)

    def _told(self, call: Callable[..., Any] | None) -> Callable[..., Any]:
        if call is None:
            return nothing
        return lambda t, y, dt: call(t * self.direction, unflatten(y, self.shapes), dt)


def flatten(state: Any) -> Tensor:
    """A tensor as it is, a tuple in a row."""
    return state if isinstance(state, Tensor) else torch.cat([part.reshape(-1) for part in state])


def unflatten(y: Tensor, shapes: Sequence[torch.Size] | None, lead: tuple[int, ...] = ()) -> Any:
    """Back again; ``lead`` are leading axes."""
    if shapes is None:
        return y
    parts = y.split([shape.numel() for shape in shapes], dim=-1)
    return tuple(part.reshape((*lead, *shape)) for part, shape in zip(parts, shapes, strict=True))


def flat(task: Task) -> Flat:
    """A task as torchdiffeq's solver classes want it."""
    shapes = None if isinstance(task.y0, Tensor) else tuple(part.shape for part in task.y0)
    func, direction = FlatFunc(task, shapes), task.direction
    options = ascending(task.options, direction)
    norm = options.get("norm", rms if shapes is None else mixed)
    options["norm"] = norm if shapes is None else lambda y: norm(unflatten(y, shapes))
    event_fn = task.event_fn

    def event(t: Tensor, y: Tensor) -> Any:
        assert event_fn is not None
        return event_fn(t * direction, unflatten(y, shapes))

    y0 = flatten(task.y0)
    t = (task.t * direction).to(y0.device)
    rtol, atol = (flatten(x) if isinstance(x, tuple) else x for x in (task.rtol, task.atol))
    return Flat(func, y0, t, rtol, atol, options, None if event_fn is None else event, shapes)


def ascending(options: dict[str, Any], direction: float) -> dict[str, Any]:
    """Options that speak of times, of times that increase."""
    if direction > 0:
        return dict(options)
    constructor = options.get("grid_constructor")
    flipped = {name: -options[name] for name in ("step_t", "jump_t") if isinstance(options.get(name), Tensor)}
    if constructor is not None:
        flipped["grid_constructor"] = lambda func, y0, t: -constructor(func, y0, -t)
    return {**options, **flipped}


def solve(task: Task) -> Any:
    """What a foreign solver gives."""
    it = flat(task)
    solver = task.solver(func=it.func, y0=it.y0, rtol=it.rtol, atol=it.atol, **it.options)
    if it.event_fn is None:
        return unflatten(solver.integrate(it.t), it.shapes, (len(it.t),))
    event_t, solution = solver.integrate_until_event(it.t[0], it.event_fn)
    return event_t.to(task.t) * task.direction, unflatten(solution, it.shapes, (len(solution),))


def rms(y: Tensor) -> Tensor:
    """Root mean square."""
    return y.abs().square().mean().sqrt()


def mixed(parts: Sequence[Tensor]) -> Tensor | float:
    """The largest root mean square of some tensors."""
    return max((rms(part) for part in parts), default=0.0)
