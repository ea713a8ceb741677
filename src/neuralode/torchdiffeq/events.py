"""Event functions: combine their values into one, and differentiate the time of an event."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.utils._pytree import tree_map

from neuralode.torchdiffeq.arguments import EventFunction, Function, State
from neuralode.torchdiffeq.external_solvers import flatten, unflatten


class DifferentiableEvent:
    """An event function whose event time is differentiable; `odeint` treats the time of other events as a constant."""

    def __init__(self, event_fn: EventFunction) -> None:
        self.event_fn = event_fn

    def __call__(self, t: Tensor, y: State) -> Tensor:
        """Evaluate the event function."""
        return self.event_fn(t, y)


def combine_event_values(
    event_fn: EventFunction, t: Tensor, y0: State, *, differentiable: bool = True
) -> tuple[Callable[[Tensor, State], Tensor], bool]:
    """Return a function with one value that is zero where any value of an event function is zero.

    The function is positive at the start (t, y0). Also return whether a value is zero there.
    """
    with torch.no_grad():
        signs = torch.as_tensor(event_fn(t.detach(), y0)).sign()

    def combined(time: Tensor, y: State) -> Tensor:
        with torch.set_grad_enabled(differentiable and torch.is_grad_enabled()):
            return (event_fn(time, y) * signs).min()

    return combined, bool((signs == 0).any())


def link_event_time(
    func: Function, y0: State, t0: Tensor, *, event_fn: EventFunction, event_t: Tensor, states: State
) -> tuple[Tensor, State]:
    """Give an event time without a graph its derivatives, by the implicit function theorem.

    With g(t, y(t)) = 0: dt = −dg / ġ, where ġ = ∂g/∂t + ∂g/∂y · f. The state at the event changes by f dt.
    """
    combined, _ = combine_event_values(event_fn, t0, y0)
    shapes = None if isinstance(states, Tensor) else tuple(part.shape[1:] for part in states)
    end = flatten(tree_map(lambda part: part[-1], states))
    with torch.no_grad():
        slope = flatten(func(event_t, unflatten(end, shapes))).to(end.dtype)
    with torch.enable_grad():
        time, y = event_t.detach().requires_grad_(), end.detach().requires_grad_()
        by_t, by_y = torch.autograd.grad(combined(time, unflatten(y, shapes)), (time, y), allow_unused=True)
        rate = (0.0 if by_t is None else by_t) + (0.0 if by_y is None else (by_y * slope).sum())
        value = combined(event_t.detach(), unflatten(end, shapes))
        shift = -(value - value.detach()) / rate
        event_t = event_t.detach() + shift.to(event_t.dtype)
        end = unflatten(end + slope * shift.to(slope.dtype), shapes)
    return event_t, tree_map(lambda part, last: torch.cat((part[:-1], last[None])), states, end)
