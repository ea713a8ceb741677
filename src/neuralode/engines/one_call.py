"""The engine of methods that are not taken step by step: one call a stretch."""

from __future__ import annotations

from neuralode.core.record import AcceptedStep, StepBatch, StepOutputs
from neuralode.core.status import Status
from neuralode.engines.base import SolveContext, SolverState, mark_finished
from neuralode.methods.base import Span


class OneCall:
    """Crosses from start to end in one call; of what happens on the way only outputs are known."""

    name = "whole"
    gradients = frozenset({"adjoint"})
    budget = 1

    def advance(self, context: SolveContext, state: SolverState, budget: int) -> tuple[SolverState, StepBatch]:
        """Go to the end."""
        state = mark_finished(context, state)
        if state.status != Status.RUNNING:
            return state, StepBatch(context.rows, [], state.y, state.t)
        inner = [mark * context.direction for mark in context.output_times]
        ends = [*inner, context.end]
        span = Span(f=context.field, t=state.t, y=state.y, ends=ends, norm=context.norm, controller=context.controller)
        states, reached_end, calls = context.method.cross(span)
        step_outputs = StepOutputs(slice(context.first_output, context.first_output + len(inner)), None)
        step = AcceptedStep(
            state.t, context.end - state.t, True, None, inner=states[:-1], step_outputs=step_outputs if inner else None
        )
        failed = Status.STEP_UNDERFLOW if states.isfinite().all() else Status.NONFINITE
        following = state._replace(
            t=context.end if reached_end else state.t,
            y=states[-1] if reached_end else state.y,
            status=Status.RUNNING if reached_end else failed,
            attempts=state.attempts + 1,
            accepted=state.accepted + reached_end,
            cost=state.cost + calls,
            calls=state.calls + calls,
        )
        return mark_finished(context, following), StepBatch(context.rows, [step], following.y, following.t)
