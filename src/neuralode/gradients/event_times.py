"""Gradients through events, by the implicit function theorem: event times are zeros of a function.

After a solve that found events, the problem is restated: output times after a terminal event become its time, and the
times of all events become output times. Its outputs have gradients by their times, as those of any solve. With
g(t, y(t)) = 0 at a time t̂ and ġ its slope along the solution, :math:`t = t̂ - g(t̂, y(t̂)) / ġ` has the value t̂ and the
derivatives of the theorem.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from neuralode.core.clock import host
from neuralode.core.problem import Problem
from neuralode.core.record import AcceptedStep, Occurrence, StepBatch
from neuralode.core.status import GradientError
from neuralode.core.step_outputs import OutputTimes, assign_outputs
from neuralode.engines.base import Trajectory
from neuralode.engines.trajectory import RecordedTrajectory
from neuralode.gradients.base import Gradient


@dataclass(frozen=True)
class EventTable:
    """All events of a solve, ordered by row and time, and their indices in the problem with event times.

    ``source`` is the index of every output time of the new problem among the old output times, row after row, followed
    by the event times.
    """

    t: Tensor  # [events]
    y: Tensor  # [events, rows, features], or [events, features] per sample
    kind: Tensor  # [events]: which event function
    row: Tensor  # [events]; zeros on a shared clock
    slope: Tensor  # [events]
    terminal: Tensor  # [events]
    source: Tensor  # [outputs'] or [rows, outputs']
    outputs: Tensor  # [outputs] or [rows, outputs]: indices of the user's outputs among the new ones
    column: Tensor  # [events]: indices of the events among the new outputs


def with_event_times(trajectory: RecordedTrajectory) -> tuple[RecordedTrajectory, EventTable]:
    """Return the trajectory of the problem whose output times include those of the events, and the events."""
    problem, record, states = trajectory.problem, trajectory.record, trajectory.leaves[0]
    table = _in_order(problem, record.occurrences)
    table = _place(problem, table)
    if problem.per_sample:
        flat = torch.cat((states.transpose(0, 1).reshape(-1, states.shape[-1]), table.y))
        outputs = flat[table.source].transpose(0, 1).contiguous()
    else:
        outputs = torch.cat((states, table.y))[table.source.to(states.device)]
    problem = with_times(problem, table, table.t)
    record = replace(record, step_batches=_assigned(problem, record.step_batches))
    leaves = (outputs, *trajectory.leaves[1:])
    return replace(trajectory, problem=problem, record=record, leaves=leaves), table


def _in_order(problem: Problem, occurrences: list[Occurrence]) -> EventTable:
    """Return the events ordered by row and time, not yet placed among outputs."""
    columns = [_columns(occurrence, problem) for occurrence in occurrences]
    t, row, kind, slope, terminal, y = (torch.cat(parts) for parts in zip(*columns, strict=True))
    order = (t * problem.direction).argsort(stable=True)
    order = order[row[order].argsort(stable=True)]
    t, row, kind, slope, terminal, y = (x[order] for x in (t, row, kind, slope, terminal, y))
    empty = row[:0]
    return EventTable(
        t=t, y=y, kind=kind, row=row, slope=slope, terminal=terminal, source=empty, outputs=empty, column=empty
    )


def _columns(occurrence: Occurrence, problem: Problem) -> tuple[Tensor, ...]:
    """Return time, row, kind, slope, whether terminal, and state, with one entry for each event."""
    device = problem.t.device
    t = torch.as_tensor(occurrence.t, dtype=torch.float64, device=device).reshape(-1)
    row = torch.zeros(1, dtype=torch.int64, device=device) if occurrence.rows is None else occurrence.rows
    slope = torch.nan if occurrence.slope is None else occurrence.slope
    slope = torch.as_tensor(slope, dtype=torch.float64, device=device).expand(t.shape)
    kind = torch.full(t.shape, occurrence.event, device=device)
    terminal = torch.full(t.shape, occurrence.terminal, device=device)
    return t, row, kind, slope, terminal, occurrence.y if problem.per_sample else occurrence.y[None]


def _place(problem: Problem, table: EventTable) -> EventTable:
    """Merge the event times into the output times.

    Every row gets its output times and those of its events; rows with fewer events repeat their last time.
    """
    device, t, row = problem.t.device, table.t, table.row
    times = problem.t.detach().reshape(-1, problem.outputs)
    rows, outputs = times.shape
    counts = torch.bincount(row, minlength=rows)
    rank = torch.arange(len(t), device=device) - (counts.cumsum(0) - counts)[row]

    source = torch.arange(rows * outputs, device=device).view(rows, outputs)
    terminal_row = row[table.terminal]
    last = rows * outputs + table.terminal.nonzero()[:, 0]
    ended = torch.full((rows,), -1, dtype=torch.int64, device=device).index_put((terminal_row,), last)
    end = torch.full((rows,), torch.inf, dtype=torch.float64, device=device)
    end = end.index_put((terminal_row,), t[table.terminal] * problem.direction)
    # Includes the last output if the event falls on it.
    after = (times * problem.direction >= end[:, None]) & (ended >= 0)[:, None]
    source = torch.where(after, ended[:, None], source)
    further = source[:, -1:].expand(rows, int(counts.max())).clone()
    further[row, rank] = rows * outputs + torch.arange(len(t), device=device)
    source = torch.cat((source, further), 1)
    every = torch.cat((times.reshape(-1), t))
    order = (every[source] * problem.direction).argsort(dim=1, stable=True)
    source, back = source.gather(1, order), order.argsort(dim=1)  # back: the inverse permutation
    column = back[row, outputs + rank]
    source, kept = (source, back[:, :outputs]) if problem.per_sample else (source[0], back[0, :outputs])
    return replace(table, source=source, outputs=kept, column=column)


def with_times(problem: Problem, table: EventTable, times: Tensor) -> Problem:
    """Return the problem with these times as those of its events."""
    t = torch.cat((problem.t.reshape(-1), times))[table.source]
    fixed = t.detach()
    return replace(problem, t=t, times=fixed if problem.per_sample else fixed.tolist())


def _assigned(problem: Problem, batches: list[StepBatch]) -> list[StepBatch]:
    """Assign the new output times to the recorded steps."""
    if problem.per_sample:
        return [assign_outputs(batch, problem) for batch in batches]
    output_times = OutputTimes.of(problem)

    def assigned(step: AcceptedStep, t1: float) -> AcceptedStep:
        return step._replace(step_outputs=output_times.within(host(step.t), t1=t1, h=host(step.h)))

    with_outputs = []
    for batch in batches:
        ends = [host(t) for t in (*(step.t for step in batch.steps[1:]), batch.t)]
        steps = [assigned(step, t1) for step, t1 in zip(batch.steps, ends, strict=True)]
        with_outputs.append(batch._replace(steps=steps))
    return with_outputs


def attach_with_events(
    trajectory: RecordedTrajectory,
    table: EventTable,
    *,
    original: Problem,
    attach: Callable[[Trajectory], list[Tensor]],
) -> tuple[list[Tensor], EventTable]:
    """Return the leaves of a trajectory with event times, and its events, differentiable.

    ``original`` is the problem without the event times. ``attach`` makes the leaves of a trajectory differentiable.
    Each iteration of the loop makes one more order of derivatives exact.
    """
    gradient = trajectory.config.gradient

    def leaves_at(times: Tensor) -> list[Tensor]:
        return attach(replace(trajectory, problem=with_times(original, table, times)))

    with torch.enable_grad():
        times = table.t
        for _ in range(gradient.derivatives):
            values = _event_values(trajectory, table, times=times, states=leaves_at(times)[0])
            times = table.t + _Shift.apply(times - table.t - values / table.slope, gradient)
        return leaves_at(times), replace(table, t=times)


def _event_values(trajectory: RecordedTrajectory, table: EventTable, *, times: Tensor, states: Tensor) -> Tensor:
    """Return the values of the event functions at the events: zero, with derivatives."""
    problem, events = trajectory.problem, trajectory.config.events
    field = problem.field
    if not problem.per_sample:
        values = [
            events[kind](field, t, states[column])
            for kind, t, column in zip(table.kind.tolist(), times, table.column.tolist(), strict=True)
        ]
        return torch.stack(values).to(times)
    # The function may use tensors of all rows: evaluate rows without this event at their final states.
    values = torch.zeros_like(times)
    failed = ~states.detach()[-1].isfinite().all(-1)
    for kind in table.kind.unique().tolist():
        events_of_kind = (table.kind == kind).nonzero()[:, 0]
        row = table.row[events_of_kind]
        rank = torch.arange(len(row), device=row.device) - torch.searchsorted(row, row)
        for turn in range(int(rank.max()) + 1):
            chosen = events_of_kind[rank == turn]
            rows = table.row[chosen]
            y, t = states[table.column[chosen], rows], times[chosen]
            others = torch.where(failed[:, None], y[0], states[-1]).detach()
            at = torch.where(failed, t[0], problem.t[:, -1]).detach()
            value = events[kind](field, at.index_put((rows,), t), others.index_put((rows,), y))
            values = values.index_put((chosen,), value[rows].to(times))
    return values


class _Shift(torch.autograd.Function):
    """A shift of value zero, of which only the derivatives matter; refuse orders of derivatives that are not exact."""

    @staticmethod
    def forward(ctx: Any, shift: Tensor, gradient: Gradient) -> Tensor:
        ctx.gradient = gradient
        return torch.zeros_like(shift)

    @staticmethod
    def backward(ctx: Any, *cotangents: Tensor) -> tuple[Tensor, None]:
        if torch.is_grad_enabled() and ctx.gradient.derivatives < 2:
            raise GradientError(
                f"gradient={ctx.gradient.name!r} has no second derivatives through an event; wanted gradient='direct'."
            )
        return cotangents[0], None
