"""One attempt at a step, on every running clock."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from neuralode.controllers.base import Aim
from neuralode.core.clock import EPS, Flag, Number, choose, isfinite, negate, some, where
from neuralode.core.dense_output import marks_within
from neuralode.core.record import Occurrence, Taken
from neuralode.core.status import Status
from neuralode.engines.base import Course, State
from neuralode.engines.event_location import meet

UNDERFLOW = 16 * EPS  # a step this small against t no longer moves it


class Attempt(NamedTuple):
    """What comes of one attempt: the step if any clock accepted it, and the events on it.

    From a shared clock with stated steps also the size of the new state, which is looked at later so that the host
    need not wait.
    """

    step: Taken | None = None
    size: Tensor | None = None
    occurrences: tuple[Occurrence, ...] = ()


class Leg(NamedTuple):
    """The next stretch of every clock: where it ends, and what is known of its ends."""

    aim: Aim
    stopping: Flag = False  # it ends at a stop
    jump: Flag = False  # where f jumps
    edges: tuple[Number, Flag, Flag] | None = None  # its end, and whether f jumps where it begins, where it ends

    def short_of_stop(self, t1: Number, ended: Flag) -> Leg:
        """The same where an event ended the step on its way."""
        goes_on, edges = negate(ended), self.edges
        if edges is not None:
            edges = (t1, edges[1], edges[2] & goes_on)
        return Leg(self.aim, self.stopping & goes_on, self.jump & goes_on, edges)


def attempt(course: Course, state: State) -> tuple[State, Attempt]:
    """One attempt on every running clock."""
    method, controller, observer = course.method, course.controller, course.observer
    leg = next_leg(course, state)
    aim, status = leg.aim, still_running(course, state, leg.aim)
    running = status == Status.RUNNING
    if not isinstance(running, Tensor) and not running:
        return state._replace(status=status), Attempt()

    h = where(running, aim.h, aim.h * 0)
    field = course.field if leg.edges is None else course.field.within(state.t, *leg.edges)
    f = field if method.implicit or method.partitioned else field.evaluate
    if observer is not None:
        observer.attempted(state.t, state.y, h)
    step = method.step(f, state.t, state.y, h, state.carry, course.tolerated)
    sound, size, ratio = True, None, None
    if controller.adaptive:
        ratio = course.norm(step.error, state.y, step.y1)
        ratio = ratio.to(torch.float64) if isinstance(running, Tensor) else ratio.item()
    elif isinstance(running, Tensor):
        sound = torch.linalg.vector_norm(step.y1, torch.inf, 1).isfinite() if step.y1.shape[1] else running
        status = where(running & negate(sound), Status.NONFINITE, status)
    else:
        size = torch.linalg.vector_norm(step.y1, torch.inf) if step.y1.numel() else None

    verdict = controller.judge(ratio, abs(h), state.h, aim.clipped, state.history, method.error_order + 1)
    accept = verdict.accept & running & sound & step.ok
    if observer is not None:
        (observer.accepted if some(accept) else observer.rejected)(state.t, state.y, h)
    values, met = state.values, ()
    if course.events and some(accept):
        step, h, aim, ended, values, met = meet(course, state, f, step, h, aim, accept)
        status = where(ended, Status.EVENT, status)
        leg = leg.short_of_stop(aim.t1, ended)
    following = State(
        t=where(accept, aim.t1, state.t),
        h=where(running, verdict.h, state.h),
        y=where(accept, step.y1, state.y),
        carry=choose(accept, step.carry, step.kept),
        history=verdict.history,
        status=status,
        attempts=state.attempts + running,
        accepted=state.accepted + accept,
        stumbled=state.stumbled if ratio is None else negate(isfinite(ratio)),
        cost=state.cost + running * step.cost,
        calls=state.calls + step.calls,
        values=values,
    )
    taken = keep(course, state, following, f, h, aim, step, accept)
    if taken is not None and method.dense_evaluations:
        looks = (taken.coefficients is not None) + (taken.inner is not None)
        extra = looks * method.dense_evaluations
        following = following._replace(cost=following.cost + running * extra, calls=following.calls + extra)
    if course.stops:
        following = at_stop(course, state, following, leg, accept)
        if taken is not None:
            taken = taken._replace(anchored=state.anchored, stopping=leg.stopping, edges=leg.edges)
    return following, Attempt(taken, size, met)


def next_leg(course: Course, state: State) -> Leg:
    """Where the controller, and the stops, have the next step end."""
    place = state.t, state.h, course.end, course.direction, state.history
    if not course.stops:
        return Leg(course.controller.aim(*place))
    aim, stopping, jump = course.stops.aim(course.controller, *place)
    if course.stops.everywhere:
        return Leg(aim, stopping, jump, (aim.t1, True, True))
    edges = (aim.t1, state.past_jump, jump) if some(state.past_jump) or some(jump) else None
    return Leg(aim, stopping, jump, edges)


def still_running(course: Course, state: State, aim: Aim) -> Any:
    """The status of every clock before an attempt: steps that are too small and attempts that are too many end it."""
    controller, status = course.controller, state.status
    if controller.adaptive:
        least = state.stumbled & (state.h <= (controller.min_step or 0.0))  # nothing smaller may be tried
        lost = (status == Status.RUNNING) & (least | negate(aim.clipped) & (abs(aim.h) < UNDERFLOW * abs(state.t)))
        status = where(lost, where(state.stumbled, Status.NONFINITE, Status.STEP_UNDERFLOW), status)
    return where((status == Status.RUNNING) & (state.attempts >= course.max_steps), Status.MAX_STEPS, status)


def at_stop(course: Course, state: State, following: State, leg: Leg, accept: Flag) -> State:
    """Note what was passed; at a jump what was handed on is of the near side."""
    following = following._replace(
        anchored=where(accept, state.anchored | leg.stopping, state.anchored),
        past_jump=where(accept, leg.jump, state.past_jump),
    )
    jumped = accept & (leg.jump | course.stops.everywhere) & (following.t != course.end)
    return far_side(course, following, jumped) if some(jumped) else following


def far_side(course: Course, state: State, jumped: Flag) -> State:
    """What clocks that stand at a jump handed on was of the near side."""
    if isinstance(state.carry, Tensor) and isinstance(jumped, Tensor):
        beyond = course.field.within(state.t, state.t + course.direction, jumped, False)
        slope = course.method.begin(beyond(state.t, state.y))
        return state._replace(carry=where(jumped, slope, state.carry), cost=state.cost + jumped, calls=state.calls + 1)
    return state._replace(carry=None)


def keep(
    course: Course, state: State, following: State, f: Any, h: Number, aim: Any, step: Any, accept: Any
) -> Taken | None:
    """What the plan wants of an attempt."""
    plan = course.plan
    per_sample = isinstance(accept, Tensor)
    if not (per_sample or accept):
        return None
    method, coefficients, inner = course.method, None, None
    reads = None if per_sample else marks_within(course.marks, course.first_mark, course.direction, state.t, aim.t1, h)
    if reads is not None:
        inner = method.interpolate(f, state.t, state.y, h, step.stages, reads.thetas)
    if plan.dense or (per_sample and plan.inside):
        coefficients = method.interpolant(f, state.t, state.y, h, step.stages)
    return Taken(
        t=state.t,
        h=where(accept, h, h * 0) if per_sample else h,
        landing=aim.landing,
        accept=accept if per_sample else None,
        y=state.y if plan.replay else None,
        carry=None if method.memoryless or not plan.replay else state.carry,
        y1=following.y if plan.steps else None,
        coefficients=coefficients,
        inner=inner,
        reads=reads,
    )
