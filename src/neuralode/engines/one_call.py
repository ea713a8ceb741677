"""The engine of methods that are not taken step by step: one call a stretch."""

from __future__ import annotations

from neuralode.core.record import Chunk, Reads, Taken
from neuralode.core.status import Status
from neuralode.engines.base import Course, State, arrive


class Whole:
    """Crosses from start to end in one call; of what happens on the way only outputs are known."""

    name = "whole"
    gradients = frozenset({"adjoint"})
    budget = 1

    def advance(self, course: Course, state: State, budget: int) -> tuple[State, Chunk]:
        """Go to the end."""
        state = arrive(course, state)
        if state.status != Status.RUNNING:
            return state, Chunk(course.rows, [], state.y, state.t)
        inner = [mark * course.direction for mark in course.marks]
        ends = [*inner, course.end]
        states, arrived, calls = course.method.cross(
            course.field, state.t, state.y, ends, course.norm, course.controller
        )
        reads = Reads(slice(course.first_mark, course.first_mark + len(inner)), None)
        step = Taken(state.t, course.end - state.t, True, None, inner=states[:-1], reads=reads if inner else None)
        failed = Status.STEP_UNDERFLOW if states.isfinite().all() else Status.NONFINITE
        following = state._replace(
            t=course.end if arrived else state.t,
            y=states[-1] if arrived else state.y,
            status=Status.RUNNING if arrived else failed,
            attempts=state.attempts + 1,
            accepted=state.accepted + arrived,
            cost=state.cost + calls,
            calls=state.calls + calls,
        )
        return arrive(course, following), Chunk(course.rows, [step], following.y, following.t)
