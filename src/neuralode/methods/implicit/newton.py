"""Newton's iteration for the stages of an implicit method, each clock by itself.

It stops by the error that its contraction leaves to be expected (Hairer & Wanner, *Solving Ordinary Differential
Equations II*, IV.8).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeAlias

import torch
from torch import Tensor

from neuralode.core.clock import Flag, Number, isfinite, maximum, negate, power, scaled, some, where
from neuralode.methods.base import ErrorNorm, Rows
from neuralode.methods.implicit.linear import Matrix, Stages
from neuralode.methods.runge_kutta.explicit import combine

TOLERATED = 1e-2  # what may be left of a stage's error, in units of the step's tolerance
UNIT = 4.0  # what may be left where steps are stated: this many eps of the state
NOISE = 64.0  # in the same units: an increment that does not shrink any more may be this large
UNKNOWN = 1.0  # a rate that promises nothing


@dataclass(frozen=True)
class Block:
    """The equations of stages that depend on each other: Z = h (A ⊗ I) f(base + Z)."""

    matrix: Matrix
    times: Sequence[Tensor]
    base: Stages
    h: Number

    def states(self, z: Stages) -> list[Rows]:
        """Where f is evaluated."""
        return [b + x for b, x in zip(self.base, z, strict=True)]

    def residual(self, slopes: Stages, z: Stages) -> list[Rows]:
        """Z − h (A ⊗ I) K."""
        found = []
        for row, x in zip(self.matrix, z, strict=True):
            pivot, total = combine(row, slopes)
            found.append(scaled(x, -self.h * pivot, total))
        return found


class Counted:
    """The field, and what it has cost so far: evaluations by clock, and calls of the whole batch."""

    def __init__(self, f: Any, h: Number) -> None:
        self.f = f
        self.coupled: bool = f.coupled
        self.cost: Number = torch.zeros_like(h, dtype=torch.int64) if isinstance(h, Tensor) else 0
        self.calls = 0

    def evaluate(self, t: Tensor, y: Rows, who: Flag) -> Rows:
        """F there; ``who`` needs it."""
        self.count(who)
        return self.f(t, y)

    def jacobian(self, t: Tensor, y: Rows, who: Flag) -> Tensor:
        """∂f/∂y there, whose evaluation counts as one."""
        self.count(who)
        return self.f.jacobian(t, y)

    def count(self, who: Flag) -> None:
        """Note an evaluation."""
        self.cost = self.cost + who
        self.calls += 1


class Distance:
    """How large an increment is, by clock: at most 1 is negligible."""

    def __init__(self, y: Rows, error_norm: ErrorNorm | None, per_sample: bool) -> None:
        self.y, self.error_norm, self.per_sample = y, error_norm, per_sample
        self.least = torch.finfo(y.dtype).tiny
        self.unit = UNIT * torch.finfo(y.dtype).eps

    def __call__(self, increment: Stages, states: Stages) -> Number:
        """Against what the step tolerates or, where steps are stated, against rounding."""
        if self.error_norm is None:
            return self.rounding(increment, states)
        sizes = [self.error_norm(d, self.y, y) for d, y in zip(increment, states, strict=True)]
        return self._read([size / TOLERATED for size in sizes])

    def rounding(self, increment: Stages, states: Stages) -> Number:
        """Against the rounding of the states, row by row."""
        own = _largest(self.y)
        sizes = [
            _largest(d) / torch.maximum(own, _largest(y)).mul(self.unit).clamp_min(self.least)
            for d, y in zip(increment, states, strict=True)
        ]
        return self._read(sizes if self.per_sample else [size.amax() for size in sizes])

    def _read(self, sizes: list[Tensor]) -> Number:
        size = sizes[0] if len(sizes) == 1 else torch.stack(sizes).amax(0)
        return size.to(torch.float64) if self.per_sample else size.item()


def _largest(rows: Rows) -> Tensor:
    return torch.linalg.vector_norm(rows, torch.inf, dim=1) if rows.shape[1] else rows.abs().sum(1)


class Iterated(NamedTuple):
    """Where an iteration stopped."""

    z: list[Rows]
    solved: Flag
    rate: Number  # the worst contraction seen; 0 where none was
    seen: Flag


Solve: TypeAlias = Callable[[Stages, Stages, Flag], list[Rows]]  # (residual, states, who) -> increment


def iterate(
    f: Counted,
    block: Block,
    z: Stages,
    solve: Solve,
    distance: Distance,
    active: Flag,
    rate: Number,
    limit: int,
    patient: float = 0.0,
) -> Iterated:
    """Z ← Z − increment, until on every active clock the error to be expected is negligible, or nothing comes of it.

    Parameters
    ----------
    f : Counted
        The field.
    block : Block
        The equations.
    z : sequence of State
        Where to begin.
    solve : callable
        The increment for a residual.
    distance : Distance
        The size of an increment.
    active : Flag
        The clocks to iterate; the others stay where they are.
    rate : Number
        The contraction to expect until one has been seen.
    limit : int
        Iterations at most.
    patient : float
        Positive for an iteration that may go astray at first: it is given its ``limit``, and an increment below this
        that does not shrink any more is taken for the noise of f.
    """
    z = list(z)
    solved, seen = negate(active), active & False
    worst, last = rate * 0, rate * 0
    stated = distance.error_norm is None
    least = 1 if stated else 0
    for i in range(limit):
        states = block.states(z)
        slopes = [f.evaluate(t, y, active) for t, y in zip(block.times, states, strict=True)]
        increment = solve(block.residual(slopes, z), states, active)
        size = distance(increment, states)
        z = [where(active, x - d, x) for x, d in zip(z, increment, strict=True)]
        finite, astray = isfinite(size), active & False
        if i:
            now = size / maximum(last, 1e-300)
            telling = active & finite & ((last > 1e3) | (not stated))  # not yet among the rounding
            worst = where(telling, maximum(where(finite, now, UNKNOWN), worst), worst)
            seen = seen | telling
            rate = where(active, where(finite, now, UNKNOWN), rate)
            astray = now >= 1
        done = active & finite & ((size * rate <= 1 - rate) | (size <= least))
        left = active & negate(done)
        if patient:
            done = done | (left & finite & (rate > 0.5) & (size <= patient) & (i > 0))
            stop = negate(finite)
        else:
            stop = negate(finite) | astray | negate(_reaches(size, rate, limit - 1 - i) if i else True)
            if some(left & stop):  # it may be as near as rounding allows
                done = done | (left & stop & finite & (distance.rounding(increment, states) <= NOISE))
        solved = solved | done
        active = active & negate(done) & negate(stop)
        last = where(finite, size, last)
        if not some(active):
            break
    return Iterated(z, solved, worst, seen)


def _reaches(size: Number, rate: Number, iterations: int) -> Flag:
    """Whether this contraction comes to an end within so many iterations."""
    rate = maximum(rate, 1e-16)
    return size * power(rate, iterations + 1) <= 1 - rate
