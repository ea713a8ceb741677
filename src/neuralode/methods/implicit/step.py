"""One step of an implicit Runge–Kutta method: its stages are solved block by block, and differentiated.

The unknowns are the increments Z = Y − base of the stages. Slopes follow as h K = A⁻¹ Z, without evaluating f at a
stage, where stiffness would amplify the remaining error (Hairer & Wanner, *Solving Ordinary Differential Equations II*,
IV.8).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, TypeAlias, cast

import torch
from torch import Tensor

from neuralode.core.clock import Number, column_times, negate, some
from neuralode.core.status import GradientError
from neuralode.methods.base import ErrorNorm, JacobianField, Rows, StepStart
from neuralode.methods.implicit.linear_systems import exact_factors, exact_products, pack, unpack
from neuralode.methods.implicit.newton import IncrementNorm
from neuralode.methods.implicit.stage_equations import CountedField, StageEquations, Stages
from neuralode.methods.implicit.stage_solver import FrozenJacobian, StageSolver
from neuralode.methods.implicit.tableau_blocks import TableauBlock, TableauBlocks
from neuralode.methods.linear_combinations import add_weighted, weighted_sum

GRADIENT_TOLERANCE = 1e-3  # of GMRES on a residual at rounding level; cotangents are solved to rounding

Absent: TypeAlias = tuple[()]  # an empty pytree


class ImplicitState(NamedTuple):
    """The method state: the last slope, the Jacobian and its contraction, each of which may be absent."""

    slope: Rows | Absent = ()
    jacobian: FrozenJacobian | Absent = ()
    rate: Number | Absent = ()


class ImplicitStep:
    """One step in progress.

    Parameters
    ----------
    blocks : TableauBlocks
        The method.
    start : StepStart
        Where the step starts, and its size.
    error_norm : callable or None
        The norm that the tolerances define; None on fixed steps.
    iterations : int
        Newton iterations at most with one Jacobian.
    dense_limit : int
        Size of a system up to which Jacobians are formed.

    Attributes
    ----------
    increments : list of Tensor[rows, features]
        h K of the stages so far.
    states : list of Tensor[rows, features]
        The states of the stages so far.
    first_slope : Tensor[rows, features] or None
        The slope of an explicit first stage.
    """

    def __init__(
        self,
        blocks: TableauBlocks,
        start: StepStart,
        *,
        error_norm: ErrorNorm | None,
        iterations: int,
        dense_limit: int,
    ) -> None:
        self.blocks, self.start = blocks, start
        y, h = start.y, _without_history(start.h)
        state = start.method_state or ImplicitState()
        self.times = start.times(blocks.tableau.c)
        self.field = CountedField(cast(JacobianField, start.f), h)
        self.known_slope = state.slope if isinstance(state.slope, Tensor) else None
        self.h = h
        size = (y.numel() if self.field.coupled else y.shape[1]) * (2 if y.is_complex() else 1)
        self.solver = StageSolver(
            self.field,
            StepStart(start.f, _without_history(start.t), y.detach(), h=h),
            blocks.matrices,
            norm=IncrementNorm(y.detach(), error_norm, isinstance(h, Tensor)),
            iterations=iterations,
            dense=size <= dense_limit,
            frozen=state.jacobian if isinstance(state.jacobian, FrozenJacobian) else None,
            rate=None if isinstance(state.rate, tuple) else state.rate,
        )
        self.increments: list[Rows] = []
        self.states: list[Rows] = []
        self.first_slope: Rows | None = None

    def run(self, derivatives: int = 0) -> None:
        """Compute all blocks; on a shared clock only up to the first that cannot be solved."""
        for block in self.blocks.blocks:
            base = [add_weighted(self.start.y, weights, self.increments) for weights in block.earlier]
            if block.matrix is None:
                self._explicit(block, base)
            elif some(self.solver.ok):
                self._implicit(block, base, derivatives)
            else:
                self.states += base
                self.increments += [torch.zeros_like(x) for x in base]

    def y1(self) -> Rows:
        """Return the new state."""
        if self.blocks.tableau.stiffly_accurate:
            return self.states[-1]
        return add_weighted(self.start.y, self.blocks.tableau.b, self.increments)

    def last_slope(self) -> Rows:
        """Return the slope of the last stage; rows with h = 0 have none, and return NaN."""
        increment, h = self.increments[-1], self.start.h
        if isinstance(h, Tensor):
            return increment / (h[:, None] if h.dim() else h).to(increment.dtype)
        return increment / h

    def _explicit(self, block: TableauBlock, base: Stages) -> None:
        """Evaluate the slope of a stage whose state is known."""
        for i, y in zip(block.stages, base, strict=True):
            first = not self.states
            slope = self.known_slope if first else None
            if slope is None:
                slope = self.field.evaluate(self.times[i], y, self.solver.running)
            if first:
                self.first_slope = slope
            self.states.append(y)
            self.increments.append(column_times(self.start.h, slope))

    def _implicit(self, block: TableauBlock, base: Stages, derivatives: int) -> None:
        """Solve the equations of a block."""
        assert block.matrix is not None
        equations = StageEquations(block.matrix, [self.times[i] for i in block.stages], base, h=self.start.h)
        with torch.no_grad():
            times, constants = [t.detach() for t in equations.times], [x.detach() for x in base]
            plain = StageEquations(block.matrix, times, constants, h=self.h)
            z = self.solver.solve(plain, self._guess(block))
            correction = self._exact_correction(plain, plain.states(z)) if derivatives else None
        if correction is not None:
            for _ in range(derivatives):
                z = self._differentiable_iteration(equations, z, correction)
        self.states += equations.states(z)
        self.increments += [weighted_sum(weights, z) for weights in block.inverse]

    def _guess(self, block: TableauBlock) -> list[Rows]:
        """Return Z by extrapolating the known slopes."""
        assert block.matrix is not None
        if not self.increments:
            return [torch.zeros_like(self.start.y) for _ in block.stages]
        known = [x.detach() for x in self.increments]
        slopes = [weighted_sum(weights, known) for weights in block.guess]
        return [weighted_sum(row, slopes) for row in block.matrix]

    def _differentiable_iteration(
        self, equations: StageEquations, z: Stages, correction: Callable[[Stages], list[Rows]]
    ) -> list[Rows]:
        """Return the solution z with one more derivative, as the implicit function theorem gives it.

        Newton's map with the exact matrix at the solution, held constant, leaves the solution unchanged and has no
        derivative in z there. Each application therefore makes one more derivative in y, t, h and the parameters exact.
        """
        states = equations.states(z)
        slopes = [self.field.f(t, y) for t, y in zip(equations.times, states, strict=True)]
        increments = correction(equations.residual(slopes, z))
        return [x - increment for x, increment in zip(z, increments, strict=True)]

    def _exact_correction(self, equations: StageEquations, states: Stages) -> Callable[[Stages], list[Rows]]:
        """Return the map from a residual to the increment of the exact Newton iteration at these states.

        The map is differentiable in the residual.
        """
        if some(negate(self.solver.ok)):
            raise GradientError(
                "the stages of an implicit step could not be solved to rounding going back; wanted smaller steps or "
                "tolerances, or more digits in f (float64)."
            )
        field, y = self.field.f, self.start.y
        if self.solver.dense:
            factors = exact_factors(field, equations, states)
            self.solver.adopt(equations.matrix, factors)
            return factors.solve
        inverse = exact_products(field, equations, states)
        blocks = 1 if field.coupled else len(y)
        rounding = 10 * torch.finfo(y.dtype).eps

        def solve(residual: Stages) -> list[Rows]:
            return unpack(inverse(pack(residual, blocks), GRADIENT_TOLERANCE, rounding), residual)

        return solve


def _without_history(a: Number) -> Number:
    """Return a number without gradient history; a float if it belongs to a shared clock."""
    if not isinstance(a, Tensor):
        return a
    return a.detach() if a.dim() else a.item()
