"""PID controllers: step sizes from the errors of past steps."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from neuralode.controllers.base import AttemptOutcome, SolveStart, StepDecision, StepProposal, StepRequest
from neuralode.controllers.initial_step import estimate_initial_step
from neuralode.core.clock import Flag, Number, isfinite, maximum, minimum, negate, power, replace_nan, where
from neuralode.core.norms import Reduction

SAFETY = 0.9
FACTOR_MIN, FACTOR_MAX = 0.2, 10.0
RATIO_MIN = 1e-10  # smaller ratios count as this one
END_STRETCH = 1.01  # stretch a step by up to this factor to reach the end


class PIDHistory(NamedTuple):
    """The last two accepted ratios, and whether the step may grow."""

    last: Number
    before: Number
    may_grow: Flag


@dataclass(frozen=True)
class PID:
    r"""Adapt the step by a proportional–integral–derivative controller.

    With k = error order + 1 and r_n the error ratio of step n, the next step is h times

    .. math:: s\; r_n^{-(P + I + D)/k}\; r_{n-1}^{(P + 2D)/k}\; r_{n-2}^{-D/k}

    clamped to [``factor_min``, ``factor_max``]. Attempts that are not finite or whose ratio exceeds 1 are rejected.
    After a rejection the factor is at most 0.9, and the step accepted next is not followed by one that is larger than
    it was planned to be. Only unclipped accepted steps enter the ratios r.

    Parameters
    ----------
    proportional, integral, derivative : float, default=-2/9, 2/9, 1/18
        P, I and D. The defaults are Söderlind's H312 filter, which gives smooth step sequences.
    safety : float, default=0.9
        The safety factor s, in (0, 1].
    factor_min, factor_max : float, default=0.2, 10.0
        Bounds on the ratio of consecutive step sizes.
    first_step : float or Tensor[rows], default=None
        Size of the first attempt; estimated if None.
    min_step, max_step : float, default=None
        Bounds on the size. A step of size ``min_step`` is accepted whatever its error, if that is finite.
    norm : {"rms", "max"} or callable, default="rms"
        How scaled errors reduce to one ratio. A callable takes the pytree of scaled errors and returns one number, or
        one for each row with ``per_sample``.

    Raises
    ------
    ValueError
        For sizes that are not positive, factors outside their ranges, or ``min_step`` above ``max_step``.

    References
    ----------
    G. Söderlind, Digital filters in adaptive time-stepping, ACM Trans. Math. Softw. 29(1), 2003.
    The first and the last step: Hairer, Nørsett & Wanner, Solving Ordinary Differential Equations I, II.4.

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
    norm: Literal["rms", "max"] | Reduction = "rms"

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
        """Return the history before the first step."""
        one = torch.ones_like(t0) if isinstance(t0, Tensor) else 1.0
        return PIDHistory(one, one, one == 1)

    def initial_step(self, start: SolveStart) -> tuple[Number, int]:
        """Return ``first_step``, or an estimate, and the calls of f that it took."""
        problem = start.problem
        span = abs(problem.end - problem.start)
        if self.first_step is None:
            h, calls = estimate_initial_step(start)
            return minimum(self.bound(h), maximum(span, self.min_step or 0.0)), calls
        h = self.first_step
        if isinstance(h, Tensor) != isinstance(span, Tensor):
            h = span * 0 + h
        return self.bound(minimum(h, span)), 0

    def resume(self, h: Number) -> PID:
        """Return the controller with ``h`` as its first step; clocks without a size take the largest of the others."""
        if isinstance(h, Tensor):
            if not bool((h > 0).any()):
                return replace(self, first_step=None)
            return replace(self, first_step=torch.where(h > 0, h, h.max()))
        return replace(self, first_step=h if h > 0 else None)

    def bound(self, h: Number) -> Number:
        """Clamp a size to [``min_step``, ``max_step``]."""
        if self.max_step is not None:
            h = minimum(h, self.max_step)
        return h if self.min_step is None else maximum(h, self.min_step)

    def propose(self, request: StepRequest, history: PIDHistory) -> StepProposal:
        """Step to the end if it is within reach; halve the remaining span rather than leave a tiny last step."""
        t, h, end, direction = request
        rest = end - t
        left = rest * direction
        reaches_end = h * END_STRETCH >= left
        clipped = reaches_end | (2 * h > left)
        signed = where(reaches_end, rest, where(clipped, rest / 2, h * direction))
        t1 = where(reaches_end, end, t + signed)
        return StepProposal(h=signed, t1=t1, reaches_end=reaches_end, clipped=clipped)

    def decide(self, outcome: AttemptOutcome, history: PIDHistory) -> StepDecision:
        """Accept a step whose error ratio is at most 1, and scale the next size by the filter."""
        assert outcome.ratio is not None, "an adaptive method estimates its error"
        ratio, h, order = outcome.ratio, outcome.h, outcome.order
        accept = ratio <= 1
        if self.min_step is not None:
            accept = accept | (isfinite(ratio) & (h <= self.min_step))
        ratio = maximum(ratio, RATIO_MIN)

        p, i, d = self.proportional, self.integral, self.derivative
        factor = self.safety * power(ratio, -(p + i + d) / order)
        if p + 2 * d:
            factor = factor * power(history.last, (p + 2 * d) / order)
        if d:
            factor = factor * power(history.before, -d / order)
        largest = where(accept, where(history.may_grow, self.factor_max, 1.0), SAFETY)
        factor = maximum(replace_nan(minimum(factor, largest), self.factor_min), self.factor_min)

        following = self.bound(h * factor)
        following = where(accept & outcome.clipped, maximum(following, outcome.planned), following)
        history = history._replace(may_grow=accept)
        if p + 2 * d or d:
            entered = accept & negate(outcome.clipped)
            last, before = where(entered, ratio, history.last), where(entered, history.last, history.before)
            history = history._replace(last=last, before=before)
        return StepDecision(accept, following, history)


@dataclass(frozen=True)
class PI(PID):
    """`PID` with Gustafsson's coefficients P = 0.4, I = 0.3 and no derivative part."""

    proportional: float = 0.4
    integral: float = 0.3
    derivative: float = 0.0


@dataclass(frozen=True)
class I(PID):  # noqa: E742 (the name in the literature)
    """`PID` with the integral part only: the classical controller. The default."""

    proportional: float = 0.0
    integral: float = 1.0
    derivative: float = 0.0
