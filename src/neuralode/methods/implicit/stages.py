"""The solver of the stages of one step, and what it hands on to the next: a Jacobian, frozen while it does.

Simplified Newton iterations with one factorisation for all stages (Hairer & Wanner, *Solving Ordinary Differential
Equations II*, IV.8). The Jacobian is made anew for the next step when it contracts badly, and at once when it does not
contract at all.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from neuralode.core.clock import Flag, Number, maximum, negate, power, some, where
from neuralode.methods.base import Rows
from neuralode.methods.implicit.linear import Factors, Matrix, Stages, exact, factorise, krylov
from neuralode.methods.implicit.newton import UNKNOWN, Block, Counted, Distance, Iterated, Solve, iterate

REFRESH = 0.01  # a Jacobian that contracts less than this is made anew for the next step
SAME = 1e-9  # relative difference of two step sizes that may share a factorisation


class Linear(NamedTuple):
    """A frozen Jacobian with the factorised iteration matrices that belong to it and to one step size."""

    jacobian: Tensor
    fresh: Flag  # it was evaluated where this step begins
    poor: Flag  # it contracted badly when it was last used
    h: Number
    factors: tuple[Factors, ...]  # one for every matrix of the method


class Solver:
    """Solves the blocks of one step one after another, and learns on the way what the next step may use.

    Parameters
    ----------
    f : Counted
        The field.
    t, y, h
        The step, without history.
    matrices : sequence of Matrix
        All that the blocks of the method have.
    distance : Distance
        What is negligible.
    limit : int
        Iterations at most with one Jacobian.
    dense : bool
        Whether to form Jacobians, or to do with products.
    linear : Linear, optional
        What the step before left.
    rate : Number, optional
        How well it contracted.
    """

    def __init__(
        self,
        f: Counted,
        t: Tensor,
        y: Rows,
        h: Number,
        matrices: Sequence[Matrix],
        distance: Distance,
        limit: int,
        dense: bool,
        linear: Linear | None = None,
        rate: Number | None = None,
    ) -> None:
        self.f, self.t, self.y, self.h = f, t, y, h
        self.matrices, self.distance, self.limit, self.dense = matrices, distance, limit, dense
        self.running: Flag = h != 0  # clocks that are done stand still
        self.ok: Flag = self.running | True
        self.rate: Number = h * 0 + UNKNOWN if rate is None else power(maximum(rate, 1e-16), 0.8)
        self.seen: Flag = self.running & False
        self.linear = linear
        if dense:
            self._prepare()

    def __call__(self, block: Block, guess: Stages) -> list[Rows]:
        """Z of a block; clocks on which it is not found are no longer ``ok``."""
        z, left = list(guess), self.running & self.ok
        for n, way in enumerate(self._ways):
            if not some(left):
                break
            if n:  # a guess that continues the slopes may be where no iteration leads back from
                z = [where(left, torch.zeros_like(x), x) for x in z]
            found = way(block, z, left)
            z, left = found.z, left & negate(found.solved)
        self.ok = self.ok & negate(left)
        return z

    @property
    def _ways(self) -> list[Callable[[Block, Stages, Flag], Iterated]]:
        """What is tried, each where the one before did not do."""
        if not self.dense:
            return [self._by_products, self._by_products]
        stated = self.distance.error_norm is None
        return [self._frozen, self._anew, *([self._throughout] if stated else [])]

    def _frozen(self, block: Block, z: Stages, active: Flag) -> Iterated:
        """By the Jacobian at hand."""
        assert self.linear is not None
        factors = self.linear.factors[self.matrices.index(block.matrix)]
        found = self._iterate(block, z, lambda residual, states, who: factors.solve(residual), active)
        self._learn(found)
        return found

    def _anew(self, block: Block, z: Stages, active: Flag) -> Iterated:
        """By the Jacobian where the step begins."""
        assert self.linear is not None
        self._refresh(active & negate(self.linear.fresh))
        self.rate, self.seen = where(active, UNKNOWN, self.rate), self.seen & negate(active)
        return self._frozen(block, z, active)

    def _throughout(self, block: Block, z: Stages, active: Flag) -> Iterated:
        """By the Jacobian at every iterate."""

        def solve(residual: Stages, states: Stages, who: Flag) -> list[Rows]:
            for _ in states:
                self.f.count(who)
            return exact(self.f.f, block.matrix, block.times, states, self.h).solve(residual)

        return self._iterate(block, z, solve, active, patient=True)

    def _by_products(self, block: Block, z: Stages, active: Flag) -> Iterated:
        """By products with the Jacobian at every iterate."""

        def solve(residual: Stages, states: Stages, who: Flag) -> list[Rows]:
            for _ in states:
                self.f.count(who)
            return krylov(self.f.f, block.matrix, block.times, states, self.h, residual, who)

        found = self._iterate(block, z, solve, active, patient=self.distance.error_norm is None)
        self._learn(found)
        return found

    def _iterate(self, block: Block, z: Stages, solve: Solve, active: Flag, patient: bool = False) -> Iterated:
        limit = 2 * self.limit if self.distance.error_norm is None else self.limit  # rounding is further away
        noise = _resolution(self.f.f, self.y) ** 0.5 / self.distance.unit if patient else 0.0
        return iterate(self.f, block, z, solve, self.distance, active, self.rate, limit, noise)

    def _learn(self, found: Iterated) -> None:
        """Remember the worst contraction of this step."""
        worst = maximum(found.rate, where(self.seen, self.rate, 0 * found.rate))
        self.rate = where(found.seen, worst, self.rate)
        self.seen = self.seen | found.seen

    def _prepare(self) -> None:
        """A Jacobian, if there is none or a poor one, and the factorisations for this step size."""
        if self.linear is None:
            everyone = self.running | True
            jacobian = self.f.jacobian(self.t, self.y, self.running)
            factors = tuple(factorise(matrix, self.h, [jacobian]) for matrix in self.matrices)
            self.linear = Linear(jacobian, everyone, everyone & False, self.h, factors)
            return
        poor = self.linear.poor & negate(self.linear.fresh) & self.running
        if some(poor):
            self._refresh(poor)
        self._factorise(abs(self.h - self.linear.h) > SAME * abs(self.linear.h))

    def _refresh(self, who: Flag) -> None:
        """Make the Jacobian anew, where the step begins."""
        assert self.linear is not None
        if not some(who):
            return
        jacobian = self.f.jacobian(self.t, self.y, who)
        self.linear = self.linear._replace(
            jacobian=where(who, jacobian, self.linear.jacobian),
            fresh=self.linear.fresh | who,
            poor=self.linear.poor & negate(who),
        )
        self._factorise(who)

    def _factorise(self, who: Flag) -> None:
        assert self.linear is not None
        if not some(who):
            return
        linear = self.linear
        h = where(who, self.h, linear.h)
        new = [factorise(matrix, h, [linear.jacobian]) for matrix in self.matrices]
        factors = tuple(
            Factors(*(where(who, a, b) for a, b in zip(one, other, strict=True)))
            for one, other in zip(new, linear.factors, strict=True)
        )
        self.linear = linear._replace(h=h, factors=factors)

    def adopt(self, matrix: Matrix, factors: Factors) -> None:
        """Go on with the exact factors of one block: the next stage is nearer to it than to where the step begins."""
        assert self.linear is not None
        index = self.matrices.index(matrix)
        known = self.linear.factors
        self.linear = self.linear._replace(factors=(*known[:index], factors, *known[index + 1 :]))

    def learned(self) -> Linear | None:
        """The Jacobian as it is left for another attempt from here."""
        if self.linear is None:
            return None
        return self.linear._replace(poor=where(self.seen, self.rate > REFRESH, self.linear.poor))


def _resolution(f: Any, y: Rows) -> float:
    """Relative resolution of the coarsest dtype in which f works."""
    coarsest = max(torch.finfo(y.dtype).eps, torch.finfo(getattr(f, "dtype", None) or y.dtype).eps)
    if torch.is_autocast_enabled(y.device.type):
        coarsest = max(coarsest, torch.finfo(torch.get_autocast_dtype(y.device.type)).eps)
    return coarsest
