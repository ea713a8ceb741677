"""Outputs, dense output and statistics: what becomes of a march for the one who asked."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import TreeSpec

from neuralode.core.dense_output import DenseOutput
from neuralode.core.outputs import Outputs, save_state
from neuralode.core.problem import Problem
from neuralode.core.record import AcceptedStep, Plan, Record, StepBatch
from neuralode.core.solution import Occurrences, Solution, Stats
from neuralode.core.status import reached_end
from neuralode.gradients.event_times import EventTable
from neuralode.gradients.retake import clocks

INSTANT = 1e-100  # the size of a piece that is one point


def read(problem: Problem, plan: Plan, record: Record, outputs: Outputs) -> list[Tensor]:
    """The leaves of a march: outputs or steps, then the coefficients of the dense output."""
    leaves = [_steps(problem, record)] if plan.steps else list(outputs.buffers or ())
    if plan.dense:
        leaves.append(_coefficients(problem, record))
    return leaves


def _each(record: Record) -> list[tuple[StepBatch, AcceptedStep]]:
    return [(step_batch, step) for step_batch in record.step_batches for step in step_batch.steps]


def _steps(problem: Problem, record: Record) -> Tensor:
    """y0 and the new state of every accepted step: [steps + 1, rows, features], rows of their own left ragged."""
    y0 = problem.y0.detach()
    count = int(record.accepted.max()) if isinstance(record.accepted, Tensor) and len(y0) else 0
    if not problem.per_sample:
        return torch.stack([y0, *(step.y1 for _, step in _each(record))])
    states = y0.expand(count + 1, *y0.shape).clone()
    for step_batch, step in _each(record):
        rows = step.accept.nonzero()[:, 0]
        states[step.stop, rows if step_batch.rows is None else step_batch.rows[rows]] = step.y1[rows]
    return states


def _coefficients(problem: Problem, record: Record) -> Tensor:
    """Of all pieces: [pieces, degree + 1, rows, features], or [pieces, degree + 1, features] per sample."""
    parts = [
        step.coefficients[None] if step.accept is None else step.coefficients[:, step.accept].transpose(0, 1)
        for _, step in _each(record)
    ]
    if parts:
        return torch.cat(parts)
    y0 = problem.y0.detach()
    return y0.new_zeros((0, 2, *y0.shape[1 if problem.per_sample else 0 :]))


def occurrences(problem: Problem, table: EventTable, leaves: list[Tensor]) -> tuple[list[Tensor], Problem, Any]:
    """Of a solve that met events: the outputs that were asked for, the problem with their times, the events, packed."""
    t = torch.cat((problem.t.reshape(-1), table.t))[table.source]
    states = leaves[0]
    if problem.per_sample:
        found = states[table.column.to(states.device), table.row]
        outputs, own = states.gather(0, table.own.T[..., None].expand(-1, -1, states.shape[-1])), t.gather(1, table.own)
    else:
        found = states[table.column.to(states.device)]
        outputs, own = states[table.own.to(states.device)], t[table.own]
    fixed = own.detach()
    posed = replace(problem, t=own, times=fixed if problem.per_sample else fixed.tolist())
    return [outputs, *leaves[1:]], posed, (table, found)


def events_of(problem: Problem, count: int, found: Any) -> tuple[Occurrences, ...]:
    """What became of each event."""
    layout = problem.layout
    if found is None:
        nothing = problem.t.detach().new_zeros(0)
        y = problem.y0.detach().new_zeros((0, *problem.y0.shape[problem.per_sample :]))
        kind = row = torch.zeros(0, dtype=torch.int64, device=problem.t.device)
        times = nothing
    else:
        table, y = found
        kind, row, times = table.kind, table.row, table.t
    gathered = []
    for n in range(count):
        own = kind == n
        gathered.append(
            Occurrences(times[own], layout.unpack(y[own.to(y.device)]), row[own] if problem.per_sample else None)
        )
    return tuple(gathered)


def wrap(
    problem: Problem,
    plan: Plan,
    record: Record,
    leaves: list[Tensor],
    spec: TreeSpec | None,
    save: Callable[..., Any] | None,
    backward: list[int],
    events: tuple[Occurrences, ...] = (),
) -> Solution:
    """The solution that the user sees, from leaves that may be differentiable."""
    layout = problem.layout
    dense = _dense(problem, record, leaves.pop()) if plan.dense else None
    ts = problem.t
    if plan.steps:
        ts, ys = _padded(problem, record, leaves[0])
        ys = layout.unpack(ys)
    elif save is None:
        ys = layout.unpack(leaves[0])
    elif plan.save is None:
        ys = saved_after(problem, save, leaves[0])
    else:
        assert spec is not None
        ys = spec.unflatten(leaves)
    status = torch.as_tensor(record.status, device=layout.device).expand(layout.rows)
    return Solution(ts, ys, status, _stats(problem, record, backward), events, dense)


def _stats(problem: Problem, record: Record, backward: list[int]) -> Stats:
    attempts, accepted = record.attempts, record.accepted
    evaluations = record.started + record.cost
    return Stats(record.calls, problem.layout.rows, (evaluations, accepted, attempts - accepted), (backward,))


def saved_after(problem: Problem, save: Callable[..., Any], ys: Tensor) -> Any:
    """A function of outputs that were kept as states; of those that were not reached it is NaN, without a gradient."""
    keeping, times = Plan(save=save), problem.t.to(ys.device)
    count, rows = ys.shape[:2]
    reached = ys.detach().isfinite().all(-1) if problem.per_sample else ys.detach().isfinite().flatten(1).all(-1)
    ys = torch.where(reached[(...,) + (None,) * (ys.dim() - reached.dim())], ys, problem.y0.detach())
    if not problem.per_sample:
        leaves, spec = save_state(problem, keeping, times, ys, None)
    else:
        place = torch.arange(rows, device=ys.device).repeat(count)
        leaves, spec = save_state(problem, keeping, times.T.reshape(-1), ys.flatten(0, 1), place)
        leaves = [x.unflatten(0, (count, rows)) for x in leaves]
    return spec.unflatten([_blanked(x, ~reached) for x in leaves])


def _blanked(saved: Tensor, missing: Tensor) -> Tensor:
    if not (saved.is_floating_point() or saved.is_complex()):
        return saved
    return saved.masked_fill(missing[(...,) + (None,) * (saved.dim() - missing.dim())], torch.nan)


def _padded(problem: Problem, record: Record, states: Tensor) -> tuple[Tensor, Tensor]:
    """Times and states of accepted steps; per sample each row repeats its last."""
    there = reached_end(record.status)
    if not problem.per_sample:
        begins = [clocks(problem, step, None, problem.t)[0] for _, step in _each(record)]
        end = problem.t[-1] if there else problem.t.detach().new_tensor(record.t)
        return torch.stack([*begins, end]), states
    rows = torch.arange(problem.layout.rows, device=states.device)
    counts = record.accepted
    end = torch.where(there, problem.t[:, -1], record.t)
    table = end[:, None].expand(-1, len(states)).clone()
    for step_batch, step in _each(record):
        local = step.accept.nonzero()[:, 0]
        own = local if step_batch.rows is None else step_batch.rows[local]
        begin = clocks(problem, step, step_batch.rows, problem.t)[0][local]
        table = table.index_put((own, step.stop - 1), begin)
    place = torch.minimum(torch.arange(len(states), device=states.device)[:, None], counts)
    return table, states[place, rows]


def _dense(problem: Problem, record: Record, coefficients: Tensor) -> DenseOutput:
    """The pieces with their clocks; rows that took no step get one constant piece."""
    t, instant = problem.t, problem.direction * INSTANT
    when = [(step_batch, step, *clocks(problem, step, step_batch.rows, t)) for step_batch, step in _each(record)]
    if not problem.per_sample:
        if not when:
            constant = torch.stack((problem.y0, torch.zeros_like(problem.y0)))[None]
            return DenseOutput(problem.layout, constant, t[:1], torch.full_like(t[:1], instant), problem.direction)
        begins = torch.stack([begin for *_, begin, _ in when])
        sizes = torch.stack([torch.as_tensor(h, dtype=t.dtype, device=t.device) for *_, h in when])
        return DenseOutput(problem.layout, coefficients, begins, sizes, problem.direction)
    row, begins, sizes = [], [], []
    for step_batch, step, begin, h in when:
        local = step.accept.nonzero()[:, 0]
        row.append(local if step_batch.rows is None else step_batch.rows[local])
        begins.append(begin[local])
        sizes.append(h[local])
    idle = (record.accepted == 0).nonzero()[:, 0]
    still = torch.zeros((len(idle), *coefficients.shape[1:]), dtype=coefficients.dtype, device=coefficients.device)
    still = torch.cat((problem.y0[idle][:, None], still[:, 1:]), 1)
    return DenseOutput(
        problem.layout,
        torch.cat((coefficients, still)),
        torch.cat((*begins, t[idle, 0])),
        torch.cat((*sizes, torch.full_like(t[idle, 0], instant))),
        problem.direction,
        torch.cat((*row, idle)),
    )
