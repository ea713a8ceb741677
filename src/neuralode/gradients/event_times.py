"""Gradients through events: their times are where a function is zero, so the implicit function theorem gives them.

After a march that met events the problem is posed anew: output times behind a terminal event become its time, and the
times of all events become output times. That is a solve like any other, whose outputs have gradients by their times.
With g(t, y(t)) = 0 at a time t̂, and ġ its slope along the solution, :math:`t = t̂ - g(t̂, y(t̂)) / ġ` has the value t̂ and
the derivatives that the theorem gives; with it for a time, the outputs have theirs.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from neuralode.core.dense_output import find_step_outputs, outputs_within
from neuralode.core.problem import Problem
from neuralode.core.record import AcceptedStep, Occurrence, Record, StepBatch
from neuralode.core.status import GradientError
from neuralode.gradients.base import Solved


@dataclass(frozen=True)
class EventTable:
    """All events of a solve, in the order of their rows and times, and where they are in the problem posed anew.

    ``source`` says which entry of the old output times, one row after another and the events behind them, every output
    time of the new problem is.
    """

    t: Tensor  # [events]
    y: Tensor  # [events, rows, features], or [events, features] per sample
    kind: Tensor  # [events]: which event function
    row: Tensor  # [events]; zeros on a shared clock
    slope: Tensor  # [events]
    source: Tensor  # [outputs'] or [rows, outputs']
    own: Tensor  # [outputs] or [rows, outputs]: where the outputs that were asked for are among these
    column: Tensor  # [events]: where the events are


def with_event_times(problem: Problem, record: Record, states: Tensor) -> tuple[Problem, Record, Tensor, EventTable]:
    """The problem whose output times are those of the events too, with its record and its outputs."""
    shared = not problem.per_sample
    device = problem.t.device
    table = [_on_rows(x, device, shared) for x in record.occurrences]
    t, row, kind, slope, terminal = (torch.cat([x[i] for x in table]) for i in range(5))
    y = torch.cat([x[5] for x in table])
    times = problem.t.detach().reshape(-1, problem.outputs)
    rows, outputs = times.shape

    order = (t * problem.direction).argsort(stable=True)
    order = order[row[order].argsort(stable=True)]
    t, row, kind, slope, terminal, y = (x[order] for x in (t, row, kind, slope, terminal, y))
    counts = torch.bincount(row, minlength=rows)
    rank = torch.arange(len(t), device=device) - (counts.cumsum(0) - counts)[row]

    # every row: its own times, then those of its events, then its last time again where it has fewer of these
    source = torch.arange(rows * outputs, device=device).view(rows, outputs)
    last = rows * outputs + terminal.nonzero()[:, 0]
    ended = torch.full((rows,), -1, dtype=torch.int64, device=device).index_put((row[terminal],), last)
    end = torch.full((rows,), torch.inf, dtype=torch.float64, device=device).index_put(
        (row[terminal],), t[terminal] * problem.direction
    )
    # the last output is not there if the event falls on it
    behind = (times * problem.direction >= end[:, None]) & (ended >= 0)[:, None]
    source = torch.where(behind, ended[:, None], source)
    further = source[:, -1:].expand(rows, int(counts.max())).clone()
    further[row, rank] = rows * outputs + torch.arange(len(t), device=device)
    source = torch.cat((source, further), 1)
    every = torch.cat((times.reshape(-1), t))
    order = (every[source] * problem.direction).argsort(dim=1, stable=True)
    source, back = source.gather(1, order), order.argsort(dim=1)
    own, column = back[:, :outputs], back[row, outputs + rank]

    if shared:
        source, own = source[0], own[0]
        table = torch.cat((states, y))[source.to(states.device)]
    else:
        flat = torch.cat((states.transpose(0, 1).reshape(-1, states.shape[-1]), y))
        table = flat[source].transpose(0, 1).contiguous()
    found = EventTable(t, y, kind, row, slope, source, own, column)
    problem = with_times(problem, found, found.t)
    return problem, replace(record, step_batches=_read_again(problem, record.step_batches)), table, found


def _on_rows(table: Occurrence, device: torch.device, shared: bool) -> tuple[Tensor, ...]:
    """Time, row, kind, slope, whether terminal, and state, each with one entry an event."""
    t = torch.as_tensor(table.t, dtype=torch.float64, device=device).reshape(-1)
    row = torch.zeros(1, dtype=torch.int64, device=device) if table.rows is None else table.rows
    slope = t * torch.nan if table.slope is None else torch.as_tensor(table.slope, dtype=torch.float64, device=device)
    kind = torch.full(t.shape, table.event, device=device)
    terminal = torch.full(t.shape, table.terminal, device=device)
    return t, row, kind, slope.reshape(-1), terminal, table.y[None] if shared else table.y


def with_times(problem: Problem, table: EventTable, times: Tensor) -> Problem:
    """The problem with these times for its events."""
    t = torch.cat((problem.t.reshape(-1), times))[table.source]
    fixed = t.detach()
    return replace(problem, t=t, times=fixed if problem.per_sample else fixed.tolist())


def _read_again(problem: Problem, step_batches: list[StepBatch]) -> list[StepBatch]:
    """Which outputs of the new problem fall on which steps."""
    if isinstance(problem.times, Tensor):
        return [
            find_step_outputs(step_batch, problem.times, problem.direction, step_batch.t) for step_batch in step_batches
        ]
    output_times, first = [t * problem.direction for t in problem.times[problem.inner]], problem.inner.start

    def read(step: AcceptedStep, t1: float) -> AcceptedStep:
        return step._replace(step_outputs=outputs_within(output_times, first, problem.direction, step.t, t1, step.h))

    found = []
    for step_batch in step_batches:
        ends = [*(step.t for step in step_batch.steps[1:]), step_batch.t]
        found.append(
            step_batch._replace(steps=[read(step, t1) for step, t1 in zip(step_batch.steps, ends, strict=True)])
        )
    return found


def attach(
    solved: Solved, gradient: Any, events: tuple[Any, ...], table: EventTable, problem: Problem
) -> tuple[list[Tensor], EventTable]:
    """The leaves of a solve that met events, and these with their times, differentiable.

    ``problem`` is the one that was solved; that of ``solved`` is posed anew. A round makes one order of derivatives
    right.
    """
    with torch.enable_grad():
        times = table.t
        for _ in range(gradient.derivatives):
            leaves = gradient.attach(replace(solved, problem=with_times(problem, table, times)))
            zero = _zeros(solved.problem, events, table, times, leaves[0])
            times = table.t + _Shift.apply(times - table.t - zero / table.slope, gradient)
        return gradient.attach(replace(solved, problem=with_times(problem, table, times))), replace(table, t=times)


def _zeros(problem: Problem, events: tuple[Any, ...], table: EventTable, times: Tensor, states: Tensor) -> Tensor:
    """The event functions at the events: zero, with derivatives."""
    field, zero = problem.field, torch.zeros_like(times)
    if not problem.per_sample:
        found = [
            events[kind](field, t, states[column])
            for kind, t, column in zip(table.kind.tolist(), times, table.column.tolist(), strict=True)
        ]
        return torch.stack(found).to(times)
    # the function may use what only the whole has: rows that are not asked about wait where they ended
    idle = ~states.detach()[-1].isfinite().all(-1)
    for kind in table.kind.unique().tolist():
        own = (table.kind == kind).nonzero()[:, 0]
        rank = torch.arange(len(own), device=own.device) - torch.searchsorted(table.row[own], table.row[own])
        for turn in range(int(rank.max()) + 1):
            asked = own[rank == turn]
            rows = table.row[asked]
            y, t = states[table.column[asked], rows], times[asked]
            waiting = torch.where(idle[:, None], y[0], states[-1]).detach()
            at = torch.where(idle, t[0], problem.t[:, -1]).detach()
            found = events[kind](field, at.index_put((rows,), t), waiting.index_put((rows,), y))
            zero = zero.index_put((asked,), found[rows].to(times))
    return zero


class _Shift(torch.autograd.Function):
    """A shift that is zero: only its derivatives matter, and of these only as many as are right."""

    @staticmethod
    def forward(ctx: Any, shift: Tensor, gradient: Any) -> Tensor:
        ctx.gradient = gradient
        return torch.zeros_like(shift)

    @staticmethod
    def backward(ctx: Any, *cotangents: Tensor) -> Any:
        if torch.is_grad_enabled() and ctx.gradient.derivatives < 2:
            raise GradientError(
                f"gradient={ctx.gradient.name!r} has no second derivatives through an event; wanted gradient='direct'."
            )
        return cotangents[0], None
