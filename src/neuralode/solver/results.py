"""The solution that the user sees: outputs, dense output, events and statistics of a trajectory."""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple

import torch
from torch import Tensor

from neuralode.core.clock import per_row
from neuralode.core.dense_output import DenseOutput
from neuralode.core.outputs import save_states
from neuralode.core.problem import Problem
from neuralode.core.record import Plan
from neuralode.core.solution import Occurrences, Solution, Stats
from neuralode.core.status import reached_end
from neuralode.core.types import PyTree, UserFunction
from neuralode.engines.base import Trajectory
from neuralode.engines.retake import accepted_rows, start_and_size
from neuralode.gradients.event_times import EventTable

POINT_SIZE = 1e-100  # the size of a piece of dense output that is one point


class FoundEvents(NamedTuple):
    """The events of a solve, and the states there: [events, rows, features], or [events, features] by row."""

    table: EventTable
    states: Tensor


def split_events(
    problem: Problem, table: EventTable, leaves: list[Tensor]
) -> tuple[list[Tensor], Problem, FoundEvents]:
    """Separate the user's outputs from the events; also return the problem with the times of these outputs."""
    t = torch.cat((problem.t.reshape(-1), table.t))[table.source]
    states = leaves[0]
    if problem.per_sample:
        at_events = states[table.column.to(states.device), table.row]
        outputs, times = (
            states.gather(0, table.outputs.T[..., None].expand(-1, -1, states.shape[-1])),
            t.gather(1, table.outputs),
        )
    else:
        at_events = states[table.column.to(states.device)]
        outputs, times = states[table.outputs.to(states.device)], t[table.outputs]
    fixed = times.detach()
    problem = replace(problem, t=times, times=fixed if problem.per_sample else fixed.tolist())
    return [outputs, *leaves[1:]], problem, FoundEvents(table, at_events)


def occurrences_of(problem: Problem, count: int, found: FoundEvents | None) -> tuple[Occurrences, ...]:
    """Return the occurrences of each of ``count`` event functions."""
    if not count:
        return ()
    layout = problem.layout
    if found is None:
        times = problem.t.detach().new_zeros(0)
        y = problem.y0.detach().new_zeros((0, *problem.y0.shape[problem.per_sample :]))
        kind = row = torch.zeros(0, dtype=torch.int64, device=problem.t.device)
    else:
        y, times, kind, row = found.states, found.table.t, found.table.kind, found.table.row
    return tuple(
        Occurrences(
            times[kind == n], layout.unpack(y[(kind == n).to(y.device)]), row[kind == n] if problem.per_sample else None
        )
        for n in range(count)
    )


def make_solution(
    trajectory: Trajectory, problem: Problem, leaves: list[Tensor], *, events: tuple[Occurrences, ...]
) -> Solution:
    """Make the solution from leaves that may be differentiable, at the output times of ``problem``."""
    plan, layout, record, save = trajectory.plan, problem.layout, trajectory.record, trajectory.config.save
    dense = _dense_output(trajectory, problem, leaves.pop()) if plan.dense else None
    ts = problem.t
    if plan.save_steps:
        ts, ys = _accepted_states(trajectory, problem, leaves[0])
        ys = layout.unpack(ys)
    elif not callable(save):
        ys = layout.unpack(leaves[0])
    elif plan.save is None:
        ys = saved_after(problem, save, leaves[0])
    else:
        assert trajectory.spec is not None
        ys = trajectory.spec.unflatten(leaves)
    status = torch.as_tensor(record.status, device=layout.device).expand(layout.rows)
    return Solution(ts=ts, ys=ys, status=status, stats=_stats(trajectory, problem), events=events, dense=dense)


def _stats(trajectory: Trajectory, problem: Problem) -> Stats:
    record = trajectory.record
    evaluations = record.started + record.evaluations
    counts = (evaluations, record.accepted, record.attempts - record.accepted)
    return Stats(calls=record.calls, _rows=problem.layout.rows, _clocks=counts, _backward=(trajectory.calls,))


def saved_after(problem: Problem, save: UserFunction, ys: Tensor) -> PyTree:
    """Apply ``save`` to outputs that were kept as states; outputs that were not reached are NaN, without a gradient."""
    plan, times = Plan(save=save), problem.t.to(ys.device)
    count, rows = ys.shape[:2]
    reached = ys.detach().isfinite().all(-1) if problem.per_sample else ys.detach().isfinite().flatten(1).all(-1)
    ys = torch.where(reached[(...,) + (None,) * (ys.dim() - reached.dim())], ys, problem.y0.detach())
    if not problem.per_sample:
        saved = save_states(problem, plan, t=times, y=ys, rows=None)
        leaves = saved.leaves
    else:
        place = torch.arange(rows, device=ys.device).repeat(count)
        saved = save_states(problem, plan, t=times.T.reshape(-1), y=ys.flatten(0, 1), rows=place)
        leaves = [x.unflatten(0, (count, rows)) for x in saved.leaves]
    assert saved.spec is not None
    return saved.spec.unflatten([_blanked(x, ~reached) for x in leaves])


def _blanked(saved: Tensor, missing: Tensor) -> Tensor:
    if not (saved.is_floating_point() or saved.is_complex()):
        return saved
    return saved.masked_fill(missing[(...,) + (None,) * (saved.dim() - missing.dim())], torch.nan)


def _accepted_states(trajectory: Trajectory, problem: Problem, states: Tensor) -> tuple[Tensor, Tensor]:
    """Return times and states of y0 and of the accepted steps; rows with fewer steps repeat their last state."""
    record, reached = trajectory.record, reached_end(trajectory.record.status)
    if not problem.per_sample:
        begins = [torch.as_tensor(start_and_size(problem, batch, step, t=problem.t)[0]) for batch, step in record.steps]
        end = problem.t[-1] if reached else problem.t.detach().new_tensor(record.t)
        return torch.stack([*begins, end]), states
    rows = torch.arange(problem.layout.rows, device=states.device)
    end = torch.where(per_row(reached), problem.t[:, -1], per_row(record.t))
    table = end[:, None].expand(-1, len(states)).clone()
    for batch, step in record.steps:
        begin = per_row(start_and_size(problem, batch, step, t=problem.t)[0])[step.accept]
        table = table.index_put((accepted_rows(batch, step), step.stop - 1), begin)
    place = torch.minimum(torch.arange(len(states), device=states.device)[:, None], per_row(record.accepted))
    return table, states[place, rows]


def _dense_output(trajectory: Trajectory, problem: Problem, coefficients: Tensor) -> DenseOutput:
    """Return the pieces with their times and sizes; rows without a step get one constant piece."""
    t, instant, record = problem.t, problem.direction * POINT_SIZE, trajectory.record
    pieces = [(batch, step, *start_and_size(problem, batch, step, t=t)) for batch, step in record.steps]
    if not problem.per_sample:
        if not pieces:
            coefficients = torch.stack((problem.y0, torch.zeros_like(problem.y0)))[None]
            begins, sizes = t[:1], torch.full_like(t[:1], instant)
        else:
            begins = torch.stack([torch.as_tensor(begin) for *_, begin, _ in pieces])
            sizes = torch.stack([torch.as_tensor(h, dtype=t.dtype, device=t.device) for *_, h in pieces])
        return DenseOutput(
            layout=problem.layout, coefficients=coefficients, t=begins, h=sizes, direction=problem.direction
        )
    idle = (per_row(record.accepted) == 0).nonzero()[:, 0]
    still = torch.zeros((len(idle), *coefficients.shape[1:]), dtype=coefficients.dtype, device=coefficients.device)
    still = torch.cat((problem.y0[idle][:, None], still[:, 1:]), 1)
    return DenseOutput(
        layout=problem.layout,
        coefficients=torch.cat((coefficients, still)),
        t=torch.cat((*(per_row(begin)[step.accept] for _, step, begin, _ in pieces), t[idle, 0])),
        h=torch.cat((*(per_row(h)[step.accept] for _, step, _, h in pieces), torch.full_like(t[idle, 0], instant))),
        direction=problem.direction,
        row=torch.cat((*(accepted_rows(batch, step) for batch, step, *_ in pieces), idle)),
    )
