"""Solve with doses: a chain of solves from dose to dose, each with its exact gradient.

On a shared clock, segment k runs from dose k − 1 to dose k. With ``per_sample``, segment k of each row runs from its
dose k − 1 to its dose k; rows that have reached their end stay at their start time, at no cost.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal, TypeAlias

import torch
from jaxtyping import Bool, Float64, Int64
from torch import Tensor
from torch.utils._pytree import tree_map

from neuralode.core.clock import choose
from neuralode.core.dense_output import DenseOutput
from neuralode.core.problem import Problem
from neuralode.core.solution import Solution, join
from neuralode.core.status import EVENT, MAX_STEPS, SUCCESS, SolveError
from neuralode.core.types import PyTree, Save
from neuralode.inputs.dose_schedule import DoseSchedule, make_schedule
from neuralode.inputs.doses import Dose
from neuralode.solver.results import saved_after

SolveBetween: TypeAlias = Callable[[PyTree, Tensor], Solution]  # (y0, t) -> the solution without doses


def solve_with_doses(
    solve_between: SolveBetween,
    problem: Problem,
    y0: PyTree,
    *,
    doses: Dose | list[Dose],
    save: Save,
    on_failure: Literal["raise", "return"],
) -> Solution:
    """Solve from dose to dose and join the segments.

    Parameters
    ----------
    solve_between : callable
        ``solve_between(y0, t)`` solves without doses; raises `SolveError` or returns the partial solution on failure.
    problem : Problem
        The problem without doses.
    y0 : pytree of Tensor
        The initial state of the user, not packed.
    doses : Dose or list of Dose
        The doses.
    save : callable or None
        As in `solve`; "steps" is refused.
    on_failure : {"raise", "return"}
        As in `solve`.
    """
    if save is not None and not callable(save):
        raise ValueError(f"save={save!r} with doses; wanted output times, dense=True or a function.")
    schedule = make_schedule(doses, problem)
    chain = _start(problem, y0)
    for slot in range(schedule.slots + 1):
        segment = _next_segment(chain, schedule, slot)
        chain, part = _solve_segment(chain, segment, solve_between)
        if bool(chain.alive.any()):
            chain = replace(chain, y=_state_after_dose(chain, schedule, slot=slot, y=_last(part.ys)))
        else:
            break
    solution = _joined(chain)
    if callable(save):
        states = [tree_map(lambda x, i=i: x[i], solution.ys) for i in range(problem.outputs)]
        packed = torch.stack([problem.layout.pack(y) for y in states])
        saved = saved_after(replace(problem, t=solution.ts), save, packed)
        solution = replace(solution, ys=saved, _continue=None)
    if chain.error is not None and on_failure == "raise":
        raise SolveError(f"{chain.error} (max_steps counts the attempts of each segment between doses.)", solution)
    return solution


@dataclass(frozen=True)
class _Chain:
    """The segments solved so far, and the position of each clock.

    The columns of all segments are numbered in one sequence, in which the end of one is the start of the next.
    """

    problem: Problem
    y0: PyTree  # without a graph
    y: PyTree  # the state at the start of the next segment
    alive: Bool[Tensor, " clocks"]  # has a further segment
    status: Int64[Tensor, " rows"]
    column: Int64[Tensor, "clocks outputs"]  # the column of each output
    after_event: Bool[Tensor, "clocks outputs"]  # whether the time of an output is that of a terminal event
    parts: tuple[Solution, ...] = ()
    columns: int = 0
    error: SolveError | None = None  # the first
    cut: bool = False  # an event ended a clock before its last dose

    @property
    def t(self) -> Float64[Tensor, "clocks outputs"]:
        """The output times, with their history."""
        return self.problem.t.reshape(-1, self.problem.outputs)

    def of_rows(self, x: Tensor) -> Tensor:
        """Return a tensor of clocks on the device of the state, one entry for each row."""
        return x.to(self.problem.layout.device).expand(self.problem.layout.rows)

    def of_clocks(self, x: Tensor) -> Tensor:
        """Return a tensor of rows as one of clocks."""
        x = x.to(self.alive.device)
        if self.problem.per_sample:
            return x
        return x[:1] if len(x) else torch.zeros_like(self.alive)


@dataclass(frozen=True)
class _Segment:
    """The span of each clock from one dose to the next.

    Outputs before the end have columns. Outputs at the end are the last column, unless a dose follows there.
    """

    t0: Float64[Tensor, " clocks"]
    t1: Float64[Tensor, " clocks"]
    due: Bool[Tensor, " clocks"]  # a dose follows at t1
    last: bool  # no clock has a further segment
    inner: Bool[Tensor, "clocks outputs"]  # outputs in [t0, t1)
    at_end: Bool[Tensor, "clocks outputs"]  # outputs at t1 without a dose
    times: Float64[Tensor, "clocks columns"]  # t0, the times of outputs, t1
    column: Int64[Tensor, " outputs"]  # the column of each output


def _start(problem: Problem, y0: PyTree) -> _Chain:
    clocks, device = len(problem.t) if problem.per_sample else 1, problem.t.device
    shape = (clocks, problem.outputs)
    return _Chain(
        problem=problem,
        y0=tree_map(lambda x: x.detach(), y0),
        y=y0,
        alive=torch.ones(clocks, dtype=torch.bool, device=device),
        status=torch.zeros(problem.layout.rows, dtype=torch.int64, device=problem.layout.device),
        column=torch.zeros(shape, dtype=torch.int64, device=device),
        after_event=torch.zeros(shape, dtype=torch.bool, device=device),
    )


def _next_segment(chain: _Chain, schedule: DoseSchedule, slot: int) -> _Segment:
    """Return the segment that ends at the doses of a slot, or at the end of the solve."""
    t, alive, last = chain.t, chain.alive, slot == schedule.slots
    fixed = t.detach()
    due = torch.zeros_like(alive) if last else schedule.t[:, slot].detach().isfinite()
    t0 = schedule.t[:, slot - 1] if slot else t[:, 0]
    t1 = t[:, -1] if last else torch.where(due, schedule.t[:, slot], t[:, -1])
    t0, t1 = torch.where(alive, t0, fixed[:, 0]), torch.where(alive, t1, fixed[:, 0])
    inside = (fixed >= t0.detach()[:, None]) & alive[:, None]
    inside[:, 0] = False  # output 0 is y0 itself
    inner = inside & (fixed < t1.detach()[:, None])
    outputs = inner.any(0).nonzero()[:, 0]
    # A clock without an output in a column repeats its previous time, so that its times do not decrease.
    filled = torch.where(inner, fixed, t0.detach()[:, None])[:, outputs].cummax(1).values
    times = torch.where(inner[:, outputs], t[:, outputs], filled)
    column = torch.zeros(t.shape[1], dtype=torch.int64, device=t.device)
    column[outputs] = torch.arange(len(outputs), device=t.device) + 1
    return _Segment(
        t0=t0,
        t1=t1,
        due=due,
        last=last,
        inner=inner,
        at_end=inside & ~inner & ~due[:, None],
        times=torch.cat((t0[:, None], times, t1[:, None]), 1),
        column=column,
    )


def _solve_segment(chain: _Chain, segment: _Segment, solve_between: SolveBetween) -> tuple[_Chain, Solution]:
    """Solve one segment; return the chain with it, and its solution."""
    error = chain.error
    try:
        part = solve_between(chain.y, segment.times if chain.problem.per_sample else segment.times[0])
    except SolveError as failure:
        error, part = error or failure, failure.solution
    part = replace(part, ys=_with_start_derivatives(part.ys, chain, segment))
    alive, at_event = chain.alive, chain.of_clocks(part.status == EVENT)
    stopped = alive & chain.of_clocks(part.status != SUCCESS)
    if part.dense is not None and chain.parts and not bool(alive.all()):
        part = replace(part, dense=_pieces_of(part.dense, alive))
    chain = replace(
        _with_outputs(chain, segment, stopped, at_event=stopped & at_event),
        alive=alive & segment.due & ~stopped,
        status=torch.where(chain.of_rows(alive), part.status, chain.status),
        parts=(*chain.parts, part),
        error=error,
        cut=chain.cut or (not segment.last and bool((stopped & at_event).any())),
    )
    return chain, part


def _with_start_derivatives(ys: PyTree, chain: _Chain, segment: _Segment) -> PyTree:
    """Add derivatives to outputs at the start of a segment: by their time, and by the time of the dose.

    Such an output is the initial state of the segment, moved along f by the difference of the two times: zero, but with
    derivatives.
    """
    problem, times = chain.problem, segment.times
    if not (torch.is_grad_enabled() and times.requires_grad):
        return ys
    at_start = (times.detach() == times.detach()[:, :1]) & chain.alive[:, None]
    at_start[:, 0] = False
    if not bool(at_start.any()):
        return ys
    layout = problem.layout
    shift = torch.where(at_start, times - times[:, :1], 0).T.to(layout.device)
    t0 = segment.t0 if problem.per_sample else segment.t0[0]
    slope = problem.field(t0.to(layout.device, problem.field.time_dtype), layout.pack(chain.y))

    def move(leaf: Tensor, rate: Tensor) -> Tensor:
        by = shift.to(leaf.dtype.to_real())
        by = by.reshape(len(by), *((-1,) if problem.per_sample else ()), *(1,) * (rate.dim() - problem.per_sample))
        return leaf + by * rate

    return tree_map(move, ys, layout.unpack(slope))


def _with_outputs(chain: _Chain, segment: _Segment, stopped: Tensor, *, at_event: Tensor) -> _Chain:
    """Set the columns of the outputs within a segment; clocks that stopped in it take all later outputs from it."""
    last = chain.columns + segment.times.shape[1] - 1
    later = stopped[:, None] & (chain.t.detach() >= segment.t1.detach()[:, None])
    later[:, 0] = False
    column = torch.where(segment.inner, chain.columns + segment.column, chain.column)
    return replace(
        chain,
        column=torch.where(segment.at_end | later, last, column),
        after_event=chain.after_event | (at_event[:, None] & (segment.inner | segment.at_end | later)),
        columns=last,
    )


def _last(ys: PyTree) -> PyTree:
    return tree_map(lambda x: x[-1], ys)


def _state_after_dose(chain: _Chain, schedule: DoseSchedule, *, slot: int, y: PyTree) -> PyTree:
    """Return the initial state of the next segment from the last state ``y`` of this one."""
    device = chain.problem.layout.device
    if not bool(chain.alive.all()):
        # Rows that have ended stay at y0, where f is finite.
        y = choose(chain.alive.to(device), y, chain.y0)
    t = torch.where(chain.alive, schedule.t[:, slot], chain.t.detach()[:, 0])
    return schedule.apply(y, slot=slot, t=t, due=chain.alive.to(device))


def _joined(chain: _Chain) -> Solution:
    """Return all segments as one solution at the output times."""
    joined = join(chain.parts)
    per_sample, column, device = chain.problem.per_sample, chain.column, chain.problem.layout.device
    ts = joined.ts.gather(1, column) if per_sample else joined.ts[column[0]][None]
    ts = torch.where(chain.after_event, ts, chain.t)
    column, rows = column.to(device), torch.arange(len(column), device=device)
    ys = tree_map(lambda x: x[column.T, rows] if per_sample else x[column[0]], joined.ys)
    status = chain.status.to(joined.status.dtype)
    can_continue = not chain.cut and not bool((status >= MAX_STEPS).any())
    return replace(
        joined,
        ts=ts if per_sample else ts[0],
        ys=ys,
        status=status,
        _continue=joined._continue if can_continue else None,
    )


def _pieces_of(dense: DenseOutput, rows: Tensor) -> DenseOutput:
    """Return the dense output of some rows."""
    assert dense.row is not None
    keep = rows.to(dense.row.device)[dense.row]
    coefficients = dense.coefficients[keep.to(dense.coefficients.device)]
    return replace(dense, coefficients=coefficients, t=dense.t[keep], h=dense.h[keep], row=dense.row[keep])
