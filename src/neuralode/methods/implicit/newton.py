"""Newton's iteration for the stages of an implicit method, on every clock separately.

It stops by the error that its contraction lets expect (Hairer & Wanner, *Solving Ordinary Differential Equations II*,
IV.8).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple, TypeAlias

import torch
from torch import Tensor

from neuralode.core.clock import Flag, Number, isfinite, maximum, negate, power, some, where
from neuralode.methods.base import ErrorNorm, Rows
from neuralode.methods.implicit.stage_equations import CountedField, StageEquations, Stages

STAGE_TOLERANCE = 1e-2  # error that may remain in a stage, in units of the step's tolerance
ROUNDING = 4.0  # error that may remain on fixed steps, in eps of the state
NOISE = 64.0  # size up to which an increment that no longer shrinks counts as rounding, in the same units
UNKNOWN_RATE = 1.0  # the rate of an iteration that has not been measured
SLOW_RATE = 0.5  # rate above which an iteration with noise is no longer contracting

# (residual, states, active) -> increment
Correction: TypeAlias = Callable[[Stages, Stages, Flag], list[Rows]]


class IncrementNorm:
    """The size of an increment by clock; at most 1 is negligible.

    Parameters
    ----------
    y : Tensor[rows, features]
        The state at the start of the step.
    error_norm : callable or None
        The norm that the tolerances define; None on fixed steps, where increments are compared with rounding.
    per_sample : bool
        Whether every row has a clock.
    """

    def __init__(self, y: Rows, error_norm: ErrorNorm | None, per_sample: bool) -> None:
        self.y, self.error_norm, self.per_sample = y, error_norm, per_sample
        self.tiny = torch.finfo(y.dtype).tiny
        self.unit = ROUNDING * torch.finfo(y.dtype).eps

    def __call__(self, increment: Stages, states: Stages) -> Number:
        """Return the size relative to the tolerance or, on fixed steps, to rounding."""
        if self.error_norm is None:
            return self.relative_to_rounding(increment, states)
        sizes = [self.error_norm(d, self.y, y) for d, y in zip(increment, states, strict=True)]
        return self._largest([size / STAGE_TOLERANCE for size in sizes])

    def relative_to_rounding(self, increment: Stages, states: Stages) -> Number:
        """Return the size relative to the rounding of the states."""
        start = _row_norm(self.y)
        sizes = [
            _row_norm(d) / torch.maximum(start, _row_norm(y)).mul(self.unit).clamp_min(self.tiny)
            for d, y in zip(increment, states, strict=True)
        ]
        return self._largest(sizes if self.per_sample else [size.amax() for size in sizes])

    def _largest(self, sizes: list[Tensor]) -> Number:
        size = sizes[0] if len(sizes) == 1 else torch.stack(sizes).amax(0)
        return size.to(torch.float64) if self.per_sample else size.item()


def _row_norm(rows: Rows) -> Tensor:
    return torch.linalg.vector_norm(rows, torch.inf, dim=1) if rows.shape[1] else rows.abs().sum(1)


class NewtonState(NamedTuple):
    """An iteration in progress or, at the end, its result."""

    z: list[Rows]
    active: Flag  # clocks that iterate
    solved: Flag
    rate: Number  # contraction of the last iteration; at first the expected one
    size: Number  # of the last increment
    worst_rate: Number  # the worst rate measured; 0 if none was
    measured: Flag  # whether a rate was measured


@dataclass(frozen=True)
class Newton:
    """Z ← Z − increment, until the expected error is negligible on every active clock or the iteration fails.

    Parameters
    ----------
    field : CountedField
        The field.
    norm : IncrementNorm
        The size of increments.
    limit : int
        Iterations at most.
    noise : float, default=0.0
        Above 0 for an iteration that may diverge at first: it continues up to the limit, and an increment below this
        size that no longer shrinks counts as noise of f.
    """

    field: CountedField
    norm: IncrementNorm
    limit: int
    noise: float = 0.0

    @property
    def fixed(self) -> bool:
        """Whether steps are fixed, so that stages are solved to rounding."""
        return self.norm.error_norm is None

    def solve(
        self, equations: StageEquations, z: Stages, *, correction: Correction, active: Flag, rate: Number
    ) -> NewtonState:
        """Iterate.

        Parameters
        ----------
        equations : StageEquations
            The equations.
        z : sequence of Tensor[rows, features]
            The initial guess.
        correction : callable
            Returns the increment for a residual.
        active : bool or Tensor[rows]
            The clocks to iterate; the others keep their z.
        rate : float or Tensor[rows]
            The contraction to expect until one has been measured.
        """
        state = NewtonState(
            z=list(z),
            active=active,
            solved=negate(active),
            rate=rate,
            size=rate * 0,
            worst_rate=rate * 0,
            measured=active & False,
        )
        for iteration in range(self.limit):
            states = equations.states(state.z)
            slopes = [self.field.evaluate(t, y, state.active) for t, y in zip(equations.times, states, strict=True)]
            increment = correction(equations.residual(slopes, state.z), states, state.active)
            size = self.norm(increment, states)
            z = [where(state.active, x - d, x) for x, d in zip(state.z, increment, strict=True)]
            state = state._replace(z=z)
            if iteration:
                state = self._measure_rate(state, size)
            done, failed = self._judge(state, size, iteration)
            left = state.active & negate(done)
            if not self.noise and some(left & failed):  # it may be as close as rounding allows
                rounding = self.norm.relative_to_rounding(increment, states) <= NOISE
                done = done | (left & failed & isfinite(size) & rounding)
            state = state._replace(
                solved=state.solved | done,
                active=state.active & negate(done) & negate(failed),
                size=where(isfinite(size), size, state.size),
            )
            if not some(state.active):
                break
        return state

    def _measure_rate(self, state: NewtonState, size: Number) -> NewtonState:
        """Return the state with the contraction from the last increment to one of this size."""
        finite = isfinite(size)
        rate = where(finite, size / maximum(state.size, 1e-300), UNKNOWN_RATE)
        significant = state.active & finite & ((state.size > 1e3) | (not self.fixed))  # not rounding yet
        return state._replace(
            rate=where(state.active, rate, state.rate),
            worst_rate=where(significant, maximum(rate, state.worst_rate), state.worst_rate),
            measured=state.measured | significant,
        )

    def _judge(self, state: NewtonState, size: Number, iteration: int) -> tuple[Flag, Flag]:
        """Return which active clocks are solved, and on which clocks it is pointless to continue."""
        rate, finite = state.rate, isfinite(size)
        negligible = 1 if self.fixed else 0
        done = state.active & finite & ((size * rate <= 1 - rate) | (size <= negligible))
        if self.noise:
            stalled = (rate > SLOW_RATE) & (size <= self.noise) & (iteration > 0)
            return done | (state.active & finite & stalled), negate(finite)
        failed = negate(finite)
        if iteration:
            failed = failed | (rate >= 1) | negate(_converges_within(self.limit - 1 - iteration, size, rate))
        return done, failed


def _converges_within(iterations: int, size: Number, rate: Number) -> Flag:
    """Return whether this contraction makes the error negligible within this number of iterations."""
    rate = maximum(rate, 1e-16)
    return size * power(rate, iterations + 1) <= 1 - rate
