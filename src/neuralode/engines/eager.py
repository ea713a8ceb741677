"""The eager engine: one attempt after another, in plain PyTorch operations."""

from __future__ import annotations

from bisect import bisect_right
from typing import Any

import torch
from torch import Tensor

from neuralode.clock import EPS, Number, isfinite, negate, some, where
from neuralode.engines.state import Course, State, arrive
from neuralode.record import Chunk, Reads, Taken
from neuralode.status import Status

UNDERFLOW = 16 * EPS  # a step this small against t no longer moves it


class Eager:
    """Steps on the host: of each attempt the ratio is read back; what else a shared clock needs is a float."""

    name = "eager"
    gradients = frozenset({"replay", "adjoint", "direct"})
    budget = 8

    def advance(self, course: Course, state: State, budget: int) -> tuple[State, Chunk]:
        """Make up to ``budget`` attempts, or fewer if every clock arrives or fails."""
        steps: list[Taken] = []
        sizes: list[Tensor] = []
        for _ in range(budget):
            state = arrive(course, state)
            if not some(state.status == Status.RUNNING):
                break
            state, step, size = attempt(course, state)
            if step is not None:
                steps.append(step)
            if size is not None:
                sizes.append(size)
        else:
            state = arrive(course, state)
        if sizes:
            state, steps = stop_at_nonfinite(state, steps, sizes)
        return state, Chunk(course.rows, steps, state.y)


def attempt(course: Course, state: State) -> tuple[State, Taken | None, Tensor | None]:
    """One attempt on every running clock.

    Returns the new state, the step if any clock accepted it, and, from a shared clock with stated steps, the size of
    the new state, which is looked at later so that the host need not wait.
    """
    method, controller = course.method, course.controller
    aim = controller.aim(state.t, state.h, course.end, course.direction, state.history)
    status = state.status
    if controller.adaptive:
        least = state.stumbled & (state.h <= (controller.min_step or 0.0))  # nothing smaller may be tried
        lost = (status == Status.RUNNING) & (least | negate(aim.clipped) & (abs(aim.h) < UNDERFLOW * abs(state.t)))
        status = where(lost, where(state.stumbled, Status.NONFINITE, Status.STEP_UNDERFLOW), status)
    status = where((status == Status.RUNNING) & (state.attempts >= course.max_steps), Status.MAX_STEPS, status)
    running = status == Status.RUNNING
    if not isinstance(running, Tensor) and not running:
        return state._replace(status=status), None, None

    h = where(running, aim.h, aim.h * 0)
    step = method.step(course.field.evaluate, state.t, state.y, h, state.carry)
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
    following = State(
        t=where(accept, aim.t1, state.t),
        h=where(running, verdict.h, state.h),
        y=where(accept, step.y1, state.y),
        carry=None if step.carry is None else where(accept, step.carry, step.stages[0]),
        history=verdict.history,
        status=status,
        attempts=state.attempts + running,
        accepted=state.accepted + accept,
        stumbled=state.stumbled if ratio is None else negate(isfinite(ratio)),
    )
    return following, keep(course, state, following, h, aim, step, accept), size


def keep(course: Course, state: State, following: State, h: Number, aim: Any, step: Any, accept: Any) -> Taken | None:
    """What the plan wants of an attempt."""
    plan = course.plan
    per_sample = isinstance(accept, Tensor)
    if not (per_sample or accept):
        return None
    method, coefficients, inner = course.method, None, None
    reads = None if per_sample else marks_within(course, state.t, aim.t1, h)
    if reads is not None:
        inner = method.interpolate(state.y, h, step.stages, reads.thetas)
    if plan.dense or (per_sample and plan.inside):
        coefficients = method.interpolant(course.field, state.t, state.y, h, step.stages)
    return Taken(
        t=state.t,
        h=where(accept, h, h * 0) if per_sample else h,
        landing=aim.landing,
        accept=accept if per_sample else None,
        y=state.y if plan.replay else None,
        y1=following.y if plan.steps else None,
        coefficients=coefficients,
        inner=inner,
        reads=reads,
    )


def marks_within(course: Course, t: float, t1: float, h: float) -> Reads | None:
    """The outputs of a shared clock after t, up to and with t1 = t + h."""
    marks, sign = course.marks, course.direction
    low, high = bisect_right(marks, t * sign), bisect_right(marks, t1 * sign)
    if high == low:
        return None
    thetas = tuple((mark * sign - t) / h for mark in marks[low:high])
    return Reads(slice(course.first_mark + low, course.first_mark + high), None, thetas)


def stop_at_nonfinite(state: State, steps: list[Taken], sizes: list[Tensor]) -> tuple[State, list[Taken]]:
    """Undo the stated steps of a shared clock from the first whose result is not finite."""
    finite = torch.stack(sizes).isfinite().tolist()
    if all(finite):
        return state, steps
    good = finite.index(False)
    undone = len(steps) - good
    before = steps[good]
    state = state._replace(
        t=before.t,
        y=state.y if before.y is None else before.y,
        status=Status.NONFINITE,
        accepted=state.accepted - undone,
    )
    return state, steps[:good]
