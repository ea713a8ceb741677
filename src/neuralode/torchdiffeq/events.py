"""`odeint_event`: a solve that ends where a function becomes zero, differentiable with the time at which it does."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_map

from neuralode.torchdiffeq.eager import eager
from neuralode.torchdiffeq.foreign import flatten, unflatten
from neuralode.torchdiffeq.forward import odeint
from neuralode.torchdiffeq.tasks import Linked, events_at


@eager
def odeint_event(
    func: Any,
    y0: Any,
    t0: Tensor,
    *,
    event_fn: Any,
    reverse_time: bool = False,
    odeint_interface: Any = odeint,
    **kwargs: Any,
) -> tuple[Tensor, Any]:
    """Solve until an event, with gradients through the time of the event.

    Parameters
    ----------
    func, y0
        As in `odeint`.
    t0 : Tensor
        Where to start, 0-d or of one number.
    event_fn : callable
        ``event_fn(t, y)``, as in `odeint`; what it uses receives gradients too.
    reverse_time : bool
        Go backwards in time.
    odeint_interface : callable
        `odeint`, `odeint_adjoint`, or a function that calls one of them.
    **kwargs
        Passed on to it.

    Returns
    -------
    Tensor, Tensor or tuple of Tensor
        The time of the event, and the states at ``t0`` and there.

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
        came = f"{t0.dtype}, shape {list(t0.shape)}" if isinstance(t0, Tensor) else f"a {type(t0).__name__}"
        raise TypeError(f"t0 is {came}; wanted a floating tensor of one time.")
    start = t0.reshape(1)
    t = torch.cat((start, start.detach() + (-1 if reverse_time else 1)))
    event_t, states = odeint_interface(func, y0, t, event_fn=Linked(event_fn), **kwargs)
    if not event_t.requires_grad and flatten(states).requires_grad:
        return rerouted(func, y0, t[0], event_fn, event_t, states)
    return event_t, states


def rerouted(func: Any, y0: Any, t0: Tensor, event_fn: Any, event_t: Tensor, states: Any) -> tuple[Tensor, Any]:
    """Link a time that was found without a graph to the state there, by the implicit function theorem.

    With g(t, y(t)) = 0: dt = −dg / ġ, ġ = ∂g/∂t + ∂g/∂y · f; and y moves by f dt.
    """
    combined, _ = events_at(event_fn, t0, y0)
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
