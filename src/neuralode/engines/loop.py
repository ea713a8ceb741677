"""The solve loop of step-wise engines: batch after batch of steps until every clock has reached its end."""

from __future__ import annotations

import math
import warnings
from typing import NamedTuple

import torch
from torch import Tensor

from neuralode.controllers.base import SolveStart
from neuralode.core import clock
from neuralode.core.clock import Number, per_row, where
from neuralode.core.outputs import Outputs
from neuralode.core.problem import Problem
from neuralode.core.record import Occurrence, Plan, Record
from neuralode.core.status import NONFINITE, RUNNING, SUCCESS
from neuralode.core.step_outputs import OutputTimes, assign_outputs
from neuralode.engines.base import SolveConfig, SolveContext, SolverState, StepwiseEngine
from neuralode.engines.finished_rows import can_drop_others, rows_to_keep, write_back

BUDGET = 8  # attempts between two looks at rows that have finished


class LoopStart(NamedTuple):
    """The context, state and record at the start of a loop."""

    context: SolveContext
    state: SolverState
    record: Record


def solve_loop(engine: StepwiseEngine, problem: Problem, config: SolveConfig, *, plan: Plan) -> tuple[Record, Outputs]:
    """Solve without a graph; return where each row ended, the steps that the plan keeps, and the outputs."""
    context, state, record = start_loop(problem, config, plan)
    outputs = Outputs(problem, plan)
    if not plan.save_steps:
        outputs.write_start(problem.y0.detach())
    may_drop: bool | None = None

    while clock.some(state.status == RUNNING):
        calls = state.calls
        state, batch = engine.advance(context, state, BUDGET)
        record.calls += state.calls - calls
        record.occurrences += [_in_all_rows(found, batch.rows) for found in batch.occurrences]
        if problem.per_sample and plan.inner_outputs:
            batch = assign_outputs(batch, problem)
        outputs.write_batch(batch)
        if plan.on_batch is not None:
            plan.on_batch(batch)
        elif plan.keeps_steps:
            record.add(batch, plan)
        if config.on_progress is not None:
            config.on_progress(_fraction(problem, context, state))
        if problem.per_sample and may_drop is not False:
            rows = rows_to_keep(state)
            if rows is None:
                continue
            if may_drop is None:
                may_drop = can_drop_others(context, state, rows)
                record.calls += 2
            if may_drop:
                write_back(record, context, state)
                context, state = context.take(rows), state.take(rows)
    write_back(record, context, state)
    _fail_on_overflow(record)
    _warn_of_resolution(problem, record)
    if not plan.save_steps:
        outputs.write_end(record.y, record.status == SUCCESS)
    return record, outputs


def _in_all_rows(found: Occurrence, rows: Tensor | None) -> Occurrence:
    """Return an occurrence with its rows counted among all rows of the problem."""
    return found if rows is None else found._replace(rows=rows[found.rows])


def start_loop(problem: Problem, config: SolveConfig, plan: Plan) -> LoopStart:
    """Return the state before the first attempt: its size is chosen, and rows that cannot start have failed."""
    method, controller, stops = config.method, config.controller, config.stops
    t0, t1 = problem.start, problem.end
    zero = torch.zeros_like(t0, dtype=torch.int64) if isinstance(t0, Tensor) else 0
    y0, f0, status = _finite_start(problem)
    h, calls = clock.maximum(abs(t1 - t0), 0.0), 0
    if controller.adaptive and problem.layout.rows and clock.some((status == RUNNING) & (t0 != t1)):
        start = SolveStart(problem=problem, norm=config.norm, order=method.error_order + 1, y0=y0, f0=f0)
        h, calls = controller.initial_step(start)
    record = Record(
        y=y0, t=t0, h=h, status=status, attempts=zero, accepted=zero, evaluations=zero, calls=1 + calls,
        started=1 + calls,
    )  # fmt: skip
    if not problem.layout.rows:
        t0 = t1  # No rows, nothing to step: f was called for its shape.
    method_state, past_jump = method.begin(f0), False
    if stops:
        past_jump = stops.jumps_at(t0)
        method_state = None if clock.some(past_jump) else method_state  # at a jump f0 belongs to neither side
    context = SolveContext(
        config=config, plan=plan, field=problem.field, norm=config.norm, stops=stops, end=t1,
        direction=problem.direction, output_times=OutputTimes.of(problem) if plan.inner_outputs else OutputTimes(),
    )  # fmt: skip
    state = SolverState(
        t=t0, h=h, y=y0, method_state=method_state, history=controller.start(t0, t1),
        status=where((t0 == t1) & (status == RUNNING), SUCCESS, status), attempts=zero, accepted=zero,
        evaluations=zero, past_jump=past_jump,
        event_values=tuple(event.value(problem.field, t0, y0) for event in config.events),
    )  # fmt: skip
    return LoopStart(context, state, record)


def _finite_start(problem: Problem) -> tuple[Tensor, Tensor, int | Tensor]:
    """Return y0, f0 and the status of each clock; masked rows that are not finite get the numbers of a finite row."""
    y0, f0 = problem.y0.detach(), problem.initial_slope()
    if not problem.per_sample:
        return y0, f0, RUNNING if _finite(y0) and _finite(f0) else NONFINITE
    finite = y0.isfinite().all(1) & f0.isfinite().all(1)
    status = torch.where(finite, RUNNING, NONFINITE)
    if not bool(finite.all()) and bool(finite.any()):
        healthy = int(finite.nonzero()[0])
        y0 = torch.where(finite[:, None], y0, y0[healthy])
        f0 = torch.where(finite[:, None], f0, f0[healthy])
    return y0, f0, status


def _fail_on_overflow(record: Record) -> None:
    """Mark rows whose final state is not finite: a sum of finite stages can still overflow."""
    if isinstance(record.status, Tensor):
        finite = record.y.isfinite().all(1)
        record.status = torch.where(finite | (record.status != SUCCESS), record.status, NONFINITE)
    elif record.status == SUCCESS and not _finite(record.y):
        record.status = NONFINITE


def _finite(y: Tensor) -> bool:
    return not y.numel() or math.isfinite(torch.linalg.vector_norm(y, torch.inf))


def _warn_of_resolution(problem: Problem, record: Record) -> None:
    """Warn where steps were so short that t, in the dtype that f receives, did not change."""
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
            stacklevel=6,
        )


def _fraction(problem: Problem, context: SolveContext, state: SolverState) -> float:
    """Return the fraction of the span that the slowest clock has covered."""
    start: Number = problem.start if context.rows is None else per_row(problem.start)[context.rows]
    span = context.end - start
    if isinstance(span, Tensor):
        return float(torch.where(span == 0, 1.0, (state.t - start) / span).min()) if len(span) else 1.0
    return clock.host((state.t - start) / span) if span else 1.0
