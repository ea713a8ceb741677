"""Steps chosen by their error: the PID controllers."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import torch
from torch import Tensor

from neuralode.controllers.base import StepDecision, StepProposal
from neuralode.core.clock import Flag, Number, maximum, minimum, negate, power, where
from neuralode.core.clock import isfinite as finite

SAFETY = 0.9
FACTOR_MIN, FACTOR_MAX = 0.2, 10.0
RATIO_MIN = 1e-10  # a smaller ratio says nothing more
LANDING = 1.01  # a step this much short of the target is stretched to it


class PIDHistory(NamedTuple):
    """What a PID controller remembers: the last two ratios accepted, and whether it may grow."""

    last: Number
    before: Number
    may_grow: Flag


@dataclass(frozen=True)
class PID:
    r"""Adapt the step by a proportional–integral–derivative controller.

    With k = error order + 1 and r_n the error ratio of step n, the next step is h times

    .. math:: s\; r_n^{-(P + I + D)/k}\; r_{n-1}^{(P + 2D)/k}\; r_{n-2}^{-D/k}

    held between ``factor_min`` and ``factor_max``. Non-finite attempts and those with a ratio above 1 are rejected;
    after a rejection the next accepted step does not grow; rejections and clipped steps do not enter the history.

    Parameters
    ----------
    proportional, integral, derivative : float
        P, I, D. The defaults are Söderlind's H312 filter, which gives smooth step sequences.
    safety : float
        The factor s.
    factor_min, factor_max : float
        The least and the most by which a step may differ from the one before.
    first_step : float, optional
        Size of the first attempt; estimated unless given.
    min_step, max_step : float, optional
        Bounds on the size. A step of ``min_step`` is kept whatever its error.
    norm : {"rms", "max"} or callable
        How errors are reduced; a callable takes the pytree of scaled errors and returns a number, or one a row.

    References
    ----------
    G. Söderlind, Digital filters in adaptive time-stepping, ACM Trans. Math. Softw. 29(1), 2003.
    The landing and the first step: Hairer, Nørsett & Wanner I, II.4.

    Examples
    --------
    >>> import torch, neuralode as node
    >>> sol = node.solve(lambda t, y: -y, torch.ones(1), (0.0, 1.0), controller=node.PI(max_step=0.1))
    >>> int(sol.stats.accepted)
    11
    """

    proportional: float = -2 / 9
    integral: float = 2 / 9
    derivative: float = 1 / 18
    safety: float = SAFETY
    factor_min: float = FACTOR_MIN
    factor_max: float = FACTOR_MAX
    first_step: float | Tensor | None = None
    min_step: float | None = None
    max_step: float | None = None
    norm: Any = "rms"

    adaptive = True

    def __post_init__(self) -> None:
        for name in ("first_step", "min_step", "max_step"):
            value = getattr(self, name)
            if value is not None and not isinstance(value, Tensor) and not value > 0:
                raise ValueError(f"{name}={value!r}; wanted a positive size (the direction is that of t).")
        if not 0 < self.safety <= 1:
            raise ValueError(f"safety={self.safety!r}; wanted a number in (0, 1].")
        if not 0 < self.factor_min <= 1 <= self.factor_max:
            raise ValueError(
                f"factor_min={self.factor_min!r}, factor_max={self.factor_max!r}; wanted one in (0, 1], and one of at "
                "least 1."
            )
        if self.min_step is not None and self.max_step is not None and self.min_step > self.max_step:
            raise ValueError(f"min_step={self.min_step!r} is above max_step={self.max_step!r}.")

    def start(self, t0: Number, t1: Number) -> PIDHistory:
        """The history before the first step."""
        one = torch.ones_like(t0) if isinstance(t0, Tensor) else 1.0
        return PIDHistory(one, one, one == 1)

    def resume(self, h: Number) -> PID:
        """The same, beginning with the size once reached; clocks that took no step say nothing about it."""
        if isinstance(h, Tensor):
            if not bool((h > 0).any()):
                return replace(self, first_step=None)
            return replace(self, first_step=torch.where(h > 0, h, h.max()))
        return replace(self, first_step=h if h > 0 else None)

    def bound(self, h: Number) -> Number:
        """A size held between ``min_step`` and ``max_step``."""
        if self.max_step is not None:
            h = minimum(h, self.max_step)
        return h if self.min_step is None else maximum(h, self.min_step)

    def propose(self, t: Number, h: Number, end: Number, direction: float, history: PIDHistory) -> StepProposal:
        """Land on the end if it is within reach; halve what is left rather than leave a sliver."""
        left = (end - t) * direction
        reaches_end = h * LANDING >= left
        clipped = reaches_end | (2 * h > left)
        signed = where(reaches_end, end - t, where(clipped, left / 2, h) * direction)
        return StepProposal(signed, where(reaches_end, end, t + signed), reaches_end, clipped)

    def decide(
        self, ratio: Number, h: Number, wanted: Number, clipped: Flag, history: PIDHistory, order: int
    ) -> StepDecision:
        """Keep a step of size h whose error ratio is at most 1; ``wanted`` is the size before clipping."""
        sound = finite(ratio)
        accept = sound & (ratio <= 1)
        if self.min_step is not None:
            accept = accept | (sound & (h <= self.min_step))
        ratio = maximum(where(sound, ratio, math.inf), RATIO_MIN)

        p, i, d = self.proportional, self.integral, self.derivative
        factor = self.safety * power(ratio, -(p + i + d) / order)
        if p + 2 * d:
            factor = factor * power(history.last, (p + 2 * d) / order)
        if d:
            factor = factor * power(history.before, -d / order)
        most = where(accept, where(history.may_grow, self.factor_max, 1.0), SAFETY)
        factor = maximum(minimum(factor, most), self.factor_min)

        following = self.bound(h * factor)
        following = where(accept & clipped, maximum(following, wanted), following)
        entered = accept & negate(clipped)
        return StepDecision(
            accept,
            following,
            PIDHistory(where(entered, ratio, history.last), where(entered, history.last, history.before), accept),
        )


@dataclass(frozen=True)
class PI(PID):
    """`PID` with Gustafsson's proportional–integral choice: P = 0.4, I = 0.3, no D."""

    proportional: float = 0.4
    integral: float = 0.3
    derivative: float = 0.0


@dataclass(frozen=True)
class I(PID):  # noqa: E742 (the field's own name)
    """`PID` with the integral part alone: the classical controller, and the default."""

    proportional: float = 0.0
    integral: float = 1.0
    derivative: float = 0.0
