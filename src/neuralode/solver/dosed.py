"""A solve with doses: a chain of solves from dose to dose, each with its own exact gradient.

On a shared clock a stretch runs from one dose to the next. Per sample, stretch k runs each row from its own dose k − 1
to its own dose k; rows whose last stretch is behind them, or that have ended, wait where they started, at no cost.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_map

from neuralode.core.dense_output import DenseOutput
from neuralode.core.problem import Problem, make_problem
from neuralode.core.solution import Solution, join
from neuralode.core.status import SolveError, Status
from neuralode.inputs.doses import Schedule, by_row, schedule
from neuralode.inputs.events import find_events
from neuralode.solver.results import saved_after


@dataclass(frozen=True)
class Stretch:
    """From one dose to the next: clock by clock when it begins and ends, and the outputs that fall on it.

    Outputs before its end have columns of their own; those at its end, where no dose follows, are its end.
    """

    low: Tensor  # [clocks]
    high: Tensor  # [clocks]
    own: Tensor  # [clocks, outputs]
    ending: Tensor  # [clocks, outputs]
    times: Tensor  # [clocks, columns]: its begin, the outputs, its end
    column: Tensor  # [outputs]: where each is


def dosed(
    plain: Callable[..., Solution], doses: Any, f: Any, y0: Any, t: Any, args: Any, args_dims: Any, per_sample: bool,
    events: Any, save: Any, on_failure: Any,
) -> Solution:  # fmt: skip
    """Solve from dose to dose; ``plain(y0, t)`` solves without any."""
    if save is not None and not callable(save):
        raise ValueError(f"save={save!r} with doses; wanted output times, dense=True or a function.")
    endless = any(event.terminal for event in find_events(events))
    problem = make_problem(f, y0, t, args, args_dims, per_sample, endless=endless)
    plan = schedule(doses, problem)
    chain = _Chain(problem, plan, y0)
    for slot in range(plan.slots + 1):
        chain.follow(plain, slot)
        if not bool(chain.alive.any()):
            break
    solution = chain.solution()
    if callable(save):
        states = [tree_map(lambda x, i=i: x[i], solution.ys) for i in range(problem.outputs)]
        packed = torch.stack([problem.layout.pack(y) for y in states])
        solution = replace(solution, ys=saved_after(replace(problem, t=solution.ts), save, packed), _continue=None)
    if chain.error is not None and on_failure == "raise":
        raise SolveError(f"{chain.error} (In a solve with doses, whose stretches are counted by themselves.)", solution)
    return solution


class _Chain:
    """What has been solved so far, and where every clock stands."""

    def __init__(self, problem: Problem, plan: Schedule, y0: Any) -> None:
        self.problem, self.plan = problem, plan
        self.state, self.begin = y0, tree_map(lambda x: x.detach(), y0)
        self.t = problem.t.reshape(-1, problem.outputs)  # [clocks, outputs]
        self.fixed = self.t.detach()
        clocks, device = len(self.t), self.t.device
        self.alive = torch.ones(clocks, dtype=torch.bool, device=device)
        self.status = torch.zeros(problem.layout.rows, dtype=torch.int64, device=problem.layout.device)
        self.index = torch.zeros(self.t.shape, dtype=torch.int64, device=device)  # of outputs among all columns
        self.ended = torch.zeros(self.t.shape, dtype=torch.bool, device=device)  # they are behind an event
        self.parts: list[Solution] = []
        self.columns = 0
        self.error: SolveError | None = None
        self.cut = False  # an event ended a clock before its last dose

    def follow(self, plain: Callable[..., Solution], slot: int) -> None:
        """Solve one stretch, and give the dose at its end."""
        stretch, due = self._stretch(slot)
        times = stretch.times if self.problem.per_sample else stretch.times[0]
        try:
            part = plain(self.state, times)
        except SolveError as error:
            self.error, part = self.error or error, error.solution
        part = replace(part, ys=self._moved(part.ys, stretch))
        alive = self.alive
        self.status = torch.where(self._rows(alive), part.status, self.status)
        stopped = alive & self._clocks(part.status != Status.SUCCESS)
        self._note(stretch, stopped, self._clocks(part.status == Status.EVENT), bool(slot < self.plan.slots))
        if part.dense is not None and self.parts and not bool(alive.all()):
            part = replace(part, dense=_pieces_of(part.dense, alive))
        self.parts.append(part)
        self.alive = alive & due & ~stopped
        if bool(self.alive.any()):
            end = tree_map(lambda x: x[-1], part.ys)
            end = self._healthy(end)
            self.state = self.plan.given(slot, self._device(self.alive), self._at(slot), end, self.problem)

    def _stretch(self, slot: int) -> tuple[Stretch, Tensor]:
        """When it begins and ends, and which clocks have a dose at its end."""
        given, alive, none = self.plan.t, self.alive, torch.zeros_like(self.alive)
        due = given[:, slot].detach().isfinite() if slot < self.plan.slots else none
        low = given[:, slot - 1] if slot else self.t[:, 0]
        high = torch.where(due, given[:, slot], self.t[:, -1]) if slot < self.plan.slots else self.t[:, -1]
        start = self.fixed[:, 0]
        low, high = torch.where(alive, low, start), torch.where(alive, high, start)
        inside = (self.fixed >= low.detach()[:, None]) & alive[:, None]
        inside[:, 0] = False  # output 0 is y0 itself
        own = inside & (self.fixed < high.detach()[:, None])
        ending = inside & ~own & ~due[:, None]
        wanted = own.any(0).nonzero()[:, 0]
        # what a row does not want from a column it must not go backwards in
        filled = torch.where(own, self.fixed, low.detach()[:, None])[:, wanted].cummax(1).values
        inner = torch.where(own[:, wanted], self.t[:, wanted], filled)
        column = torch.zeros(self.t.shape[1], dtype=torch.int64, device=low.device)
        column[wanted] = torch.arange(len(wanted), device=low.device) + 1
        times = torch.cat((low[:, None], inner, high[:, None]), 1)
        return Stretch(low, high, own, ending, times, column), due

    def _moved(self, ys: Any, stretch: Stretch) -> Any:
        """Outputs at the very begin of a stretch, with the derivatives that they have by both times."""
        problem, times = self.problem, stretch.times
        if not (torch.is_grad_enabled() and times.requires_grad):
            return ys
        at_begin = (times.detach() == times.detach()[:, :1]) & self.alive[:, None]
        at_begin[:, 0] = False
        if not bool(at_begin.any()):
            return ys
        shift = torch.where(at_begin, times - times[:, :1], 0).T.to(problem.layout.device)  # zero, but for derivatives
        low = stretch.low if problem.per_sample else stretch.low[0]
        slope = problem.field(low.to(problem.layout.device, problem.field.time_dtype), problem.layout.pack(self.state))
        slope = problem.layout.unpack(slope)

        def move(leaf: Tensor, rate: Tensor) -> Tensor:
            by = shift.to(leaf.dtype.to_real())
            by = by.reshape(len(by), *((-1,) if problem.per_sample else ()), *(1,) * (rate.dim() - problem.per_sample))
            return leaf + by * rate

        return tree_map(move, ys, slope)

    def _note(self, stretch: Stretch, stopped: Tensor, event: Tensor, more: bool) -> None:
        """Where the outputs of this stretch are."""
        last = self.columns + stretch.times.shape[1] - 1
        behind = stopped[:, None] & (self.fixed >= stretch.high.detach()[:, None])
        behind[:, 0] = False
        self.index = torch.where(stretch.own, self.columns + stretch.column, self.index)
        self.index = torch.where(stretch.ending | behind, last, self.index)
        over = stopped & event
        self.ended = self.ended | (over[:, None] & (stretch.own | stretch.ending | behind))
        self.cut = self.cut or (more and bool(over.any()))
        self.columns = last  # the begin of the next stretch is left out

    def _healthy(self, end: Any) -> Any:
        """Rows that go no further stand at the start, where f is known to be sound."""
        if bool(self.alive.all()):
            return end
        alive = self._device(self.alive)
        return tree_map(lambda y, y0: torch.where(by_row(alive, y), y, y0), end, self.begin)

    def _at(self, slot: int) -> Tensor:
        """When the doses of this slot are given: one time a clock."""
        return torch.where(self.alive, self.plan.t[:, slot], self.fixed[:, 0])

    def _device(self, x: Tensor) -> Tensor:
        return x.to(self.problem.layout.device)

    def _rows(self, x: Tensor) -> Tensor:
        return self._device(x).expand(self.problem.layout.rows)

    def _clocks(self, x: Tensor) -> Tensor:
        x = x.to(self.alive.device)
        return x if self.problem.per_sample else x[:1] if len(x) else torch.zeros_like(self.alive)

    def solution(self) -> Solution:
        """All stretches as one."""
        whole = join(self.parts)
        per_sample, index = self.problem.per_sample, self.index
        place = torch.arange(len(index), device=index.device)
        ts = whole.ts.gather(1, index) if per_sample else whole.ts[index[0]][None]
        ts = torch.where(self.ended, ts, self.t)
        at = self._device(index)
        rows = self._device(place)
        ys = tree_map(lambda x: x[at.T, rows] if per_sample else x[at[0]], whole.ys)
        status = self.status.to(whole.status.dtype)
        proceed = None if self.cut or bool((status >= Status.MAX_STEPS).any()) else whole._continue
        return replace(whole, ts=ts if per_sample else ts[0], ys=ys, status=status, _continue=proceed)


def _pieces_of(dense: DenseOutput, rows: Tensor) -> DenseOutput:
    """The pieces of some rows."""
    assert dense.row is not None
    kept = rows.to(dense.row.device)[dense.row]
    pick = kept.to(dense.coefficients.device)
    return replace(dense, coefficients=dense.coefficients[pick], t=dense.t[kept], h=dense.h[kept], row=dense.row[kept])
