"""The contract of engines: from a resolved problem to a trajectory, and the data that step-wise engines share."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from torch import Tensor
from torch.utils._pytree import TreeSpec, tree_map

from neuralode.controllers import NO_STOPS, Controller, StopTimes
from neuralode.controllers.base import History
from neuralode.core.clock import Flag, Number, per_row
from neuralode.core.field import Field
from neuralode.core.norms import Norm
from neuralode.core.problem import Problem
from neuralode.core.record import CallCount, Plan, Record, StepBatch
from neuralode.core.step_outputs import OutputTimes
from neuralode.core.types import PyTree, Save
from neuralode.inputs.events import Event
from neuralode.methods.base import Method

if TYPE_CHECKING:
    from neuralode.gradients.base import Gradient


class Observer(Protocol):
    """Receives every attempt of a step-wise engine.

    ``t`` and ``h`` are clock numbers (see `neuralode.core.clock`), ``h`` signed; ``y`` is the packed state
    [rows, features] before the attempt, without a graph: of the rows that are still in the batch, where rows with h = 0
    have finished. Observers must not write into their arguments.
    """

    def attempted(self, t: Number, y: Tensor, h: Number) -> None:
        """Receive an attempt before it is made."""
        ...

    def accepted(self, t: Number, y: Tensor, h: Number) -> None:
        """Receive an attempt that at least one clock accepted."""
        ...

    def rejected(self, t: Number, y: Tensor, h: Number) -> None:
        """Receive an attempt that every clock rejected."""
        ...


@dataclass(frozen=True)
class SolveConfig:
    """How a problem is solved: the resolved and checked arguments of `solve` that one run of an engine needs.

    Parameters
    ----------
    method : Method
        What a step is.
    controller : Controller
        How steps are chosen.
    norm : Norm
        Tolerances, and how scaled errors reduce to one ratio a clock.
    engine : Engine
        What repeats the step.
    gradient : Gradient
        How derivatives are taken.
    max_steps : int, default=100_000
        Attempts allowed to each row.
    stops : StopTimes, default=NO_STOPS
        Times at which steps end.
    events : tuple of Event, default=()
        Functions whose zeros are located.
    observer : Observer, default=None
        Receives every attempt.
    dense : bool, default=False
        Keep the interpolants.
    save : "steps" or callable, default=None
        What becomes the output instead of the states at the output times.
    progress : bool, default=False
        Show a progress bar.
    on_progress : callable, default=None
        Receives the fraction of the time span that the slowest clock has covered.
    """

    method: Method
    controller: Controller
    norm: Norm
    engine: Engine
    gradient: Gradient
    max_steps: int = 100_000
    stops: StopTimes = NO_STOPS
    events: tuple[Event, ...] = ()
    observer: Observer | None = None
    dense: bool = False
    save: Save = None
    progress: bool = False
    on_progress: Callable[[float], None] | None = None


class Trajectory(Protocol):
    """A solved problem: its outputs, its record, and derivatives of the outputs by the inputs of the problem.

    Attributes
    ----------
    problem : Problem
        What was solved.
    config : SolveConfig
        How it was solved.
    plan : Plan
        What was kept.
    record : Record
        Where each row ended, counts of steps and evaluations, and accepted steps if the plan keeps them.
    leaves : tuple of Tensor
        The outputs without a graph: [outputs, rows, features], or the leaves of what ``plan.save`` returned. With
        ``plan.save_steps`` y0 and the state after every step. With ``plan.dense`` last the coefficients of all pieces.
    spec : TreeSpec or None
        The structure of what ``plan.save`` returned.
    calls : CallCount
        Evaluations of f that derivatives have taken.
    """

    @property
    def problem(self) -> Problem: ...  # noqa: D102
    @property
    def config(self) -> SolveConfig: ...  # noqa: D102
    @property
    def plan(self) -> Plan: ...  # noqa: D102
    @property
    def record(self) -> Record: ...  # noqa: D102
    @property
    def leaves(self) -> tuple[Tensor, ...]: ...  # noqa: D102
    @property
    def spec(self) -> TreeSpec | None: ...  # noqa: D102
    @property
    def calls(self) -> CallCount: ...  # noqa: D102

    def pullback(self, cotangents: Sequence[Tensor | None]) -> list[Tensor | None]:
        """Return the cotangents of ``problem.inputs`` (y0, t, captured tensors) for cotangents of the leaves.

        The derivative is that of the accepted steps. Their sizes are constants, except those of the step that reaches
        the last time and of the one that reaches the first stop: there h = that time − t.
        Called without gradient mode, in the context of the forward pass. Raises `GradientError` where the result would
        be wrong. Only called if ``plan.pullback`` was set.
        """
        ...

    def pullback_with_graph(self, cotangents: Sequence[Tensor | None]) -> list[Tensor | None]:
        """Return the same cotangents with a graph, for second derivatives."""
        ...

    def rerun(self) -> list[Tensor]:
        """Return the leaves with a graph that reaches ``problem.inputs``: the accepted steps, computed again."""
        ...


@dataclass(frozen=True)
class TrajectoryData:
    """The attributes of a `Trajectory`, for engines that keep a record of their steps."""

    problem: Problem
    config: SolveConfig
    plan: Plan
    record: Record
    leaves: tuple[Tensor, ...]
    spec: TreeSpec | None = None
    calls: CallCount = field(default_factory=CallCount)


class Engine(Protocol):
    """Integrates a resolved problem.

    An engine that meets this contract is accepted wherever the name of one is. It may wrap another engine.
    """

    @property
    def name(self) -> str:
        """The name of the engine, as messages and statistics show it."""
        ...

    def supports(self, problem: Problem, config: SolveConfig, plan: Plan) -> str | None:
        """Return None if `integrate` can do this, or else why not, in a sentence that says what to do instead.

        The answer depends on the arguments alone, never on timings, so that a resumed training takes the same path.
        """
        ...

    def integrate(self, problem: Problem, config: SolveConfig, plan: Plan) -> Trajectory:
        """Solve a supported problem, without a graph.

        ``problem.f0`` is f(t0, y0). The outputs at the first time are y0 itself; the last time is reached exactly. Rows
        that fail are frozen, with NaN in their remaining outputs and a `Status` in ``record.status``; they leave the
        other rows unchanged, bit by bit.
        """
        ...


class StepwiseEngine(Engine, Protocol):
    """An engine that can also be advanced by single attempts, as a `Stepper` does."""

    def advance(self, context: SolveContext, state: SolverState, budget: int) -> tuple[SolverState, StepBatch]:
        """Make up to ``budget`` attempts, or fewer if every clock has reached its end or failed."""
        ...


class SolveContext(NamedTuple):
    """What does not change while the same rows are stepped."""

    config: SolveConfig
    plan: Plan
    field: Field
    norm: Norm
    stops: StopTimes
    end: Number
    direction: float
    output_times: OutputTimes = OutputTimes()  # inner ones of a shared clock
    rows: Tensor | None = None  # indices of these rows among all; None: all rows

    @property
    def error_norm(self) -> Norm | None:
        """The norm that methods may iterate to; None where steps are fixed."""
        return self.norm if self.config.controller.adaptive else None

    def take(self, keep: Tensor) -> SolveContext:
        """Return the context of some of these rows."""
        return self._replace(
            field=self.field.take(keep),
            norm=self.norm.take(keep),
            stops=self.stops.take(keep),
            end=per_row(self.end)[keep],
            rows=keep if self.rows is None else self.rows[keep],
        )


class SolverState(NamedTuple):
    """Where every clock stands."""

    t: Number
    h: Number  # planned size of the next attempt, positive
    y: Tensor  # [rows, features]
    method_state: PyTree  # from the method's last step
    history: History  # of the controller
    status: int | Tensor
    attempts: int | Tensor
    accepted: int | Tensor
    loop_attempts: int = 0  # attempts of the loop, on whichever clocks
    last_ratio: Number | None = None  # of the last attempt, where steps adapt
    evaluations: Number = 0  # of f, per clock
    calls: int = 0  # of f, each for all rows at once
    past_stop: Flag = False  # a stop has been passed
    past_jump: Flag = False  # f jumps at t
    event_values: tuple[Number, ...] = ()

    def take(self, keep: Tensor) -> SolverState:
        """Return the state of some of the rows."""
        return tree_map(lambda x: x[keep] if isinstance(x, Tensor) else x, self)


def backward_config(config: SolveConfig, **changes: Any) -> SolveConfig:
    """Return the configuration of an auxiliary solve: no events, outputs of the state itself, no progress."""
    plain = replace(config, events=(), dense=False, save=None, progress=False, on_progress=None)
    return replace(plain, **changes)
