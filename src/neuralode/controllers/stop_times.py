"""Times at which steps must end: known kinks and discontinuities of f."""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from torch import Tensor

from neuralode.controllers.base import Controller, History, StepProposal, StepRequest
from neuralode.core.clock import Flag, Number, host, negate, per_row, where
from neuralode.core.problem import Problem
from neuralode.core.times import Times

END_TOLERANCE = 1e-9  # relative to a fixed step: a stop as close to its end counts as its end


class StopProposal(NamedTuple):
    """A proposed step, whether it ends at a stop, and whether f jumps there."""

    step: StepProposal
    ends_at_stop: Flag
    jump: Flag


@dataclass(frozen=True)
class StopTimes:
    """Times at which steps end. Where f jumps, it is evaluated strictly before or strictly after the time.

    Parameters
    ----------
    times : tuple of float, Tensor[S] or Tensor[rows, S], default=()
        Stops in the direction of integration. Per-row clocks have a tensor, padded at both ends with infinite times, so
        that a stop always lies ahead.
    jumps : tuple of bool or Tensor, default=()
        Whether f is discontinuous at each time.
    everywhere : bool, default=False
        Treat both ends of every step as a discontinuity.
    """

    times: tuple[float, ...] | Tensor = ()
    jumps: tuple[bool, ...] | Tensor = ()
    everywhere: bool = False

    def __bool__(self) -> bool:
        return self.everywhere or len(self.times) > 0

    @property
    def jumping(self) -> bool:
        """Whether f is discontinuous at one of the times."""
        return bool(self.jumps.any()) if isinstance(self.jumps, Tensor) else any(self.jumps)

    def reversed(self) -> StopTimes:
        """Return the stops in the opposite direction of integration."""
        if isinstance(self.times, Tensor) and isinstance(self.jumps, Tensor):
            return replace(self, times=self.times.flip(-1), jumps=self.jumps.flip(-1))
        return replace(self, times=self.times[::-1], jumps=self.jumps[::-1])

    def take(self, rows: Tensor) -> StopTimes:
        """Return the stops of some rows."""
        if isinstance(self.times, Tensor) and self.times.dim() == 2:
            return replace(self, times=self.times[rows], jumps=torch.as_tensor(self.jumps)[rows])
        return self

    def propose(self, controller: Controller, request: StepRequest, history: History) -> StopProposal:
        """Let the controller propose a step that ends at the next stop at the latest."""
        t, _, end, direction = request
        if not len(self.times):
            return StopProposal(controller.propose(request, history), t != t, t != t)
        stop, jump = self._following(t, direction)
        before_end, at_end = (stop - end) * direction < 0, stop == end
        if controller.adaptive:
            proposal = controller.propose(request._replace(end=where(before_end, stop, end)), history)
            ends_at_stop = proposal.reaches_end & before_end
            ends = ends_at_stop | (proposal.reaches_end & at_end)
            proposal = proposal._replace(reaches_end=proposal.reaches_end & negate(before_end))
            return StopProposal(proposal, ends_at_stop, ends & jump)
        proposal = controller.propose(request, history)
        slack = END_TOLERANCE * abs(proposal.h)
        cut = before_end & ((stop - proposal.t1) * direction <= slack)
        short = cut & ((proposal.t1 - stop) * direction > slack)
        t1 = where(cut, stop, proposal.t1)
        ends = cut | (proposal.reaches_end & at_end)
        cut_short = StepProposal(
            h=t1 - t,
            t1=t1,
            reaches_end=proposal.reaches_end & negate(cut),
            clipped=where(cut, short, proposal.clipped),
        )
        return StopProposal(cut_short, cut, ends & jump)

    def jumps_at(self, t: Number) -> Flag:
        """Return whether f jumps at t, where clocks start."""
        if isinstance(t, Tensor):
            if not isinstance(self.times, Tensor):
                return torch.full_like(t, self.everywhere, dtype=torch.bool)
            return ((t[:, None] == self.times) & torch.as_tensor(self.jumps)).any(-1) | self.everywhere
        return self.everywhere or any(jump and time == t for time, jump in zip(self.times, self.jumps, strict=True))

    def _following(self, t: Number, direction: float) -> tuple[Number, Flag]:
        """Return the first stop strictly beyond t, infinite if there is none, and whether f jumps there."""
        if isinstance(self.times, Tensor) and isinstance(self.jumps, Tensor):
            ahead, t, by_row = self.times * direction, per_row(t), self.times.dim() == 2
            index = torch.searchsorted(ahead, (t[:, None] if by_row else t) * direction, right=True)
            if by_row:
                return self.times.gather(1, index)[:, 0], self.jumps.gather(1, index)[:, 0]
            return self.times[index], self.jumps[index]
        index = bisect_right(self.times, t * direction, key=lambda time: time * direction)
        return (self.times[index], self.jumps[index]) if index < len(self.times) else (direction * math.inf, False)


NO_STOPS = StopTimes()


def find_stops(
    problem: Problem, *, step_t: Times | None = None, jump_t: Times | None = None, perturb: bool = False
) -> StopTimes:
    """Return the stops within a solve, both ends included, at the times that the user gave.

    Raises
    ------
    TypeError, ValueError
        For times that are not a floating tensor [S], not finite, or given twice.
    """
    jumps: dict[float, bool] = {}
    for name, times, jump in (("step_t", step_t, False), ("jump_t", jump_t, True)):
        for time in _read(name, times):
            if time in jumps:
                raise ValueError(f"{name} holds {time!r} twice, or step_t and jump_t both hold it; wanted it once.")
            jumps[time] = jump
    low, high = _span(problem)
    inside = {time: jump for time, jump in jumps.items() if low <= time <= high}
    if not inside:
        return StopTimes(everywhere=perturb)
    return _ordered(problem, [_pair(list(inside), list(inside.values()))], perturb)


def unite(problem: Problem, stops: StopTimes, breaks: Sequence[tuple[Tensor, Tensor]]) -> StopTimes:
    """Add the breaks of control inputs to stops: pairs of times and jumps, [S] or [rows, S].

    Only breaks within the solve count. The earliest time is excluded (the end, if time decreases): control inputs are
    right-continuous, so f there already has the value of the piece that is integrated.
    """
    low, high = _span(problem)
    parts = []
    for times, jumps in breaks:
        inside = (times > low) & (times <= high)
        if bool(inside.any()):
            parts.append((times.masked_fill(~inside, torch.inf), jumps & inside))
    if not parts:
        return stops
    return _ordered(problem, [_pair(stops.times, stops.jumps), *parts], stops.everywhere)


def _pair(times: Sequence[float] | Tensor, jumps: Sequence[bool] | Tensor) -> tuple[Tensor, Tensor]:
    return torch.as_tensor(times, dtype=torch.float64), torch.as_tensor(jumps, dtype=torch.bool)


def _span(problem: Problem) -> tuple[float, float]:
    """Return the earliest and the latest time of any clock."""
    start, end = problem.start, problem.end
    if isinstance(start, Tensor):
        both = torch.stack((start, per_row(end)))
        return (float(both.amin()), float(both.amax())) if both.numel() else (0.0, 0.0)
    return min(start, host(end)), max(start, host(end))


def _ordered(problem: Problem, parts: list[tuple[Tensor, Tensor]], everywhere: bool) -> StopTimes:
    """Return stops in the direction of integration, without duplicates and infinite times."""
    start, direction = problem.start, problem.direction
    if isinstance(start, Tensor):
        parts = [(times.to(start.device), jumps.to(start.device)) for times, jumps in parts]
        if any(times.dim() == 2 for times, _ in parts):
            return _row_by_row(problem, parts, everywhere)
    flat = torch.cat([times.reshape(-1).to(parts[0][0].device) for times, _ in parts]) * direction
    jumps = torch.cat([jumps.reshape(-1).to(flat.device) for _, jumps in parts])[flat.isfinite()]
    ahead, index = flat[flat.isfinite()].unique(return_inverse=True)
    jumping = torch.zeros_like(ahead, dtype=torch.bool).index_put((index[jumps],), torch.ones_like(jumps[jumps]))
    if isinstance(start, Tensor):
        return StopTimes(*_padded(ahead, jumping, direction), everywhere)
    return StopTimes(tuple((ahead * direction).tolist()), tuple(jumping.tolist()), everywhere)


def _row_by_row(problem: Problem, parts: list[tuple[Tensor, Tensor]], everywhere: bool) -> StopTimes:
    """Return stops [rows, S]; rows with fewer stops are padded with infinite ones."""
    rows, direction = problem.layout.rows, problem.direction
    ahead = torch.cat([times.expand(rows, -1) for times, _ in parts], 1) * direction
    jumps = torch.cat([jumps.expand(rows, -1) for _, jumps in parts], 1)
    ahead = torch.where(ahead.isfinite(), ahead, torch.inf)
    ahead, order = ahead.sort(1)
    ahead = ahead[:, : int(ahead.isfinite().sum(1).max())].contiguous()
    # Several stops at one time: f jumps at each of them if it jumps at any.
    first, after = torch.searchsorted(ahead, ahead), torch.searchsorted(ahead, ahead, right=True)
    count = torch.nn.functional.pad(jumps.gather(1, order).cumsum(1), (1, 0))
    jumping = (count.gather(1, after) > count.gather(1, first)) & ahead.isfinite()
    return StopTimes(*_padded(ahead, jumping, direction), everywhere)


def _padded(ahead: Tensor, jumps: Tensor, direction: float) -> tuple[Tensor, Tensor]:
    """Pad times with an infinite time without a jump at both ends."""
    lead = (*ahead.shape[:-1], 1)
    infinite, no = ahead.new_full(lead, torch.inf), jumps.new_zeros(lead)
    return torch.cat((-infinite, ahead, infinite), -1) * direction, torch.cat((no, jumps, no), -1)


def _read(name: str, times: Times | None) -> list[float]:
    """Return the times that a user gave."""
    if times is None:
        return []
    times = times if isinstance(times, Tensor) else torch.as_tensor(times, dtype=torch.float64)
    if not times.is_floating_point() or times.dim() != 1:
        raise TypeError(f"{name} has dtype {times.dtype}, shape {list(times.shape)}; wanted a floating tensor [S].")
    numbers = times.detach().double().tolist()
    if not all(map(math.isfinite, numbers)):
        raise ValueError(f"{name} holds a time that is not finite: {numbers}.")
    return numbers
