"""One attempt at a step on every running clock: what all step-wise engines share.

Propose where the step ends, take it, measure its error, decide, advance. Written on clock numbers (see
`neuralode.core.clock`): the same code serves a shared clock, whose numbers are Python numbers, and per-row clocks.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from neuralode.controllers.base import AttemptOutcome, StepProposal, StepRequest
from neuralode.core.clock import EPS, Flag, Number, both, choose, host, isfinite, negate, number, some, where
from neuralode.core.record import AcceptedStep, Occurrence, StepEdges
from neuralode.core.status import EVENT, MAX_STEPS, NONFINITE, RUNNING, STEP_UNDERFLOW, SUCCESS
from neuralode.engines.base import SolveContext, SolverState
from neuralode.engines.event_location import LocatedEvents, locate_events
from neuralode.methods.base import Step, StepStart

UNDERFLOW = 16 * EPS  # relative to t: a smaller step does not move t reliably


class Attempt(NamedTuple):
    """The result of one attempt: the step and the events on it.

    ``step`` is None only if a shared clock rejected it; with per-row clocks its ``accept`` marks the rows that took it.

    ``size`` is max|y1| of a fixed step on a shared clock, not yet copied to the host: a batch checks all of its steps
    at once.
    """

    step: AcceptedStep | None = None
    size: Tensor | None = None
    occurrences: tuple[Occurrence, ...] = ()


class StepTarget(NamedTuple):
    """The step that is attempted next, and what is known of its ends."""

    proposal: StepProposal
    ends_at_stop: Flag = False
    jump: Flag = False  # f jumps at its end
    edges: StepEdges | None = None  # None: f is continuous at both ends

    def cut_by_event(self, located: LocatedEvents) -> StepTarget:
        """Return the target where events have ended the step on some clocks."""
        proposal, goes_on, edges = located.proposal, negate(located.ended), self.edges
        if edges is not None:
            edges = StepEdges(proposal.t1, edges.jump_before, edges.jump_after & goes_on)
        return StepTarget(
            proposal=proposal, ends_at_stop=self.ends_at_stop & goes_on, jump=self.jump & goes_on, edges=edges
        )


class Measured(NamedTuple):
    """What is known of the result of a step: its error ratio where steps adapt, otherwise whether it is finite."""

    ratio: Number | None = None
    sound: Flag = True
    size: Tensor | None = None  # the norm of the new state, to be checked later


def attempt(context: SolveContext, state: SolverState, running: Flag) -> tuple[SolverState, Attempt]:
    """Attempt one step on every running clock; ``running`` is True where all clocks run."""
    config, observer = context.config, context.config.observer
    target = next_target(context, state)
    start = step_start(context, state, target, running=running)
    if observer is not None:
        observer.attempted(state.t, state.y, start.h)
    step = config.method.step(start, context.error_norm)
    measured = measure(context, state, step)
    outcome = AttemptOutcome(
        ratio=measured.ratio,
        h=abs(start.h),
        planned=state.h,
        clipped=target.proposal.clipped,
        order=config.method.error_order + 1,
    )
    decision = config.controller.decide(outcome, state.history)
    accept = both(both(both(decision.accept, running), measured.sound), step.ok)
    if observer is not None:
        (observer.accepted if some(accept) else observer.rejected)(state.t, state.y, start.h)
    values, occurrences, arrival = state.event_values, (), SUCCESS
    if config.events and some(accept):
        located = locate_events(context, state, start, step=step, proposal=target.proposal, accept=accept)
        step, values, occurrences = located.step, located.values, located.occurrences
        start, target = start._replace(h=located.proposal.h), target.cut_by_event(located)
        arrival = where(located.ended, EVENT, SUCCESS)
    proposal, status = target.proposal, state.status
    if measured.sound is not True:
        status = where(both(running, negate(measured.sound)), NONFINITE, status)
    # Constructed, not `_replace`d: that would fill the interpreter's free list of tuples.
    following = SolverState(
        t=where(accept, proposal.t1, state.t),
        h=where(running, decision.h, state.h),
        y=where(accept, step.y1, state.y),
        method_state=choose(accept, step.method_state, step.method_state_if_rejected),
        history=decision.history,
        status=where(both(accept, proposal.reaches_end), arrival, status),
        attempts=state.attempts + running,
        accepted=state.accepted + accept,
        loop_attempts=state.loop_attempts + 1,
        last_ratio=measured.ratio,
        evaluations=state.evaluations + (step.evaluations if running is True else running * step.evaluations),
        calls=state.calls + step.calls,
        past_stop=state.past_stop,
        past_jump=state.past_jump,
        event_values=values,
    )
    taken = accepted_step(context, state, start, step=step, target=target, accept=accept)
    if taken is not None:
        following = count_dense_output(context, following, taken, running=running)
        if context.plan.save_steps:
            taken = taken._replace(y1=following.y)
    if context.stops:
        following = after_stop(context, following, target, accept=accept)
    return following, Attempt(taken, measured.size, occurrences)


def step_start(context: SolveContext, state: SolverState, target: StepTarget, *, running: Flag) -> StepStart:
    """Return the start of the step to a target; clocks that do not run get a step of size 0."""
    method, h = context.config.method, target.proposal.h
    field = context.field if target.edges is None else context.field.within(state.t, target.edges)
    return StepStart(
        f=field if method.implicit or method.partitioned else field.evaluate,
        t=state.t,
        y=state.y,
        h=h if running is True else where(running, h, h * 0),
        method_state=state.method_state,
    )


def measure(context: SolveContext, state: SolverState, step: Step) -> Measured:
    """Measure the error of a step, or whether its result is finite where steps are fixed."""
    per_row = isinstance(state.t, Tensor) and state.t.dim() > 0
    if context.config.controller.adaptive:
        assert step.error is not None, "an adaptive method estimates its error"
        return Measured(ratio=number(context.norm(step.error, state.y, step.y1), per_row=per_row))
    if not step.y1.numel():
        return Measured()
    if per_row:
        return Measured(sound=torch.linalg.vector_norm(step.y1, torch.inf, 1).isfinite())
    return Measured(size=torch.linalg.vector_norm(step.y1, torch.inf))


def next_target(context: SolveContext, state: SolverState) -> StepTarget:
    """Return where the controller and the stops end the next step."""
    controller, stops = context.config.controller, context.stops
    request = StepRequest(t=state.t, h=state.h, end=context.end, direction=context.direction)
    if not stops:
        return StepTarget(controller.propose(request, state.history))
    step, ends_at_stop, jump = stops.propose(controller, request, state.history)
    if stops.everywhere:
        return StepTarget(step, ends_at_stop, jump, edges=StepEdges(step.t1, True, True))
    edges = StepEdges(step.t1, state.past_jump, jump) if some(state.past_jump) or some(jump) else None
    return StepTarget(step, ends_at_stop, jump, edges=edges)


def fail_exhausted_rows(context: SolveContext, state: SolverState) -> SolverState:
    """Fail rows whose step underflows, that are not finite at the smallest step, or have used ``max_steps``."""
    config, status = context.config, state.status
    if config.controller.adaptive and some(state.h <= underflow_check_below(context, state)):
        proposal = next_target(context, state).proposal
        nonfinite = False if state.last_ratio is None else negate(isfinite(state.last_ratio))
        least = nonfinite & (state.h <= (config.controller.min_step or 0.0))  # nothing smaller may be tried
        underflow = negate(proposal.clipped) & (abs(proposal.h) < UNDERFLOW * abs(state.t))
        lost = (status == RUNNING) & (least | underflow)
        status = where(lost, where(nonfinite, NONFINITE, STEP_UNDERFLOW), status)
    if state.loop_attempts >= config.max_steps:
        status = where((status == RUNNING) & (state.attempts >= config.max_steps), MAX_STEPS, status)
    return state if status is state.status else state._replace(status=status)


def underflow_check_below(context: SolveContext, state: SolverState) -> Number:
    """Return a size above which a step needs no check for underflow."""
    least = UNDERFLOW * abs(state.t)
    min_step = context.config.controller.min_step
    return least if min_step is None else least + min_step


def after_stop(context: SolveContext, following: SolverState, target: StepTarget, *, accept: Flag) -> SolverState:
    """Note which stops were passed, and start anew where f jumps."""
    following = following._replace(
        past_stop=where(accept, following.past_stop | target.ends_at_stop, following.past_stop),
        past_jump=where(accept, target.jump, following.past_jump),
    )
    jumped = accept & (target.jump | context.stops.everywhere) & (following.t != context.end)
    return right_limit(context, following, jumped) if some(jumped) else following


def right_limit(context: SolveContext, state: SolverState, jumped: Flag) -> SolverState:
    """Drop the cached slope, which is the left limit; per-row clocks evaluate the right limit at once."""
    if isinstance(state.method_state, Tensor) and isinstance(jumped, Tensor):
        beyond = context.field.within(state.t, StepEdges(state.t + context.direction, jumped, False))
        slope = context.config.method.begin(beyond(torch.as_tensor(state.t), state.y))
        return state._replace(
            method_state=where(jumped, slope, state.method_state),
            evaluations=state.evaluations + jumped,
            calls=state.calls + 1,
        )
    return state._replace(method_state=None)


def accepted_step(
    context: SolveContext, state: SolverState, start: StepStart, *, step: Step, target: StepTarget, accept: Flag
) -> AcceptedStep | None:
    """Return what the plan keeps of an attempt; None if a shared clock rejected it."""
    plan, method = context.plan, context.config.method
    rows = accept if isinstance(accept, Tensor) and accept.dim() else None
    if rows is None and not accept:
        return None
    within, inner, coefficients = None, None, None
    if rows is None and context.output_times.ahead:
        within = context.output_times.within(host(state.t), t1=host(target.proposal.t1), h=host(start.h))
    if within is not None:
        inner = method.interpolate(start, step.stages, within.thetas)
    if plan.dense or (rows is not None and plan.inner_outputs):
        coefficients = method.interpolant(start, step.stages)
    taken = AcceptedStep(
        t=state.t,
        h=start.h if rows is None else start.h * rows,
        reaches_end=target.proposal.reaches_end,
        accept=rows,
        y=state.y if plan.keeps_states else None,
        method_state=None if method.memoryless or not plan.keeps_states else state.method_state,
        coefficients=coefficients,
        inner=inner,
        step_outputs=within,
    )
    if not context.stops:
        return taken
    return taken._replace(past_stop=state.past_stop, ends_at_stop=target.ends_at_stop, edges=target.edges)


def count_dense_output(
    context: SolveContext, following: SolverState, taken: AcceptedStep, *, running: Flag
) -> SolverState:
    """Count the evaluations of f that the dense output of a step took."""
    extra = context.config.method.dense_evaluations * ((taken.coefficients is not None) + (taken.inner is not None))
    if not extra:
        return following
    return following._replace(evaluations=following.evaluations + running * extra, calls=following.calls + extra)
