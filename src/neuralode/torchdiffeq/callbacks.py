"""What func wants to be told of steps, and how many of these it allows."""

from __future__ import annotations

import warnings
from bisect import bisect_right
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from neuralode.torchdiffeq.inputs import Task

NAMES = ("callback_step", "callback_accept_step", "callback_reject_step")


def nothing(*arguments: Any) -> None:
    """The callback that nobody asked for."""


def find_callbacks(func: Any, solver: Any, method: str, suffix: str = "") -> dict[str, Callable[..., Any]]:
    """The callbacks that func has and its solver calls, by name without the suffix; warns of others."""
    found = {name: getattr(func, name + suffix, nothing) for name in NAMES}
    found = {name: call for name, call in found.items() if call is not nothing}
    unsupported = set(found) - set(getattr(solver, "valid_callbacks", set)())
    if unsupported:
        warnings.warn(f"Solver '{method}' does not support callbacks {unsupported}", stacklevel=5)
    return {name: call for name, call in found.items() if name not in unsupported}


@dataclass
class Observer:
    """Told of every attempt by the core: calls the callbacks of func, and counts.

    Parameters
    ----------
    callbacks : dict
        ``call(t0, y0, dt)`` by name; dt is positive whichever way time goes.
    state : callable
        From packed rows to what a callback is given.
    like : Tensor
        In whose dtype and on whose device callbacks are given times.
    limit : int or None
        Attempts allowed between two output times.
    times : list of float
        Output times, in the direction of integration.
    direction : float
        1 or −1.
    """

    callbacks: dict[str, Callable[..., Any]]
    state: Callable[[Tensor], Any]
    like: Tensor
    limit: int | None
    times: list[float]
    direction: float
    interval: int = -1
    count: int = 0

    def attempted(self, t: float, y: Tensor, h: float) -> None:
        """A step of size h is going to be attempted from (t, y)."""
        if self.limit is not None:
            self._count(t, self.limit)
        self._call("callback_step", t, y, h)

    def accepted(self, t: float, y: Tensor, h: float) -> None:
        """It was kept."""
        self._call("callback_accept_step", t, y, h)

    def rejected(self, t: float, y: Tensor, h: float) -> None:
        """It was not."""
        self._call("callback_reject_step", t, y, h)

    def _call(self, name: str, t: float, y: Tensor, h: float) -> None:
        if name in self.callbacks:
            time, size = (torch.tensor(x, dtype=self.like.dtype, device=self.like.device) for x in (t, abs(h)))
            self.callbacks[name](time, self.state(y), size)

    def _count(self, t: float, limit: int) -> None:
        interval = bisect_right(self.times, t * self.direction)
        if interval != self.interval:
            self.interval, self.count = interval, 0
        if self.count >= limit:
            raise AssertionError(
                f"max_num_steps exceeded ({self.count}>={limit}) at t={t:.9g}, attempts between two output times. "
                "Raise options['max_num_steps'], or loosen rtol and atol; a stiff problem wants an implicit method."
            )
        self.count += 1


def observe(task: Task, callbacks: dict, limit: int | None, state: Callable[[Tensor], Any]) -> Observer | None:
    """Who observes a solve, if anyone wants to."""
    if not callbacks and limit is None:
        return None
    like = task.t.detach().double() if task.solver.adaptive else task.t.detach()
    device = (task.y0 if isinstance(task.y0, Tensor) else task.y0[0]).device
    times = [] if task.event_fn is not None else [time * task.direction for time in task.t.detach().tolist()]
    return Observer(callbacks, state, like.to(device), limit, times, task.direction)
