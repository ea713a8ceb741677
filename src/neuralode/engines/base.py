"""What an engine advances: the course, which stays, and the state, which moves."""

from __future__ import annotations

from typing import Any, NamedTuple

from torch import Tensor
from torch.utils._pytree import tree_map

from neuralode.controllers import NOWHERE, Stops
from neuralode.core.clock import Number, where
from neuralode.core.field import Field
from neuralode.core.norms import Norm
from neuralode.core.record import Plan
from neuralode.core.status import Status


class SolveContext(NamedTuple):
    """What stays the same while the same rows are stepped."""

    field: Field
    method: Any
    controller: Any
    norm: Norm
    plan: Plan
    end: Number
    direction: float
    max_steps: int
    output_times: list[float]  # inner output times of a shared clock, in the direction of integration
    first_output: int  # the place of the first of them among the outputs
    rows: Tensor | None = None
    stops: Stops = NOWHERE
    events: tuple[Any, ...] = ()
    observer: Any = None

    @property
    def error_norm(self) -> Norm | None:
        """What says how large an error may be; nothing does where steps are stated."""
        return self.norm if self.controller.adaptive else None

    def take(self, keep: Tensor) -> SolveContext:
        """The course of some of these rows."""
        rows = keep if self.rows is None else self.rows[keep]
        field, norm, stops = self.field.take(keep), self.norm.take(keep), self.stops.take(keep)
        return self._replace(field=field, norm=norm, stops=stops, end=self.end[keep], rows=rows)


class SolverState(NamedTuple):
    """Where every clock stands."""

    t: Number
    h: Number  # size of the next attempt, positive
    y: Tensor
    method_state: Any  # what the method hands from step to step
    history: Any
    status: Any
    attempts: Any
    accepted: Any
    last_nonfinite: Any  # the last attempt was not finite
    cost: Any = 0  # evaluations of f, per clock
    calls: int = 0  # calls of f
    past_stop: Any = False  # a stop has been passed
    past_jump: Any = False  # stands where f jumps
    values: tuple[Any, ...] = ()  # of the event functions

    def take(self, keep: Tensor) -> SolverState:
        """Where some of the rows stand."""
        return tree_map(lambda x: x[keep] if isinstance(x, Tensor) else x, self)


def mark_finished(context: SolveContext, state: SolverState) -> SolverState:
    """Mark the clocks that stand at their end."""
    status = where((state.t == context.end) & (state.status == Status.RUNNING), Status.SUCCESS, state.status)
    return state._replace(status=status)
