"""The engine of methods that cross the whole span in one call, such as SciPy's solvers."""

from __future__ import annotations

from typing import cast

import torch

from neuralode.core.clock import host
from neuralode.core.problem import Problem
from neuralode.core.record import AcceptedStep, Plan, StepBatch, StepOutputs
from neuralode.core.status import NONFINITE, RUNNING, STEP_UNDERFLOW, SUCCESS
from neuralode.engines.base import SolveConfig, SolveContext, SolverState
from neuralode.engines.loop import solve_loop
from neuralode.engines.trajectory import RecordedTrajectory
from neuralode.methods.base import OneCallMethod, Span


class OneCall:
    """Calls the method once. Of what happens within the span only the outputs are known."""

    name = "one call"

    def supports(self, problem: Problem, config: SolveConfig, plan: Plan) -> str | None:
        """Support outputs at given times, and gradients that need no steps."""
        method = config.method
        if not method.one_call:
            return f"method {method.name!r} is taken step by step; wanted engine='eager'."
        if problem.per_sample:
            return f"method {method.name!r} has one clock for all rows; wanted per_sample=False, or another method."
        if plan.keeps_steps:
            return (
                f"method {method.name!r} has no gradient {config.gradient.name!r}; wanted gradient='adjoint', or "
                "torch.no_grad()."
            )
        return None

    def integrate(self, problem: Problem, config: SolveConfig, plan: Plan) -> RecordedTrajectory:
        """Solve by one call of the method."""
        record, outputs = solve_loop(self, problem, config, plan=plan)
        return RecordedTrajectory.of(record, outputs, config)

    def advance(self, context: SolveContext, state: SolverState, budget: int) -> tuple[SolverState, StepBatch]:
        """Go to the end."""
        if state.status != RUNNING:
            return state, StepBatch(rows=context.rows, steps=[], end=state.y, t=state.t)
        inner = [time * context.direction for time in context.output_times.ahead]
        t, end = host(state.t), host(context.end)
        config = context.config
        span = Span(
            f=context.field, t=t, y=state.y, ends=[*inner, end], norm=context.norm, controller=config.controller
        )
        crossed = cast(OneCallMethod, config.method).cross(span)
        states, succeeded = crossed.states, crossed.succeeded
        within = StepOutputs(slice(context.output_times.first, context.output_times.first + len(inner)), None)
        step = AcceptedStep(
            t=t, h=end - t, reaches_end=True, accept=None, inner=states[:-1], step_outputs=within if inner else None
        )
        failed = STEP_UNDERFLOW if bool(torch.isfinite(states).all()) else NONFINITE
        following = state._replace(
            t=end if succeeded else t,
            y=states[-1] if succeeded else state.y,
            status=SUCCESS if succeeded else failed,
            attempts=state.attempts + 1,
            accepted=state.accepted + succeeded,
            loop_attempts=state.loop_attempts + 1,
            evaluations=state.evaluations + crossed.calls,
            calls=state.calls + crossed.calls,
        )
        return following, StepBatch(rows=context.rows, steps=[step], end=following.y, t=following.t)
