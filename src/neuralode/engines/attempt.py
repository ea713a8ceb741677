"""One attempt at a step, on every running clock."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from neuralode.controllers.base import StepProposal
from neuralode.core.clock import EPS, Flag, Number, choose, isfinite, negate, some, where
from neuralode.core.dense_output import outputs_within
from neuralode.core.record import AcceptedStep, Occurrence
from neuralode.core.status import Status
from neuralode.engines.base import SolveContext, SolverState
from neuralode.engines.event_location import locate_events
from neuralode.methods.base import StepStart

UNDERFLOW = 16 * EPS  # a step this small against t no longer moves it


class Attempt(NamedTuple):
    """What comes of one attempt: the step if any clock accepted it, and the events on it.

    From a shared clock with stated steps also the size of the new state, which is looked at later so that the host
    need not wait.
    """

    step: AcceptedStep | None = None
    size: Tensor | None = None
    occurrences: tuple[Occurrence, ...] = ()


class StepTarget(NamedTuple):
    """The next stretch of every clock: where it ends, and what is known of its ends."""

    proposal: StepProposal
    ends_at_stop: Flag = False  # it ends at a stop
    jump: Flag = False  # where f jumps
    edges: tuple[Number, Flag, Flag] | None = None  # its end, and whether f jumps where it begins, where it ends

    def short_of_stop(self, t1: Number, ended: Flag) -> StepTarget:
        """The same where an event ended the step on its way."""
        goes_on, edges = negate(ended), self.edges
        if edges is not None:
            edges = (t1, edges[1], edges[2] & goes_on)
        return StepTarget(self.proposal, self.ends_at_stop & goes_on, self.jump & goes_on, edges)


def attempt(context: SolveContext, state: SolverState) -> tuple[SolverState, Attempt]:
    """One attempt on every running clock."""
    method, controller, observer = context.method, context.controller, context.observer
    target = next_target(context, state)
    proposal, status = target.proposal, still_running(context, state, target.proposal)
    running = status == Status.RUNNING
    if not isinstance(running, Tensor) and not running:
        return state._replace(status=status), Attempt()

    h = where(running, proposal.h, proposal.h * 0)
    field = context.field if target.edges is None else context.field.within(state.t, *target.edges)
    f = field if method.implicit or method.partitioned else field.evaluate
    if observer is not None:
        observer.attempted(state.t, state.y, h)
    start = StepStart(f, state.t, state.y, h=h, method_state=state.method_state)
    step = method.step(start, context.error_norm)
    sound, size, ratio = True, None, None
    if controller.adaptive:
        ratio = context.norm(step.error, state.y, step.y1)
        ratio = ratio.to(torch.float64) if isinstance(running, Tensor) else ratio.item()
    elif isinstance(running, Tensor):
        sound = torch.linalg.vector_norm(step.y1, torch.inf, 1).isfinite() if step.y1.shape[1] else running
        status = where(running & negate(sound), Status.NONFINITE, status)
    else:
        size = torch.linalg.vector_norm(step.y1, torch.inf) if step.y1.numel() else None

    decision = controller.decide(ratio, abs(h), state.h, proposal.clipped, state.history, method.error_order + 1)
    accept = decision.accept & running & sound & step.ok
    if observer is not None:
        (observer.accepted if some(accept) else observer.rejected)(state.t, state.y, h)
    values, met = state.values, ()
    if context.events and some(accept):
        step, h, proposal, ended, values, met = locate_events(context, state, f, step, h, proposal, accept)
        start = start._replace(h=h)
        status = where(ended, Status.EVENT, status)
        target = target.short_of_stop(proposal.t1, ended)
    following = SolverState(
        t=where(accept, proposal.t1, state.t),
        h=where(running, decision.h, state.h),
        y=where(accept, step.y1, state.y),
        method_state=choose(accept, step.method_state, step.method_state_if_rejected),
        history=decision.history,
        status=status,
        attempts=state.attempts + running,
        accepted=state.accepted + accept,
        last_nonfinite=state.last_nonfinite if ratio is None else negate(isfinite(ratio)),
        cost=state.cost + running * step.evaluations,
        calls=state.calls + step.calls,
        values=values,
    )
    taken = keep(context, state, following, start, proposal, step, accept)
    if taken is not None and method.dense_evaluations:
        looks = (taken.coefficients is not None) + (taken.inner is not None)
        extra = looks * method.dense_evaluations
        following = following._replace(cost=following.cost + running * extra, calls=following.calls + extra)
    if context.stops:
        following = note_stop(context, state, following, target, accept)
        if taken is not None:
            taken = taken._replace(past_stop=state.past_stop, ends_at_stop=target.ends_at_stop, edges=target.edges)
    return following, Attempt(taken, size, met)


def next_target(context: SolveContext, state: SolverState) -> StepTarget:
    """Where the controller, and the stops, have the next step end."""
    place = state.t, state.h, context.end, context.direction, state.history
    if not context.stops:
        return StepTarget(context.controller.propose(*place))
    proposal, ends_at_stop, jump = context.stops.propose(context.controller, *place)
    if context.stops.everywhere:
        return StepTarget(proposal, ends_at_stop, jump, (proposal.t1, True, True))
    edges = (proposal.t1, state.past_jump, jump) if some(state.past_jump) or some(jump) else None
    return StepTarget(proposal, ends_at_stop, jump, edges)


def still_running(context: SolveContext, state: SolverState, proposal: StepProposal) -> Any:
    """The status of every clock before an attempt: steps that are too small and attempts that are too many end it."""
    controller, status = context.controller, state.status
    if controller.adaptive:
        least = state.last_nonfinite & (state.h <= (controller.min_step or 0.0))  # nothing smaller may be tried
        lost = (status == Status.RUNNING) & (
            least | negate(proposal.clipped) & (abs(proposal.h) < UNDERFLOW * abs(state.t))
        )
        status = where(lost, where(state.last_nonfinite, Status.NONFINITE, Status.STEP_UNDERFLOW), status)
    return where((status == Status.RUNNING) & (state.attempts >= context.max_steps), Status.MAX_STEPS, status)


def note_stop(
    context: SolveContext, state: SolverState, following: SolverState, target: StepTarget, accept: Flag
) -> SolverState:
    """Note what was passed; at a jump what was handed on is of the near side."""
    following = following._replace(
        past_stop=where(accept, state.past_stop | target.ends_at_stop, state.past_stop),
        past_jump=where(accept, target.jump, state.past_jump),
    )
    jumped = accept & (target.jump | context.stops.everywhere) & (following.t != context.end)
    return restart_after_jump(context, following, jumped) if some(jumped) else following


def restart_after_jump(context: SolveContext, state: SolverState, jumped: Flag) -> SolverState:
    """What clocks that stand at a jump handed on was of the near side."""
    if isinstance(state.method_state, Tensor) and isinstance(jumped, Tensor):
        beyond = context.field.within(state.t, state.t + context.direction, jumped, False)
        slope = context.method.begin(beyond(state.t, state.y))
        return state._replace(
            method_state=where(jumped, slope, state.method_state), cost=state.cost + jumped, calls=state.calls + 1
        )
    return state._replace(method_state=None)


def keep(
    context: SolveContext,
    state: SolverState,
    following: SolverState,
    start: StepStart,
    proposal: Any,
    step: Any,
    accept: Any,
) -> AcceptedStep | None:
    """What the plan wants of an attempt."""
    plan = context.plan
    per_sample = isinstance(accept, Tensor)
    if not (per_sample or accept):
        return None
    method, h, coefficients, inner = context.method, start.h, None, None
    step_outputs = (
        None
        if per_sample
        else outputs_within(context.output_times, context.first_output, context.direction, state.t, proposal.t1, h)
    )
    if step_outputs is not None:
        inner = method.interpolate(start, step.stages, step_outputs.thetas)
    if plan.dense or (per_sample and plan.inside):
        coefficients = method.interpolant(start, step.stages)
    return AcceptedStep(
        t=state.t,
        h=where(accept, h, h * 0) if per_sample else h,
        reaches_end=proposal.reaches_end,
        accept=accept if per_sample else None,
        y=state.y if plan.replay else None,
        method_state=None if method.memoryless or not plan.replay else state.method_state,
        y1=following.y if plan.steps else None,
        coefficients=coefficients,
        inner=inner,
        step_outputs=step_outputs,
    )
