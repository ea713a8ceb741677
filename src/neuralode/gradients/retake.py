"""Take recorded steps again, to differentiate them."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils._pytree import tree_map

from neuralode.autodiff.transforms import followed
from neuralode.core.clock import some
from neuralode.core.dense_output import interpolate_outputs
from neuralode.core.outputs import global_place, save_state
from neuralode.core.problem import Problem
from neuralode.core.record import AcceptedStep, Plan, StepBatch
from neuralode.core.status import reached_end
from neuralode.gradients.base import Solved
from neuralode.methods.base import StepStart


def clocks(problem: Problem, step: AcceptedStep, rows: Tensor | None, t: Tensor | None) -> tuple[Any, Any]:
    """When a step begins and how long it is, as functions of the ends in ``t`` (as constants without it).

    ``t_{n+1} = t_n + h_n`` from the start, with h_n constant, but for the step that lands: ``h = end − t_n``. Stops are
    constants: there ``h = stop − t_n``, and what follows counts from the stop.
    """
    if t is None:
        return step.t, step.h
    if not problem.per_sample:
        begin = t.new_tensor(step.t) if step.past_stop else t[0] + (step.t - problem.start)
        if step.ends_at_stop and not step.past_stop:
            return begin, step.t + step.h - begin
        return begin, t[-1] - begin if step.reaches_end else step.h
    first, last = t[:, 0], t[:, -1]
    if rows is not None:
        first, last = first[rows], last[rows]
    begin = first + (step.t - first.detach())
    if isinstance(step.past_stop, Tensor):
        begin = torch.where(step.past_stop, step.t, begin)
    h = torch.where(step.reaches_end & step.accept, last - begin, step.h)
    if isinstance(step.ends_at_stop, Tensor):
        h = torch.where(step.ends_at_stop & step.accept, step.t + step.h - begin, h)
    return begin, h


class RetakenStep(NamedTuple):
    """A recorded step taken again."""

    y1: Tensor
    out: list[Tensor]  # what it puts out, in the order of `places`
    method_state: Any  # for the next step, of a method with memory


def retake(
    solved: Solved,
    field: Any,
    step_batch: StepBatch,
    step: AcceptedStep,
    y: Tensor,
    t: Tensor | None,
    method_state: Any,
    derivatives: int = 1,
) -> RetakenStep:
    """One recorded step from y, to be differentiated so many times."""
    plan, problem = solved.plan, solved.problem
    begin, h = clocks(problem, step, step_batch.rows, t)
    method, by_number = solved.method, t is None and not problem.per_sample
    if step.edges is not None:
        field = field.within(step.t, *step.edges)
    start = StepStart(field, begin, y, h=h, method_state=method_state)
    y1, stages, following = method.retake(
        start, dense=step.step_outputs is not None or plan.dense, derivatives=derivatives
    )
    coefficients: Any = None
    if plan.dense or (step.step_outputs is not None and not by_number):
        coefficients = method.interpolant(start, stages)
    if step.accept is not None:
        y1 = torch.where(step.accept[:, None], y1, y)
    out: list[Tensor] = []
    if step.step_outputs is not None:
        times = (problem.t.detach() if t is None else t).to(y.device)
        times = times if step_batch.rows is None else times[step_batch.rows]
        which = (
            step.step_outputs.outputs
            if step.step_outputs.rows is None
            else (step.step_outputs.rows, step.step_outputs.outputs)
        )
        if by_number:
            read = method.interpolate(start, stages, step.step_outputs.thetas)
        else:
            read = interpolate_outputs(step, coefficients, begin, h, times)
        out += save_state(problem, plan, times[which], read, global_place(step_batch, step.step_outputs)[1])[0]
    if plan.steps:
        out.append(y1 if step.accept is None else y1[step.accept])
    if plan.dense:
        out.append(coefficients if step.accept is None else coefficients[:, step.accept].transpose(0, 1))
    ends_at_jump = step.edges is not None and some(step.edges[2])
    return RetakenStep(y1, out, None if ends_at_jump else following)


def places(solved: Solved, step_batch: StepBatch, step: AcceptedStep) -> list[tuple[int, tuple]]:
    """Where among the leaves each thing that `retake` puts out belongs: (leaf, index)."""
    plan, count = solved.plan, len(solved.leaves)
    found: list[tuple[int, tuple]] = []
    if step.step_outputs is not None:
        outputs, rows = global_place(step_batch, step.step_outputs)
        where = (outputs,) if rows is None else (outputs, rows)
        found += [(leaf, where) for leaf in range(count - plan.dense)]
    if plan.steps:
        found.append((0, (step.stop,) if step.accept is None else (step.stop, _accepted(step_batch, step))))
    if plan.dense:
        found.append((count - 1, (step.piece,)))
    return found


def _accepted(step_batch: StepBatch, step: AcceptedStep) -> Tensor:
    local = step.accept.nonzero()[:, 0]
    return local if step_batch.rows is None else step_batch.rows[local]


def outputs_at_end(solved: Solved) -> Tensor:
    """The outputs that are the final state: [outputs], or [outputs, rows] per sample (rows that arrived)."""
    mask, there = solved.problem.at_end(), reached_end(solved.record.status)
    return (mask & there[:, None]).T if solved.problem.per_sample else mask & there


def outputs_at_start(solved: Solved) -> Tensor:
    """The outputs that are y0 itself, laid out alike."""
    mask = solved.problem.at_start()
    return mask.T if solved.problem.per_sample else mask


def rerun(solved: Solved) -> list[Tensor]:
    """Take exactly the recorded steps again, all with one graph; returns the leaves."""
    problem, plan = solved.problem, solved.plan
    t = problem.t if followed(problem.t) else None
    y = problem.y0
    parts: list[list[tuple[tuple, Tensor]]] = [[] for _ in solved.leaves]

    def put(where: Tensor, state: Tensor) -> None:
        place = where.nonzero(as_tuple=True)
        if not len(place[0]):
            return
        times = problem.t.to(state.device)
        own = times[place] if not problem.per_sample else times[place[1], place[0]]
        states = state.expand(len(place[0]), *state.shape) if not problem.per_sample else state[place[1]]
        kept, _ = save_state(problem, plan, own, states, place[1] if problem.per_sample else None)
        for leaf, x in enumerate(kept):
            parts[leaf].append((place, x))

    if plan.steps:
        first = (0,) if not problem.per_sample else (torch.zeros(len(y), dtype=torch.int64), torch.arange(len(y)))
        parts[0].append((first, y))
    else:
        put(outputs_at_start(solved), y)
    method_state, rows = None, None
    for step_batch in solved.record.step_batches:
        field = problem.field if step_batch.rows is None else problem.field.take(step_batch.rows)
        own = y if step_batch.rows is None else y[step_batch.rows]
        if step_batch.rows is not None and method_state is not None:
            kept = step_batch.rows if rows is None else torch.searchsorted(rows, step_batch.rows)
            method_state = tree_map(lambda x, kept=kept: x[kept] if isinstance(x, Tensor) else x, method_state)
        rows = step_batch.rows
        for step in step_batch.steps:
            again = retake(solved, field, step_batch, step, own, t, method_state, derivatives=2)
            own, method_state = again.y1, again.method_state
            for (leaf, where), x in zip(places(solved, step_batch, step), again.out, strict=True):
                parts[leaf].append((where, x))
        y = own if step_batch.rows is None else y.index_copy(0, step_batch.rows, own)
    if not plan.steps:
        put(outputs_at_end(solved), y)
    return [_place(leaf, part, plan) for leaf, part in zip(solved.leaves, parts, strict=True)]


def _place(like: Tensor, parts: list[tuple[tuple, Tensor]], plan: Plan) -> Tensor:
    """Write all parts into a leaf at once."""
    if not parts:
        return like
    index: list[list[Tensor]] = [[] for _ in parts[0][0]]
    values = []
    for where, x in parts:
        whole = [_indices(w, len(like), like.device) for w in where]
        values.append(x[None] if isinstance(where[0], int) else x)
        for axis, w in zip(index, whole, strict=True):
            axis.append(w)
    blank = like.detach().clone()
    return blank.index_put(tuple(torch.cat(axis) for axis in index), torch.cat(values).to(like.dtype))


def _indices(where: Any, length: int, device: torch.device) -> Tensor:
    if isinstance(where, slice):
        return torch.arange(*where.indices(length), device=device)
    return torch.as_tensor(where, device=device).reshape(-1)
