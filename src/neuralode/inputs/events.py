"""Events: functions of time and state, and where along a solve they become zero.

Tested on every accepted step. The zero is found on the dense output; where it ends the solve, the step is taken again
to end there, and its size corrected until the function is zero at the state that it gives.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from neuralode.core.clock import Flag, Number
from neuralode.core.field import Field

if TYPE_CHECKING:
    pass


@dataclass(frozen=True)
class Event:
    """A function of time and state; something happens where it is zero.

    Parameters
    ----------
    function : callable
        ``function(t, y, *args)``, called as f is: returns one number, or one a row with ``per_sample``. Gradients reach
        what it uses.
    terminal : bool
        Whether the solve (of that row) ends there. Otherwise times and states are collected.
    direction : {-1, 0, 1}
        1: only where it rises through zero, in the direction of the solve; -1: only where it falls; 0: either.

    Examples
    --------
    A ball thrown up from the ground, and where it comes back to it:

    >>> import torch, neuralode as node
    >>> def ball(t, y):
    ...     return torch.stack((y[1], torch.full_like(y[1], -9.81)))
    >>> y0 = torch.tensor([0.0, 5.0], dtype=torch.float64)
    >>> sol = node.solve(ball, y0, (0.0, 10.0), events=node.Event(lambda t, y: y[0]))
    >>> round(sol.ts[-1].item(), 6), sol.status.tolist() == [node.Status.EVENT]  # 2 · 5 / 9.81
    (1.019368, True)
    """

    function: Callable[..., Any]
    terminal: bool = True
    direction: int = 0

    def __post_init__(self) -> None:
        if not callable(self.function):
            raise TypeError(
                f"Event(function) is a {type(self.function).__name__}; wanted a callable function(t, y, *args)."
            )
        if self.direction not in (-1, 0, 1):
            raise ValueError(f"Event(direction={self.direction!r}); wanted -1, 0 or 1.")

    def __call__(self, field: Field, t: Any, y: Tensor) -> Tensor:
        """The function at a packed state: 0-d, or [rows] per sample."""
        layout = field.layout
        assert layout is not None
        time = torch.as_tensor(t, dtype=torch.float64).to(device=layout.device, dtype=field.time_dtype)
        answer = self.function(time, layout.unpack(y, field.dtype), *field.args)
        rows = time.dim() > 0
        count = len(time) if rows else 1
        if not isinstance(answer, Tensor) or not answer.is_floating_point() or answer.numel() != count:
            came = f"a {type(answer).__name__}"
            if isinstance(answer, Tensor):
                came = f"shape {list(answer.shape)}" if answer.is_floating_point() else f"a tensor of {answer.dtype}"
            wanted = f"one real number for each of {len(time)} rows" if rows else "one real number"
            raise ValueError(
                f"an event function returned {came}; wanted a tensor of {wanted}. Several events are several "
                "Event(...); which rows have their own is said by per_sample=True."
            )
        return answer.reshape(time.shape)

    def value(self, field: Field, t: Number, y: Tensor) -> Number:
        """The same as a clock number."""
        found = self(field, t, y)
        return found.to(torch.float64) if found.dim() else float(found)

    def crosses(self, before: Number, after: Number) -> Flag:
        """Whether these values lie on two sides of zero, the right way. Zero to begin with is no event."""
        rises, falls = (before < 0) & (after >= 0), (before > 0) & (after <= 0)
        return (rises & (self.direction >= 0)) | (falls & (self.direction <= 0))


def find_events(events: Any) -> tuple[Event, ...]:
    """The events that a user gave: one, several or none."""
    if events is None:
        return ()
    found = events if isinstance(events, (list, tuple)) else (events,)
    for event in found:
        if not isinstance(event, Event):
            raise TypeError(f"events holds a {type(event).__name__}; wanted Event(function), or a list of these.")
    return tuple(found)
