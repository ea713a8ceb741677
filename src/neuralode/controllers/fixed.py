"""Steps that are stated beforehand: of one size, or one by one."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from neuralode.controllers.base import StepDecision, StepProposal
from neuralode.core.clock import Flag, Number, negate, where


@dataclass(frozen=True)
class Fixed:
    """Steps of one size: times are t0 + n·h, and the last step ends where it must.

    Parameters
    ----------
    step_size : float
        The size h. The number of steps is ⌈span/h − 1e-9⌉, so that rounding adds no last sliver.
    """

    step_size: float

    adaptive = False
    norm = "rms"

    def __post_init__(self) -> None:
        if isinstance(self.step_size, bool) or not isinstance(self.step_size, (int, float)):
            raise TypeError(f"step_size is a {type(self.step_size).__name__}; wanted a positive number.")
        if not (self.step_size > 0 and math.isfinite(self.step_size)):
            raise ValueError(f"step_size={self.step_size!r}; wanted a positive size (the direction is that of t).")

    def resume(self, h: Number) -> Fixed:
        """The same steps again."""
        return self

    def start(self, t0: Number, t1: Number) -> tuple[Number, Number, Number]:
        """Steps taken, steps to take, and the start."""
        steps = abs(t1 - t0) / self.step_size - 1e-9
        if isinstance(t0, Tensor):
            return torch.zeros_like(t0), steps.ceil(), t0
        return 0.0, math.ceil(steps) if math.isfinite(steps) else steps, t0

    def propose(self, t: Number, h: Number, end: Number, direction: float, history: Any) -> StepProposal:
        """The next time of the grid."""
        taken, steps, t0 = history
        reaches_end = taken + 1 >= steps
        t1 = where(reaches_end, end, t0 + direction * self.step_size * (taken + 1))
        return StepProposal(t1 - t, t1, reaches_end, reaches_end)

    def decide(self, ratio: Number, h: Number, wanted: Number, clipped: Flag, history: Any, order: int) -> StepDecision:
        """Always keep; a step that was cut short does not reach the grid."""
        taken, steps, t0 = history
        return StepDecision(h == h, wanted, (taken + negate(clipped), steps, t0))


@dataclass(frozen=True, eq=False)
class Given:
    """Take stated steps, of any method, and keep them all.

    Parameters
    ----------
    times : Tensor[N + 1] or Tensor[rows, N + 1]
        Where steps begin and end. Their differences are the step sizes: steps start at the first time of the solve, and
        the last one ends at its last time. In a row of its own, equal times at the end take no step.

    Examples
    --------
    >>> import torch, neuralode as node
    >>> grid = torch.linspace(0, 1, 6, dtype=torch.float64)
    >>> sol = node.solve(lambda t, y: -y, torch.ones(1), (0.0, 1.0), method="euler", controller=node.Given(grid))
    >>> round(sol.y1.item(), 5) == round(0.8**5, 5)
    True
    """

    times: Tensor

    adaptive = False
    norm = "rms"

    def __post_init__(self) -> None:
        times = self.times
        if not isinstance(times, Tensor) or not times.is_floating_point() or times.dim() not in (1, 2):
            raise TypeError("Given(times) wants a floating tensor [N + 1] or [rows, N + 1].")
        if times.shape[-1] < 2:
            raise ValueError(f"Given(times) has {times.shape[-1]} times; wanted at least two, the ends of a step.")
        object.__setattr__(self, "times", times.detach().double())

    def start(self, t0: Number, t1: Number) -> Any:
        """Steps taken, steps to take, and where they end relative to the start."""
        offsets = self.times - self.times[..., :1]
        span = torch.as_tensor(t1 - t0, device=offsets.device)
        steps = offsets.diff()
        if bool((steps * span[..., None] < 0).any() if span.dim() == 0 or offsets.dim() == 1 else False):
            raise ValueError(
                f"Given(times) runs {self.times.tolist()}; wanted times that go the way of t, step by step."
            )
        if not isinstance(t0, Tensor):
            if self.times.dim() != 1:
                raise ValueError("Given(times) has a row for each sample; that needs per_sample=True.")
            return 0, len(offsets) - 1, (t0, offsets.tolist())
        if offsets.dim() == 2 and len(offsets) != len(t0):
            raise ValueError(
                f"Given(times) has {len(offsets)} rows, y0 has {len(t0)}; wanted one row of times for each."
            )
        offsets = offsets.to(t0.device).expand(len(t0), -1)
        moves = (offsets.diff() != 0).sum(-1)
        return torch.zeros_like(moves), moves, (t0, offsets)

    def propose(self, t: Number, h: Number, end: Number, direction: float, history: Any) -> StepProposal:
        """The end of the next stated step."""
        taken, steps, (t0, offsets) = history
        reaches_end = taken + 1 >= steps
        if isinstance(taken, Tensor):
            following = (taken + 1).clamp(max=offsets.shape[1] - 1)
            t1 = torch.where(reaches_end, end, t0 + offsets.gather(1, following[:, None])[:, 0])
        else:
            t1 = end if reaches_end else t0 + offsets[taken + 1]
        return StepProposal(t1 - t, t1, reaches_end, reaches_end)

    def decide(self, ratio: Number, h: Number, wanted: Number, clipped: Flag, history: Any, order: int) -> StepDecision:
        """Always keep; a step that was cut short does not reach the stated time."""
        taken, steps, where_from = history
        return StepDecision(h == h, wanted, (taken + negate(clipped), steps, where_from))
