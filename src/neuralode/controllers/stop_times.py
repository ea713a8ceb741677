"""Times at which a step must end whatever the controller would like: known kinks and jumps of f."""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from neuralode.controllers.base import StepProposal
from neuralode.core.clock import Flag, Number, negate, where

SLIVER = 1e-9  # of a stated step: a stop this near to its end is its end


@dataclass(frozen=True)
class Stops:
    """Where steps end, and at which of these f jumps: there it is asked strictly before and strictly after.

    Parameters
    ----------
    times : tuple of float, or Tensor[S] or Tensor[rows, S]
        In the direction of integration: numbers on a shared clock; per sample a tensor, of each row its own where it
        has two axes, infinitely far at both ends so that there is always one ahead, whichever way.
    jumps : tuple of bool, or Tensor
        One for each time.
    everywhere : bool
        Treat both ends of every step as a jump.
    """

    times: tuple[float, ...] | Tensor = ()
    jumps: tuple[bool, ...] | Tensor = ()
    everywhere: bool = False

    def __bool__(self) -> bool:
        return self.everywhere or len(self.times) > 0

    @property
    def jumping(self) -> bool:
        """Whether f jumps at one of them."""
        return bool(self.jumps.any()) if isinstance(self.jumps, Tensor) else any(self.jumps)

    def reversed(self) -> Stops:
        """The same, met from the other side."""
        if isinstance(self.times, Tensor) and isinstance(self.jumps, Tensor):
            return replace(self, times=self.times.flip(-1), jumps=self.jumps.flip(-1))
        return replace(self, times=self.times[::-1], jumps=self.jumps[::-1])

    def take(self, rows: Tensor) -> Stops:
        """Those of some rows."""
        if isinstance(self.times, Tensor) and self.times.dim() == 2:
            return replace(self, times=self.times[rows], jumps=torch.as_tensor(self.jumps)[rows])
        return self

    def propose(
        self, controller: Any, t: Number, h: Number, end: Number, direction: float, history: Any
    ) -> tuple[StepProposal, Flag, Flag]:
        """Where the next step ends, whether at a stop, and whether f jumps there."""
        if not len(self.times):
            return controller.propose(t, h, end, direction, history), t != t, t != t
        stop, jump = self._following(t, direction)
        before_end, at_end = (stop - end) * direction < 0, stop == end
        if controller.adaptive:
            proposal = controller.propose(t, h, where(before_end, stop, end), direction, history)
            ends_at_stop = proposal.reaches_end & before_end
            ends = ends_at_stop | (proposal.reaches_end & at_end)
            return proposal._replace(reaches_end=proposal.reaches_end & negate(before_end)), ends_at_stop, ends & jump
        proposal = controller.propose(t, h, end, direction, history)
        slack = SLIVER * abs(proposal.h)
        cut = before_end & ((stop - proposal.t1) * direction <= slack)
        short = cut & ((proposal.t1 - stop) * direction > slack)
        t1 = where(cut, stop, proposal.t1)
        ends = cut | (proposal.reaches_end & at_end)
        return (
            StepProposal(t1 - t, t1, proposal.reaches_end & negate(cut), where(cut, short, proposal.clipped)),
            cut,
            ends & jump,
        )

    def begin(self, t: Number) -> Flag:
        """Whether f jumps where clocks start."""
        if isinstance(t, Tensor):
            if not isinstance(self.times, Tensor):
                return torch.full_like(t, self.everywhere, dtype=torch.bool)
            return ((t[:, None] == self.times) & torch.as_tensor(self.jumps)).any(-1) | self.everywhere
        return self.everywhere or any(jump and time == t for time, jump in zip(self.times, self.jumps, strict=True))

    def _following(self, t: Number, direction: float) -> tuple[Number, Flag]:
        """The first stop strictly beyond t, infinitely far if there is none; and whether f jumps there."""
        if isinstance(self.times, Tensor) and isinstance(self.jumps, Tensor):
            ahead, own = self.times * direction, self.times.dim() == 2
            place = torch.searchsorted(ahead, (t[:, None] if own else t) * direction, right=True)
            if own:
                return self.times.gather(1, place)[:, 0], self.jumps.gather(1, place)[:, 0]
            return self.times[place], self.jumps[place]
        place = bisect_right(self.times, t * direction, key=lambda time: time * direction)
        return (self.times[place], self.jumps[place]) if place < len(self.times) else (direction * math.inf, False)


NOWHERE = Stops()


def find_stops(step_t: Any, jump_t: Any, perturb: bool, start: Number, end: Number, direction: float) -> Stops:
    """The stops within a solve, its ends included, of the times that the user gave."""
    output_times: dict[float, bool] = {}
    for name, given, jumps in (("step_t", step_t, False), ("jump_t", jump_t, True)):
        for time in _read(name, given):
            if time in output_times:
                raise ValueError(f"{name} holds {time!r} twice, or step_t and jump_t both hold it; wanted it once.")
            output_times[time] = jumps
    low, high = _span(start, end)
    inside = {time: jump for time, jump in output_times.items() if low <= time <= high}
    if not inside:
        return Stops(everywhere=perturb)
    return _ordered([_pair(list(inside), list(inside.values()))], perturb, start, direction)


def unite(stops: Stops, found: Sequence[tuple[Tensor, Tensor]], start: Number, end: Number, direction: float) -> Stops:
    """These stops, and those that were found: pairs of times and jumps, [S], or of each row its own [rows, S].

    Only what lies within the solve counts. The earliest time (which is the end, going back) does not: at a jump that
    was found f has the value of what follows, which is right there.
    """
    low, high = _span(start, end)
    parts = []
    for times, jumps in found:
        inside = (times > low) & (times <= high)
        if bool(inside.any()):
            parts.append((times.masked_fill(~inside, torch.inf), jumps & inside))
    return _ordered([_pair(stops.times, stops.jumps), *parts], stops.everywhere, start, direction) if parts else stops


def _pair(times: Any, jumps: Any) -> tuple[Tensor, Tensor]:
    return torch.as_tensor(times, dtype=torch.float64), torch.as_tensor(jumps, dtype=torch.bool)


def _span(start: Number, end: Number) -> tuple[float, float]:
    """The earliest and the latest time of any clock."""
    if isinstance(start, Tensor):
        both = torch.stack((start, end))
        return (float(both.amin()), float(both.amax())) if both.numel() else (0.0, 0.0)
    return min(start, end), max(start, end)


def _ordered(parts: list[tuple[Tensor, Tensor]], everywhere: bool, start: Number, direction: float) -> Stops:
    """Stops of these times in the direction of integration, each once; those that are infinite are none."""
    if isinstance(start, Tensor):
        parts = [(times.to(start.device), jumps.to(start.device)) for times, jumps in parts]
        if any(times.dim() == 2 for times, _ in parts):
            return _row_by_row(parts, everywhere, len(start), direction)
    flat = torch.cat([times.reshape(-1).to(parts[0][0].device) for times, _ in parts]) * direction
    jumps = torch.cat([jumps.reshape(-1).to(flat.device) for _, jumps in parts])[flat.isfinite()]
    ahead, place = flat[flat.isfinite()].unique(return_inverse=True)
    jumping = torch.zeros_like(ahead, dtype=torch.bool).index_put((place[jumps],), torch.ones_like(jumps[jumps]))
    if isinstance(start, Tensor):
        return Stops(*_walled(ahead, jumping, direction), everywhere)
    return Stops(tuple((ahead * direction).tolist()), tuple(jumping.tolist()), everywhere)


def _row_by_row(parts: list[tuple[Tensor, Tensor]], everywhere: bool, rows: int, direction: float) -> Stops:
    """Stops of each row its own: as many as the row with the most has, the others end in infinite ones."""
    ahead = torch.cat([times.expand(rows, -1) for times, _ in parts], 1) * direction
    jumps = torch.cat([jumps.expand(rows, -1) for _, jumps in parts], 1)
    ahead = torch.where(ahead.isfinite(), ahead, torch.inf)
    ahead, order = ahead.sort(1)
    ahead = ahead[:, : int(ahead.isfinite().sum(1).max())].contiguous()
    # where several are at one time, f jumps at each of them if it does at any
    first, behind = torch.searchsorted(ahead, ahead), torch.searchsorted(ahead, ahead, right=True)
    count = torch.nn.functional.pad(jumps.gather(1, order).cumsum(1), (1, 0))
    jumping = (count.gather(1, behind) > count.gather(1, first)) & ahead.isfinite()
    return Stops(*_walled(ahead, jumping, direction), everywhere)


def _walled(ahead: Tensor, jumps: Tensor, direction: float) -> tuple[Tensor, Tensor]:
    """With an infinite time at either end, which is no jump."""
    lead = (*ahead.shape[:-1], 1)
    wall, no = ahead.new_full(lead, torch.inf), jumps.new_zeros(lead)
    return torch.cat((-wall, ahead, wall), -1) * direction, torch.cat((no, jumps, no), -1)


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
