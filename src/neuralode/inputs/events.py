"""Events: functions of time and state whose zeros are located along a solve.

Engines test them after every accepted step and locate the zero on the dense output. A step that ends at a terminal
event is taken again with a corrected size, until the function is zero at the state that the step gives.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from neuralode.core.clock import Flag, Number
from neuralode.core.field import Field
from neuralode.core.types import UserFunction


@dataclass(frozen=True)
class Event:
    """A function of time and state; an event occurs where it crosses zero.

    Parameters
    ----------
    function : callable
        ``function(t, y, *args)``, called like f. Returns one real number as a tensor, or one for each row, [rows], with
        ``per_sample``. Gradients reach every tensor that it uses.
    terminal : bool, default=True
        Whether the solve (of that row) ends at the event. Otherwise its times and states are collected.
    direction : {-1, 0, 1}, default=0
        1: only where the function rises through zero, in the direction of the solve; -1: only where it falls; 0: both.

    Raises
    ------
    TypeError
        If ``function`` is not callable.
    ValueError
        If ``direction`` is not -1, 0 or 1.

    Examples
    --------
    A ball is thrown up from the ground and returns to it:

    >>> import torch, neuralode as node
    >>> def ball(t, y):
    ...     return torch.stack((y[1], torch.full_like(y[1], -9.81)))
    >>> y0 = torch.tensor([0.0, 5.0], dtype=torch.float64)
    >>> sol = node.solve(ball, y0, (0.0, 10.0), events=node.Event(lambda t, y: y[0]))
    >>> round(sol.ts[-1].item(), 6), sol.status.tolist() == [node.Status.EVENT]  # 2 · 5 / 9.81
    (1.019368, True)
    """

    function: UserFunction
    terminal: bool = True
    direction: int = 0

    def __post_init__(self) -> None:
        if not callable(self.function):
            raise TypeError(
                f"Event(function) is a {type(self.function).__name__}; wanted a callable function(t, y, *args)."
            )
        if self.direction not in (-1, 0, 1):
            raise ValueError(f"Event(direction={self.direction!r}); wanted -1, 0 or 1.")

    def __call__(self, field: Field, t: Number, y: Tensor) -> Tensor:
        """Evaluate the function at a packed state; returns a 0-d tensor, or [rows] per sample."""
        layout = field.layout
        assert layout is not None
        time = torch.as_tensor(t, dtype=torch.float64).to(device=layout.device, dtype=field.time_dtype)
        value = self.function(time, layout.unpack(y, field.dtype), *field.args)
        _check_value(value, rows=len(time) if time.dim() else None)
        return value.reshape(time.shape)

    def value(self, field: Field, t: Number, y: Tensor) -> Number:
        """Evaluate the function as a clock number: a float, or a float64 tensor [rows]."""
        value = self(field, t, y)
        return value.to(torch.float64) if value.dim() else float(value)

    def crosses(self, before: Number, after: Number) -> Flag:
        """Return whether two values lie on different sides of zero, in the direction of the event.

        A function that starts at zero does not cross it.
        """
        rises, falls = (before < 0) & (after >= 0), (before > 0) & (after <= 0)
        return (rises & (self.direction >= 0)) | (falls & (self.direction <= 0))


def find_events(events: Event | list[Event] | tuple[Event, ...] | None) -> tuple[Event, ...]:
    """Return the events of a solve as a tuple: none, one or several."""
    if events is None:
        return ()
    given = events if isinstance(events, (list, tuple)) else (events,)
    for event in given:
        if not isinstance(event, Event):
            raise TypeError(f"events holds a {type(event).__name__}; wanted Event(function), or a list of these.")
    return tuple(given)


def _check_value(value: object, rows: int | None) -> None:
    """Refuse a value that is not one real number, or one for each row."""
    if isinstance(value, Tensor) and value.is_floating_point() and value.numel() == (1 if rows is None else rows):
        return
    came = f"a {type(value).__name__}"
    if isinstance(value, Tensor):
        came = f"shape {list(value.shape)}" if value.is_floating_point() else f"a tensor of {value.dtype}"
    wanted = "one real number" if rows is None else f"one real number for each of {rows} rows"
    raise ValueError(
        f"an event function returned {came}; wanted a tensor of {wanted}. Pass several events as a list of Event(...); "
        "with per_sample=True each row has its own events."
    )
