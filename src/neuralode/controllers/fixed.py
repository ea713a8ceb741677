"""Controllers with predetermined steps: of one size (`Fixed`), or at given times (`Given`)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, NamedTuple, TypeVar

import torch
from torch import Tensor

from neuralode.controllers.base import AttemptOutcome, SolveStart, StepDecision, StepProposal, StepRequest
from neuralode.core.clock import Number, negate, where


class FixedHistory(NamedTuple):
    """The position on a grid of equal steps."""

    taken: Number  # number of steps taken
    steps: Number  # number of all steps
    t0: Number


class GivenHistory(NamedTuple):
    """The position on a grid of given times."""

    taken: Number  # number of steps taken
    steps: Number  # number of all steps
    t0: Number
    offsets: list[float] | Tensor  # the given times relative to t0: a tensor [N + 1] or [rows, N + 1] for tensor clocks


GridHistory = TypeVar("GridHistory", FixedHistory, GivenHistory)


class _PredeterminedSteps:
    """The common part of controllers with predetermined steps."""

    adaptive = False
    min_step = None

    @property
    def norm(self) -> Literal["rms"]:
        """The norm of auxiliary solves; errors are not measured."""
        return "rms"

    def initial_step(self, start: SolveStart) -> tuple[Number, int]:
        """Return the span, which `propose` ignores."""
        return abs(start.problem.end - start.problem.start), 0


@dataclass(frozen=True)
class Fixed(_PredeterminedSteps):
    """Take steps of one size, at the times t0 + n·h; the last step ends at the end of the solve.

    Parameters
    ----------
    step_size : float
        The size h, positive. The number of steps is ⌈span/h − 1e-9⌉, so that rounding adds no tiny last step.

    Raises
    ------
    TypeError, ValueError
        If the size is not a positive finite number.
    """

    step_size: float

    def __post_init__(self) -> None:
        if isinstance(self.step_size, bool) or not isinstance(self.step_size, (int, float)):
            raise TypeError(f"step_size is a {type(self.step_size).__name__}; wanted a positive number.")
        if not (self.step_size > 0 and math.isfinite(self.step_size)):
            raise ValueError(f"step_size={self.step_size!r}; wanted a positive size (the direction is that of t).")

    def resume(self, h: Number) -> Fixed:
        """Return the controller itself."""
        return self

    def start(self, t0: Number, t1: Number) -> FixedHistory:
        """Return the number of steps of the grid."""
        steps = abs(t1 - t0) / self.step_size - 1e-9
        if isinstance(steps, Tensor):
            return FixedHistory(torch.zeros_like(steps), steps.ceil(), t0)
        return FixedHistory(0.0, math.ceil(steps) if math.isfinite(steps) else steps, t0)

    def propose(self, request: StepRequest, history: FixedHistory) -> StepProposal:
        """Step to the next time of the grid."""
        taken, steps, t0 = history
        reaches_end = taken + 1 >= steps
        t1 = where(reaches_end, request.end, t0 + request.direction * self.step_size * (taken + 1))
        return StepProposal(h=t1 - request.t, t1=t1, reaches_end=reaches_end, clipped=reaches_end)

    def decide(self, outcome: AttemptOutcome, history: FixedHistory) -> StepDecision:
        """Accept every step."""
        return _accept(outcome, history)


@dataclass(frozen=True, eq=False)
class Given(_PredeterminedSteps):
    """Take steps of given sizes with any method, and accept them all.

    Parameters
    ----------
    times : Tensor[N + 1] or Tensor[rows, N + 1]
        The times at which steps start and end. Only their differences matter: the first step starts at the first time
        of the solve, and the last step ends at its last time. Equal times at the end of a row take no step.

    Raises
    ------
    TypeError, ValueError
        If the times are not a floating tensor of one of these shapes; from `solve`, if they run against its direction
        or have another number of rows than y0.

    Examples
    --------
    >>> import torch, neuralode as node
    >>> grid = torch.linspace(0, 1, 6, dtype=torch.float64)
    >>> sol = node.solve(lambda t, y: -y, torch.ones(1), (0.0, 1.0), method="euler", controller=node.Given(grid))
    >>> round(sol.y1.item(), 5) == round(0.8**5, 5)
    True
    """

    times: Tensor

    def __post_init__(self) -> None:
        times = self.times
        if not isinstance(times, Tensor) or not times.is_floating_point() or times.dim() not in (1, 2):
            raise TypeError(f"Given(times) is {_describe(times)}; wanted a floating tensor [N + 1] or [rows, N + 1].")
        if times.shape[-1] < 2:
            raise ValueError(f"Given(times) has {times.shape[-1]} times; wanted at least two, the ends of a step.")
        object.__setattr__(self, "times", times.detach().double())

    def resume(self, h: Number) -> Given:
        """Return the controller itself."""
        return self

    def start(self, t0: Number, t1: Number) -> GivenHistory:
        """Return the number of steps, and where they end relative to the start."""
        offsets = self.times - self.times[..., :1]
        span = torch.as_tensor(t1 - t0, device=offsets.device)
        steps = offsets.diff()
        if bool((steps * span[..., None] < 0).any() if span.dim() == 0 or offsets.dim() == 1 else False):
            raise ValueError(
                f"Given(times) is {self.times.tolist()}; wanted times that are monotone in the direction of t."
            )
        if self.times.dim() != 1 and not (isinstance(t0, Tensor) and t0.dim()):
            raise ValueError("Given(times) has a row for each sample; that needs per_sample=True.")
        if not isinstance(t0, Tensor):
            return GivenHistory(taken=0, steps=len(offsets) - 1, t0=t0, offsets=offsets.tolist())
        if offsets.dim() == 2 and len(offsets) != len(t0):
            raise ValueError(
                f"Given(times) has {len(offsets)} rows, y0 has {len(t0)}; wanted one row of times for each."
            )
        offsets = offsets.to(t0.device).expand(*t0.shape, -1)
        steps = (offsets.diff() != 0).sum(-1)
        return GivenHistory(taken=torch.zeros_like(steps), steps=steps, t0=t0, offsets=offsets)

    def propose(self, request: StepRequest, history: GivenHistory) -> StepProposal:
        """Step to the next given time."""
        taken, steps, t0, offsets = history
        reaches_end = taken + 1 >= steps
        if isinstance(taken, Tensor) and isinstance(offsets, Tensor):
            following = (taken + 1).clamp(max=offsets.shape[-1] - 1)
            t1 = where(reaches_end, request.end, t0 + offsets.gather(-1, following[..., None])[..., 0])
        else:
            t1 = request.end if reaches_end else t0 + offsets[int(taken) + 1]
        return StepProposal(h=t1 - request.t, t1=t1, reaches_end=reaches_end, clipped=reaches_end)

    def decide(self, outcome: AttemptOutcome, history: GivenHistory) -> StepDecision:
        """Accept every step."""
        return _accept(outcome, history)


def _accept(outcome: AttemptOutcome, history: GridHistory) -> StepDecision:
    """Accept every step; one that is clipped at a stop does not reach the next time of the grid."""
    following = history._replace(taken=history.taken + negate(outcome.clipped))
    return StepDecision(outcome.h == outcome.h, outcome.planned, following)


def _describe(times: object) -> str:
    if not isinstance(times, Tensor):
        return f"a {type(times).__name__}"
    return f"a tensor of {times.dtype} and shape {list(times.shape)}"
