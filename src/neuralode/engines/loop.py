"""The march: chunk after chunk until every clock has arrived; progress, limits, rows that are done."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from neuralode.controllers import NOWHERE, Stops
from neuralode.controllers.initial_step import first_step
from neuralode.core import clock
from neuralode.core.clock import where
from neuralode.core.dense_output import find_step_outputs
from neuralode.core.norms import Norm
from neuralode.core.outputs import Outputs
from neuralode.core.problem import Problem
from neuralode.core.record import Occurrence, Plan, Record, StepBatch
from neuralode.core.status import Status
from neuralode.engines.base import SolveContext, SolverState, mark_finished
from neuralode.engines.finished_rows import rows_are_independent, write_back
from neuralode.inputs.events import Event


def solve_loop(
    problem: Problem,
    f0: Tensor,
    plan: Plan,
    method: Any,
    controller: Any,
    norm: Norm,
    engine: Any,
    max_steps: int,
    on_progress: Callable[[float], None] | None = None,
    on_batch: Callable[[StepBatch], None] | None = None,
    stops: Stops = NOWHERE,
    events: tuple[Event, ...] = (),
    observer: Any = None,
) -> tuple[Record, Outputs]:
    """Solve without a graph; ``f0`` is f at the start, ``on_progress`` is told the fraction done.

    ``on_batch`` receives every batch of steps instead of the record. Returns the record of steps and of where each row
    ended, and the outputs.
    """
    context, state, record = begin(problem, f0, plan, method, controller, norm, max_steps)
    values = tuple(event.value(problem.field, state.t, state.y) for event in events)
    context, state = context._replace(events=events, observer=observer), state._replace(values=values)
    context, state = with_stops(context, state, stops)
    outputs = Outputs(problem, plan)
    if not plan.steps:
        outputs.start(problem.y0.detach())
    may_drop: bool | None = None

    while clock.some(state.status == Status.RUNNING):
        calls = state.calls
        state, step_batch = engine.advance(context, state, engine.budget)
        record.calls += state.calls - calls
        record.occurrences += [_of_all(met, step_batch.rows) for met in step_batch.occurrences]
        if isinstance(problem.times, Tensor) and plan.inside:
            step_batch = find_step_outputs(step_batch, problem.times, problem.direction, state.t)
        outputs.read(step_batch)
        if on_batch is not None:
            on_batch(step_batch)
        elif plan.replay or plan.steps or plan.dense:
            record.add(step_batch, plan)
        if on_progress is not None:
            on_progress(_fraction(problem, context, state))
        if problem.per_sample and may_drop is not False:
            running = state.status == Status.RUNNING
            if 0 < 2 * int(running.sum()) <= len(running):
                left = running.nonzero()[:, 0]
                if may_drop is None:
                    may_drop = rows_are_independent(context, state, left)
                    record.calls += 2
                if may_drop:
                    write_back(record, context, state)
                    context, state = context.take(left), state.take(left)
    write_back(record, context, state)
    _overflow(record)
    _warn_of_resolution(problem, record)
    if not plan.steps:
        outputs.end(record.y, record.status == Status.SUCCESS)
    return record, outputs


def _of_all(met: Occurrence, rows: Tensor | None) -> Occurrence:
    """An occurrence on some rows, as one on these rows of the whole."""
    return met if rows is None else met._replace(rows=rows[met.rows])


def begin(
    problem: Problem, f0: Tensor, plan: Plan, method: Any, controller: Any, norm: Norm, max_steps: int
) -> tuple[SolveContext, SolverState, Record]:
    """Where the march starts: the first step size, and the rows that cannot start at all."""
    t0, t1 = problem.start, problem.end
    zero = torch.zeros_like(t0, dtype=torch.int64) if isinstance(t0, Tensor) else 0
    y0 = problem.y0.detach()
    if problem.per_sample:
        finite = y0.isfinite().all(1) & f0.isfinite().all(1)
        status = torch.where(finite, Status.RUNNING, Status.NONFINITE)
        if not bool(finite.all()) and bool(finite.any()):
            # what is masked is computed all the same: let it be with the numbers of a healthy row
            stand_in = int(finite.nonzero()[0])
            y0 = torch.where(finite[:, None], y0, y0[stand_in])
            f0 = torch.where(finite[:, None], f0, f0[stand_in])
    else:
        status = Status.RUNNING if _finite(y0) and _finite(f0) else Status.NONFINITE
    record = Record(y=y0, t=t0, status=status, accepted=zero, attempts=zero, cost=zero)
    output_times, first = [], 0
    if plan.inside and isinstance(problem.times, list):
        output_times, first = [t * problem.direction for t in problem.times[problem.inner]], problem.inner.start
    context = SolveContext(
        problem.field, method, controller, norm, plan, t1, problem.direction, max_steps, output_times, first
    )
    h, calls = clock.maximum(abs(t1 - t0), 0.0), 0
    if controller.adaptive and problem.layout.rows and clock.some((status == Status.RUNNING) & (t0 != t1)):
        h, calls = first_step(problem, controller=controller, norm=norm, order=method.error_order + 1, y0=y0, f0=f0)
    record.calls = record.started = 1 + calls
    record.h = h
    if not problem.layout.rows:
        t0 = t1  # nothing to step: f was called for its shape
    history = controller.start(t0, t1)
    state = SolverState(t0, h, y0, method.begin(f0), history, status, zero, zero, zero != 0, zero)
    return context, mark_finished(context, state), record


def with_stops(context: SolveContext, state: SolverState, stops: Stops) -> tuple[SolveContext, SolverState]:
    """The same where steps are to end at stops."""
    if stops:
        past_jump = stops.begin(state.t)
        # at a jump f0 is of neither side
        state = state._replace(past_jump=past_jump, method_state=None if clock.some(past_jump) else state.method_state)
    return context._replace(stops=stops), state


def _overflow(record: Record) -> None:
    """A sum of finite stages can still overflow: that is no success."""
    if isinstance(record.status, Tensor):
        finite = record.y.isfinite().all(1)
        record.status = torch.where(finite | (record.status != Status.SUCCESS), record.status, Status.NONFINITE)
    elif record.status == Status.SUCCESS and not _finite(record.y):
        record.status = Status.NONFINITE


def _finite(y: Tensor) -> bool:
    return not y.numel() or math.isfinite(torch.linalg.vector_norm(y, torch.inf))


def _warn_of_resolution(problem: Problem, record: Record) -> None:
    """The steps were so short that t, as f is given it, stood still."""
    eps = torch.finfo(problem.field.time_dtype).eps
    if eps <= clock.EPS:
        return
    end = where(clock.isfinite(problem.end), problem.end, record.t)
    largest = clock.maximum(abs(problem.start), abs(end)) if problem.layout.rows else 0.0
    still = (record.accepted > 0) & (abs(record.t - problem.start) < eps * largest * record.accepted)
    if clock.some(still):
        warnings.warn(
            f"steps are shorter than {problem.field.time_dtype} resolves in t, in which f is given it: shift t towards "
            "0, or use a float64 state.",
            stacklevel=5,
        )


def _fraction(problem: Problem, context: SolveContext, state: SolverState) -> float:
    """How far the slowest clock has come, from 0 to 1."""
    start = problem.start if context.rows is None else problem.start[context.rows]
    span = context.end - start
    if isinstance(span, Tensor):
        return float(torch.where(span == 0, 1.0, (state.t - start) / span).min()) if len(span) else 1.0
    return (state.t - start) / span if span else 1.0
