"""Times at which a step must end whatever the controller would like: known kinks and jumps of f."""

from __future__ import annotations

import math
from bisect import bisect_right
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from neuralode.clock import Flag, Number, negate, where
from neuralode.control.decision import Aim

SLIVER = 1e-9  # of a stated step: a stop this near to its end is its end


@dataclass(frozen=True)
class Stops:
    """Where steps end, and at which of these f jumps: there it is asked strictly before and strictly after.

    Parameters
    ----------
    times : tuple of float
        In the direction of integration.
    jumps : tuple of bool
        One for each time.
    everywhere : bool
        Treat both ends of every step as a jump.
    """

    times: tuple[float, ...] = ()
    jumps: tuple[bool, ...] = ()
    everywhere: bool = False

    def __bool__(self) -> bool:
        return self.everywhere or bool(self.times)

    def reversed(self) -> Stops:
        """The same, met from the other side."""
        return replace(self, times=self.times[::-1], jumps=self.jumps[::-1])

    def aim(
        self, controller: Any, t: Number, h: Number, end: Number, direction: float, history: Any
    ) -> tuple[Aim, Flag, Flag]:
        """Where the next step ends, whether at a stop, and whether f jumps there."""
        if not self.times:
            return controller.aim(t, h, end, direction, history), t != t, t != t
        stop, jump = self._following(t, direction)
        before_end, at_end = (stop - end) * direction < 0, stop == end
        if controller.adaptive:
            aim = controller.aim(t, h, where(before_end, stop, end), direction, history)
            stopping = aim.landing & before_end
            ends = stopping | (aim.landing & at_end)
            return aim._replace(landing=aim.landing & negate(before_end)), stopping, ends & jump
        aim = controller.aim(t, h, end, direction, history)
        slack = SLIVER * abs(aim.h)
        cut = before_end & ((stop - aim.t1) * direction <= slack)
        short = cut & ((aim.t1 - stop) * direction > slack)
        t1 = where(cut, stop, aim.t1)
        ends = cut | (aim.landing & at_end)
        return Aim(t1 - t, t1, aim.landing & negate(cut), where(cut, short, aim.clipped)), cut, ends & jump

    def begin(self, t: Number) -> Flag:
        """Whether f jumps where clocks start."""
        jumps = [time for time, jump in zip(self.times, self.jumps, strict=True) if jump]
        if not isinstance(t, Tensor):
            return self.everywhere or t in jumps
        return torch.isin(t, t.new_tensor(jumps)) | self.everywhere

    def _following(self, t: Number, direction: float) -> tuple[Number, Flag]:
        """The first stop strictly beyond t, infinitely far if there is none; and whether f jumps there."""
        ahead = [time * direction for time in self.times]
        if not isinstance(t, Tensor):
            place = bisect_right(ahead, t * direction)
            return (self.times[place], self.jumps[place]) if place < len(ahead) else (direction * math.inf, False)
        table = torch.tensor(ahead, dtype=t.dtype, device=t.device)
        place = torch.searchsorted(table, t * direction, right=True)
        stops = torch.cat((table, table.new_full((1,), torch.inf))) * direction
        return stops[place], torch.tensor((*self.jumps, False), device=t.device)[place]


NOWHERE = Stops()


def find_stops(step_t: Any, jump_t: Any, perturb: bool, start: Number, end: Number, direction: float) -> Stops:
    """The stops within a solve, its ends included, of the times that the user gave."""
    marks: dict[float, bool] = {}
    for name, given, jumps in (("step_t", step_t, False), ("jump_t", jump_t, True)):
        for time in _read(name, given):
            if time in marks:
                raise ValueError(f"{name} holds {time!r} twice, or step_t and jump_t both hold it; wanted it once.")
            marks[time] = jumps
    if not marks:
        return Stops(everywhere=perturb)
    low = float((start * direction).amin()) if isinstance(start, Tensor) else start * direction
    high = float((end * direction).amax()) if isinstance(end, Tensor) else end * direction
    inside = sorted((time * direction, jump) for time, jump in marks.items() if low <= time * direction <= high)
    return Stops(tuple(time * direction for time, _ in inside), tuple(jump for _, jump in inside), perturb)


def _read(name: str, given: Any) -> list[float]:
    if given is None:
        return []
    times = torch.as_tensor(given, dtype=torch.float64) if not isinstance(given, Tensor) else given
    if not times.is_floating_point() or times.dim() != 1:
        raise TypeError(f"{name} has dtype {times.dtype}, shape {list(times.shape)}; wanted a floating tensor [S].")
    found = times.detach().double().tolist()
    if not all(map(math.isfinite, found)):
        raise ValueError(f"{name} holds a time that is not finite: {found}.")
    return found
