"""One step of an implicit Runge–Kutta method: its stages solved block by block, and differentiated.

Stages are unknowns as increments Z = Y − base, from which the slopes follow as h K = A⁻¹ Z: f is not evaluated again
at a stage, where stiffness would multiply what is left of its error (Hairer & Wanner, *Solving Ordinary Differential
Equations II*, IV.8).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from neuralode.core.clock import Number, column_times, negate, some, stage_times
from neuralode.core.status import GradientError
from neuralode.methods.base import ErrorNorm, Rows
from neuralode.methods.implicit.linear import Matrix, Stages, exact, pack, products, unpack
from neuralode.methods.implicit.newton import Block, Counted, Distance
from neuralode.methods.implicit.stages import Linear, Solver
from neuralode.methods.runge_kutta.explicit import combine
from neuralode.methods.runge_kutta.tableau import Tableau

DEGREE = 2  # of the polynomial through earlier slopes that guesses the next


class Carry(NamedTuple):
    """What a step leaves for the next: its last slope, its Jacobian, and how well that contracted."""

    slope: Any = ()
    linear: Any = ()
    rate: Any = ()


class Part(NamedTuple):
    """A block of the tableau."""

    stages: tuple[int, ...]
    earlier: tuple[tuple[float, ...], ...]  # the columns of a that belong to stages already known
    matrix: Matrix | None  # its own columns; None where the stage is explicit
    inverse: Matrix
    guess: tuple[tuple[float, ...], ...]  # weights of known slopes in a guess of the new ones


class Parts(NamedTuple):
    """A tableau, cut into what is solved together."""

    tableau: Tableau
    parts: tuple[Part, ...]
    matrices: tuple[Matrix, ...]  # the different ones among the parts, which share a factorisation

    @property
    def explicit_first(self) -> bool:
        """Whether the first stage is f where the step begins."""
        return self.parts[0].matrix is None

    @classmethod
    def of(cls, tableau: Tableau) -> Parts:
        """The blocks of a tableau, in order."""
        a, c = np.array(tableau.a), np.array(tableau.c)
        parts, before = [], []
        for stages in tableau.blocks:
            matrix = a[np.ix_(stages, stages)]
            earlier = tuple(tuple(a[i, before].tolist()) for i in stages)
            guess = tuple(_extrapolation(c[before], c[i]) for i in stages)
            if not matrix.any():
                parts.append(Part(stages, earlier, None, (), guess))
            elif np.linalg.matrix_rank(matrix) < len(stages):
                raise ValueError(f"Tableau {tableau.name!r}: a is singular in the stages {stages}, solved together.")
            else:
                parts.append(Part(stages, earlier, _rows(matrix), _rows(np.linalg.inv(matrix)), guess))
            before += stages
        return cls(tableau, tuple(parts), tuple(dict.fromkeys(p.matrix for p in parts if p.matrix is not None)))


def _rows(matrix: np.ndarray) -> Matrix:
    return tuple(map(tuple, matrix.tolist()))


def _extrapolation(known: np.ndarray, node: float) -> tuple[float, ...]:
    """Weights of slopes at some nodes in the slope at another: exact for polynomials, small otherwise."""
    if not len(known):
        return ()
    same = np.flatnonzero(np.isclose(known, node, rtol=0, atol=1e-12))
    if len(same):
        weights = np.zeros(len(known))
        weights[same[-1]] = 1.0
        return tuple(weights.tolist())
    degree = min(len(set(np.round(known, 12))) - 1, DEGREE)
    powers = np.arange(degree + 1)[:, None]
    return tuple((np.linalg.pinv(known**powers) @ node ** powers[:, 0]).tolist())


class ImplicitStep:
    """One step being taken, part by part."""

    def __init__(
        self,
        parts: Parts,
        f: Any,
        t: Number,
        y: Rows,
        h: Number,
        error_norm: ErrorNorm | None,
        method_state: Carry,
        iterations: int,
        dense_limit: int,
    ) -> None:
        self.parts, self.y, self.h = parts, y, h
        self.times = stage_times(t, h, parts.tableau.c, y.dtype.to_real(), y.device)
        self.plain_h = _plain(h)
        self.f = Counted(f, self.plain_h)
        self.slope = method_state.slope if isinstance(method_state.slope, Tensor) else None
        size = (y.numel() if f.coupled else y.shape[1]) * (2 if y.is_complex() else 1)
        self.solver = Solver(
            self.f,
            stage_times(_plain(t), self.plain_h, (0.0,), y.dtype.to_real(), y.device)[0],
            y.detach(),
            self.plain_h,
            parts.matrices,
            Distance(y.detach(), error_norm, isinstance(self.plain_h, Tensor)),
            iterations,
            size <= dense_limit,
            method_state.linear if isinstance(method_state.linear, Linear) else None,
            None if isinstance(method_state.rate, tuple) else method_state.rate,
        )
        self.increments: list[Rows] = []  # h K
        self.states: list[Rows] = []
        self.first: Rows | None = None  # the slope of an explicit first stage

    def run(self, derivatives: int = 0) -> None:
        """All parts; on a shared clock only up to the first that cannot be solved."""
        for part in self.parts.parts:
            base = [plus(self.y, weights, self.increments) for weights in part.earlier]
            times = [self.times[i] for i in part.stages]
            if part.matrix is None:
                self.explicit(times, base)
            elif some(self.solver.ok):
                self.implicit(part, times, base, derivatives)
            else:
                self.states += base
                self.increments += [torch.zeros_like(x) for x in base]

    def explicit(self, times: Sequence[Tensor], base: Stages) -> None:
        """A stage of which everything is known."""
        for t, y in zip(times, base, strict=True):
            slope = self.slope if not self.states else None
            if slope is None:
                slope = self.f.evaluate(t, y, self.solver.running)
            if not self.states:
                self.first = slope
            self.states.append(y)
            self.increments.append(column_times(self.h, slope))

    def implicit(self, part: Part, times: Sequence[Tensor], base: Stages, derivatives: int) -> None:
        """Stages to be solved for."""
        assert part.matrix is not None
        with torch.no_grad():
            at = [t.detach() for t in times]
            block = Block(part.matrix, at, [x.detach() for x in base], self.plain_h)
            z = self.solver(block, self.guess(part))
        if derivatives:
            z = self.differentiable(part, times, base, block, z, derivatives)
        self.states += [b + x for b, x in zip(base, z, strict=True)]
        self.increments += [weighted(weights, z) for weights in part.inverse]

    def guess(self, part: Part) -> list[Rows]:
        """Z from the slopes that are known, as a polynomial in time continues them."""
        assert part.matrix is not None
        if not self.increments:
            return [torch.zeros_like(self.y) for _ in part.stages]
        known = [x.detach() for x in self.increments]
        slopes = [weighted(weights, known) for weights in part.guess]
        return [weighted(row, slopes) for row in part.matrix]

    def differentiable(
        self, part: Part, times: Sequence[Tensor], base: Stages, block: Block, z: Stages, derivatives: int
    ) -> list[Rows]:
        """The solution with the derivatives that the implicit function theorem gives it.

        Newton's map with the exact matrix at the solution, held constant, leaves the solution where it is and has no
        derivative by Z there: each application makes one more derivative by y, t, h and the parameters right.
        """
        if some(negate(self.solver.ok)):
            raise GradientError(
                "the stages of an implicit step could not be solved to rounding going back; wanted smaller steps or "
                "tolerances, or more digits in f (float64)."
            )
        correction = self.correction(block, block.states(z))
        live = Block(block.matrix, times, base, self.h)
        for _ in range(derivatives):
            slopes = [self.f.f(t, y) for t, y in zip(times, live.states(z), strict=True)]
            moves = correction(live.residual(slopes, z))
            z = [x - move for x, move in zip(z, moves, strict=True)]
        return list(z)

    def correction(self, block: Block, states: Stages) -> Callable[[Stages], list[Rows]]:
        """What the exact Newton iteration at these states makes of a residual, differentiable in that."""
        field, h = self.f.f, self.plain_h
        if self.solver.dense:
            with torch.no_grad():
                factors = exact(field, block.matrix, block.times, states, h)
                self.solver.adopt(block.matrix, factors)
            return factors.solve
        inverse = products(field, block.matrix, block.times, states, h)
        blocks = 1 if field.coupled else len(self.y)
        finest = 10 * torch.finfo(self.y.dtype).eps

        def by_products(residual: Stages) -> list[Rows]:
            # of the residual itself only rounding is left, but not of the cotangents
            return unpack(inverse(pack(residual, blocks), 1e-3, finest), residual)

        return by_products

    def end(self) -> Rows:
        """The new state."""
        if self.parts.tableau.stiffly_accurate:
            return self.states[-1]
        return plus(self.y, self.parts.tableau.b, self.increments)


def _plain(a: Number) -> Number:
    """Without history; a float where it is of all clocks."""
    if not isinstance(a, Tensor):
        return a
    return a.detach() if a.dim() else a.item()


def weighted(weights: Sequence[float], terms: Stages) -> Rows:
    """Σ wᵢ xᵢ."""
    if not any(weights):
        return torch.zeros_like(terms[0])
    pivot, total = combine(tuple(weights), terms)
    return total if pivot == 1 else total * pivot


def plus(y: Rows, weights: Sequence[float], terms: Stages) -> Rows:
    """Y + Σ wᵢ xᵢ."""
    if not any(weights):
        return y
    pivot, total = combine(tuple(weights), terms)
    return torch.add(y, total, alpha=pivot)


def divided(increment: Rows, h: Number) -> Rows:
    """The slope of an increment; clocks that stand still have none that anyone reads."""
    if isinstance(h, Tensor):
        return increment / (h if not h.dim() else h[:, None]).to(increment.dtype)
    return increment / h
