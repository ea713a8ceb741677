"""The contract of step size controllers: where a step ends, whether it is accepted, and the size of the next."""

from __future__ import annotations

from typing import Literal, NamedTuple, Protocol, TypeAlias

from torch import Tensor

from neuralode.core.clock import Flag, Number
from neuralode.core.norms import Norm, Reduction
from neuralode.core.problem import Problem
from neuralode.core.types import PyTree

History: TypeAlias = PyTree  # of clock numbers; its structure does not change during a solve


class StepRequest(NamedTuple):
    """The time, planned step size and end of every clock before an attempt."""

    t: Number
    h: Number  # planned size of the attempt, positive
    end: Number  # the latest time at which the step may end: the end of the solve, or the next stop
    direction: float  # 1.0 or -1.0


class StepProposal(NamedTuple):
    """The size and the end of the next step."""

    h: Number  # signed
    t1: Number  # t + h, exactly the end where ``reaches_end``
    reaches_end: Flag
    clipped: Flag  # h was fitted to the end: its error says little about the planned size


class AttemptOutcome(NamedTuple):
    """The result of an attempt, as a controller sees it."""

    ratio: Number | None  # error / tolerance; None unless the controller is adaptive
    h: Number  # size that was attempted, positive
    planned: Number  # size before clipping, positive
    clipped: Flag
    order: int  # the error estimate is O(h^order)


class StepDecision(NamedTuple):
    """Whether an attempt is accepted, and the plan for the next one."""

    accept: Flag
    h: Number  # planned size of the next attempt, positive
    history: History


class SolveStart(NamedTuple):
    """The start of a solve, from which the size of the first attempt is chosen."""

    problem: Problem
    norm: Norm
    order: int  # the error estimate is O(h^order)
    y0: Tensor  # [rows, features], finite
    f0: Tensor  # [rows, features]: f(t0, y0), finite


class Controller(Protocol):
    """A step size controller: pure functions of the error ratio and a short history.

    All quantities of time are clock numbers in float64 (see `neuralode.core.clock`): Python numbers on a shared clock,
    tensors [rows] where every row has its own. The same code must serve both, and 0-d tensors: use operators and the
    functions of `core.clock`. `propose` and `decide` must not branch on values, so that `torch.compile` can trace them.
    A controller holds no state; ``history`` is a pytree of clock numbers whose structure does not change during a
    solve.
    """

    @property
    def adaptive(self) -> bool:
        """Whether `decide` reads the error ratio; the method must then estimate its error."""
        ...

    @property
    def norm(self) -> Literal["rms", "max"] | Reduction:
        """How scaled errors reduce to one ratio."""
        ...

    @property
    def min_step(self) -> float | None:
        """The smallest size that `decide` returns; a non-finite attempt of that size ends the solve."""
        ...

    def start(self, t0: Number, t1: Number) -> History:
        """Return the history before the first step of a solve from ``t0`` to ``t1``."""
        ...

    def initial_step(self, start: SolveStart) -> tuple[Number, int]:
        """Return the planned size of the first attempt, positive, and the calls of f that it took."""
        ...

    def propose(self, request: StepRequest, history: History) -> StepProposal:
        """Return where the next step ends: at ``request.end`` at the latest.

        The proposal must move t unless t is at the end, and must set ``t1`` to ``request.end`` exactly where it sets
        ``reaches_end``. The engine ignores proposals for rows that have finished.
        """
        ...

    def decide(self, outcome: AttemptOutcome, history: History) -> StepDecision:
        """Accept or reject an attempt and plan the next one.

        A ratio of at most 1 is within tolerance; it may be infinite or NaN, and such attempts must be rejected. After a
        rejection the planned size must be smaller, or the solve cannot progress.
        """
        ...

    def resume(self, h: Number) -> Controller:
        """Return the controller for a solve that continues one whose last planned size was ``h``."""
        ...
