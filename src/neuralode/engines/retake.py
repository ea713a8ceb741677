"""Take recorded steps again, with a graph where gradients are enabled."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils._pytree import tree_map

from neuralode.autodiff.checkpointing import Checkpointed
from neuralode.autodiff.transforms import followed
from neuralode.core.clock import Number, per_row, some
from neuralode.core.field import Field
from neuralode.core.outputs import OutputIndex, save_states
from neuralode.core.problem import Problem
from neuralode.core.record import AcceptedStep, StepBatch
from neuralode.core.status import reached_end
from neuralode.core.step_outputs import interpolate_outputs
from neuralode.engines.base import TrajectoryData
from neuralode.engines.grid import GridStep, take_step
from neuralode.methods.base import MethodState


class RetakenStep(NamedTuple):
    """A recorded step taken again."""

    y1: Tensor
    leaves: list[Tensor]  # its outputs, in the order of `places`
    method_state: Any  # for the next step, of a method with memory


def start_and_size(
    problem: Problem, batch: StepBatch, step: AcceptedStep, *, t: Tensor | None
) -> tuple[Number, Number]:
    """Return when a step begins and its signed size, as functions of the ends of ``t`` (constants if None).

    ``t_{n+1} = t_n + h_n`` from the start, with h_n constant, but ``h = end − t_n`` for the step that reaches the end.
    Stops are constants: ``h = stop − t_n`` there, and later times count from the stop.
    """
    if t is None:
        return step.t, step.h
    if not problem.per_sample:
        begin = t.new_tensor(step.t) if step.past_stop else t[0] + (step.t - problem.start)
        if step.ends_at_stop and not step.past_stop:
            return begin, step.t + step.h - begin
        return begin, t[-1] - begin if step.reaches_end else step.h
    first, last = t[:, 0], t[:, -1]
    if batch.rows is not None:
        first, last = first[batch.rows], last[batch.rows]
    begin = first + (step.t - first.detach())
    if isinstance(step.past_stop, Tensor):
        begin = torch.where(step.past_stop, per_row(step.t), begin)
    accept = per_row(step.accept)
    h = torch.where(accept & step.reaches_end, last - begin, per_row(step.h))
    if isinstance(step.ends_at_stop, Tensor):
        h = torch.where(accept & step.ends_at_stop, step.t + step.h - begin, h)
    return begin, h


def retake(
    trajectory: TrajectoryData,
    batch: StepBatch,
    step: AcceptedStep,
    *,
    field: Field | Checkpointed,
    y: Tensor,
    t: Tensor | None,
    method_state: MethodState | None,
    derivatives: int = 1,
) -> RetakenStep:
    """Take one recorded step of the rows of ``batch`` from y, to be differentiated ``derivatives`` times."""
    plan, problem, within = trajectory.plan, trajectory.problem, step.step_outputs
    begin, h = start_and_size(problem, batch, step, t=t)
    by_theta = within is not None and t is None and not problem.per_sample
    grid_step = GridStep(
        t=begin,
        h=h,
        accept=step.accept,
        edges=step.edges,
        thetas=within.thetas if within is not None and by_theta else (),
        dense=plan.dense or (within is not None and not by_theta),
        restart=step.edges is not None and some(step.edges.jump_after),
    )
    result = take_step(
        field, y, grid_step, method=trajectory.config.method, method_state=method_state, derivatives=derivatives
    )
    y1, coefficients = result.y1, result.coefficients
    leaves: list[Tensor] = []
    if within is not None:
        times = (problem.t.detach() if t is None else t).to(y.device)
        times = times if batch.rows is None else times[batch.rows]
        states = result.states
        if states is None:
            assert coefficients is not None
            states = interpolate_outputs(step, coefficients, t=begin, h=h, times=times)
        own, rows = OutputIndex(within.outputs, within.rows).times(times), OutputIndex.of(batch, within).rows
        leaves += save_states(problem, plan, t=own, y=states, rows=rows).leaves
    if plan.save_steps:
        leaves.append(y1 if step.accept is None else y1[step.accept])
    if plan.dense:
        assert coefficients is not None
        leaves.append(coefficients if step.accept is None else coefficients[:, step.accept].transpose(0, 1))
    return RetakenStep(y1, leaves, result.method_state)


def places(trajectory: TrajectoryData, batch: StepBatch, step: AcceptedStep) -> list[tuple[int, tuple]]:
    """Return where the outputs of a step belong: (leaf, index) for each."""
    plan, count = trajectory.plan, len(trajectory.leaves)
    found: list[tuple[int, tuple]] = []
    if step.step_outputs is not None:
        place = OutputIndex.of(batch, step.step_outputs).place
        found += [(leaf, place) for leaf in range(count - plan.dense)]
    if plan.save_steps:
        found.append((0, (step.stop,) if step.accept is None else (step.stop, accepted_rows(batch, step))))
    if plan.dense:
        found.append((count - 1, (step.piece,)))
    return found


def accepted_rows(batch: StepBatch, step: AcceptedStep) -> Tensor:
    """Return the rows that accepted a step, counted among all rows."""
    assert step.accept is not None, "a clock for each row"
    rows = step.accept.nonzero()[:, 0]
    return rows if batch.rows is None else batch.rows[rows]


def outputs_at_end(trajectory: TrajectoryData) -> Tensor:
    """Return which outputs are the final state: [outputs], or [outputs, rows] for rows that reached their end."""
    mask, there = trajectory.problem.at_end(), reached_end(trajectory.record.status)
    return (mask & per_row(there)[:, None]).T if trajectory.problem.per_sample else mask & there


def outputs_at_start(trajectory: TrajectoryData) -> Tensor:
    """Return which outputs are y0 itself, in the same shape."""
    mask = trajectory.problem.at_start()
    return mask.T if trajectory.problem.per_sample else mask


def rerun(trajectory: TrajectoryData) -> list[Tensor]:
    """Take exactly the recorded steps again, all with one graph; return the leaves."""
    problem, plan = trajectory.problem, trajectory.plan
    t = problem.t if followed(problem.t) else None
    y, method_state, rows = problem.y0, None, None
    collected = _Leaves(trajectory)
    if plan.save_steps:
        first = (0,) if not problem.per_sample else (torch.zeros(len(y), dtype=torch.int64), torch.arange(len(y)))
        collected.put(0, first, y)
    else:
        collected.put_states(outputs_at_start(trajectory), y)
    for batch in trajectory.record.step_batches:
        field = problem.field if batch.rows is None else problem.field.take(batch.rows)
        own = y if batch.rows is None else y[batch.rows]
        if batch.rows is not None and method_state is not None:
            kept = batch.rows if rows is None else torch.searchsorted(rows, batch.rows)
            method_state = tree_map(lambda x, kept=kept: x[kept] if isinstance(x, Tensor) else x, method_state)
        rows = batch.rows
        for step in batch.steps:
            again = retake(trajectory, batch, step, field=field, y=own, t=t, method_state=method_state, derivatives=2)
            own, method_state = again.y1, again.method_state
            for (leaf, place), x in zip(places(trajectory, batch, step), again.leaves, strict=True):
                collected.put(leaf, place, x)
        y = own if batch.rows is None else y.index_copy(0, batch.rows, own)
    if not plan.save_steps:
        collected.put_states(outputs_at_end(trajectory), y)
    return collected.leaves()


class _Leaves:
    """The leaves of a trajectory, collected part by part and written at once."""

    def __init__(self, trajectory: TrajectoryData) -> None:
        self.trajectory = trajectory
        self.parts: list[list[tuple[tuple, Tensor]]] = [[] for _ in trajectory.leaves]

    def put(self, leaf: int, place: tuple, x: Tensor) -> None:
        """Collect one part of a leaf."""
        self.parts[leaf].append((place, x))

    def put_states(self, chosen: Tensor, state: Tensor) -> None:
        """Collect the outputs that are one state."""
        problem, plan = self.trajectory.problem, self.trajectory.plan
        place = chosen.nonzero(as_tuple=True)
        if not len(place[0]):
            return
        index = OutputIndex(*place)
        times = index.times(problem.t.to(state.device))
        states = state.expand(len(place[0]), *state.shape) if index.rows is None else state[index.rows]
        for leaf, x in enumerate(save_states(problem, plan, t=times, y=states, rows=index.rows).leaves):
            self.put(leaf, place, x)

    def leaves(self) -> list[Tensor]:
        """Return the leaves with their graphs."""
        return [_write(like, parts) for like, parts in zip(self.trajectory.leaves, self.parts, strict=True)]


def _write(like: Tensor, parts: list[tuple[tuple, Tensor]]) -> Tensor:
    """Write all parts into a leaf by one operation."""
    if not parts:
        return like
    index: list[list[Tensor]] = [[] for _ in parts[0][0]]
    values = []
    for place, x in parts:
        values.append(x[None] if isinstance(place[0], int) else x)
        for axis, along in zip(index, place, strict=True):
            axis.append(_indices(along, len(like), like.device))
    blank = like.detach().clone()
    return blank.index_put(tuple(torch.cat(axis) for axis in index), torch.cat(values).to(like.dtype))


def _indices(along: int | slice | Tensor, length: int, device: torch.device) -> Tensor:
    if isinstance(along, slice):
        return torch.arange(*along.indices(length), device=device)
    return torch.as_tensor(along, device=device).reshape(-1)
