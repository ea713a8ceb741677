"""The solver of the stages of one step, and the Jacobian that it leaves for the next.

Simplified Newton iterations share one factorisation (Hairer & Wanner, *Solving Ordinary Differential Equations II*,
IV.8). The Jacobian is evaluated again for the next step when the iteration contracts badly, and at once when it does
not contract.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple, TypeAlias

import torch
from torch import Tensor

from neuralode.core.clock import Flag, Number, maximum, negate, power, some, where
from neuralode.methods.base import JacobianField, Rows, StepStart
from neuralode.methods.implicit.linear_systems import Factors, exact_factors, factorise, gmres_increment
from neuralode.methods.implicit.newton import UNKNOWN_RATE, IncrementNorm, Newton, NewtonState
from neuralode.methods.implicit.stage_equations import CountedField, Matrix, StageEquations, Stages

REFRESH_RATE = 0.01  # contraction above which the Jacobian is evaluated again for the next step
SAME_STEP = 1e-9  # relative difference of two step sizes that share a factorisation


class FrozenJacobian(NamedTuple):
    """A Jacobian, and the factorised iteration matrices that belong to it and to one step size."""

    jacobian: Tensor
    fresh: Flag  # evaluated at the start of this step
    poor: Flag  # contracted badly when it was last used
    h: Number
    factors: tuple[Factors, ...]  # one for every matrix of the method


Attempt: TypeAlias = Callable[[StageEquations, Stages, Flag], NewtonState]


class StageSolver:
    """Solves the blocks of one step one after another, and keeps what the next step can reuse.

    Parameters
    ----------
    field : CountedField
        The field.
    start : StepStart
        Where the step starts, and its size, without gradient history.
    matrices : sequence of Matrix
        The different matrices among the blocks of the method.
    norm : IncrementNorm
        The size of increments.
    iterations : int
        Newton iterations at most with one Jacobian.
    dense : bool
        Whether to form Jacobians; otherwise systems are solved by GMRES.
    frozen : FrozenJacobian, default=None
        The Jacobian of the previous step.
    rate : float or Tensor[rows], default=None
        The contraction in the previous step.

    Attributes
    ----------
    running : bool or Tensor[rows]
        Clocks that take part in the step.
    ok : bool or Tensor[rows]
        Clocks on which all blocks so far were solved.
    """

    def __init__(
        self,
        field: CountedField,
        start: StepStart,
        matrices: Sequence[Matrix],
        *,
        norm: IncrementNorm,
        iterations: int,
        dense: bool,
        frozen: FrozenJacobian | None = None,
        rate: Number | None = None,
    ) -> None:
        self.field, self.start, self.matrices, self.norm = field, start, matrices, norm
        self.iterations, self.dense, self.frozen = iterations, dense, frozen
        self.running: Flag = start.h != 0
        self.ok: Flag = self.running | True
        self.rate: Number = start.h * 0 + UNKNOWN_RATE if rate is None else power(maximum(rate, 1e-16), 0.8)
        self.measured: Flag = self.running & False
        if dense:
            self._prepare()

    def solve(self, equations: StageEquations, guess: Stages) -> list[Rows]:
        """Return Z of a block; clocks on which no attempt converges are no longer ``ok``."""
        z, left = list(guess), self.running & self.ok
        for n, attempt in enumerate(self._attempts):
            if not some(left):
                break
            if n:  # an extrapolated guess may be too far from the solution
                z = [where(left, torch.zeros_like(x), x) for x in z]
            result = attempt(equations, z, left)
            z, left = result.z, left & negate(result.solved)
        self.ok = self.ok & negate(left)
        return z

    @property
    def _attempts(self) -> list[Attempt]:
        """The iterations to try in order, each on the clocks where those before failed."""
        if not self.dense:
            return [self._by_gmres, self._by_gmres]
        fixed = self.norm.error_norm is None
        return [self._by_frozen_jacobian, self._by_new_jacobian, *([self._by_exact_jacobians] if fixed else [])]

    def _by_frozen_jacobian(self, equations: StageEquations, z: Stages, active: Flag) -> NewtonState:
        assert self.frozen is not None
        factors = self.frozen.factors[self.matrices.index(equations.matrix)]

        def correction(residual: Stages, states: Stages, active: Flag) -> list[Rows]:
            return factors.solve(residual)

        result = self._newton().solve(equations, z, correction=correction, active=active, rate=self.rate)
        self._record_rate(result)
        return result

    def _by_new_jacobian(self, equations: StageEquations, z: Stages, active: Flag) -> NewtonState:
        """Iterate with the Jacobian at the start of this step."""
        assert self.frozen is not None
        self._refresh(active & negate(self.frozen.fresh))
        self.rate = where(active, UNKNOWN_RATE, self.rate)
        self.measured = self.measured & negate(active)
        return self._by_frozen_jacobian(equations, z, active)

    def _by_exact_jacobians(self, equations: StageEquations, z: Stages, active: Flag) -> NewtonState:
        """Iterate with the Jacobians at every iterate."""

        def correction(residual: Stages, states: Stages, active: Flag) -> list[Rows]:
            for _ in states:
                self.field.count(active)
            return exact_factors(self.field.f, equations, states).solve(residual)

        return self._newton(noisy=True).solve(equations, z, correction=correction, active=active, rate=self.rate)

    def _by_gmres(self, equations: StageEquations, z: Stages, active: Flag) -> NewtonState:
        """Iterate with products with the Jacobians at every iterate."""

        def correction(residual: Stages, states: Stages, active: Flag) -> list[Rows]:
            for _ in states:
                self.field.count(active)
            return gmres_increment(self.field.f, equations, states, residual=residual, active=active)

        newton = self._newton(noisy=self.norm.error_norm is None)
        result = newton.solve(equations, z, correction=correction, active=active, rate=self.rate)
        self._record_rate(result)
        return result

    def _newton(self, noisy: bool = False) -> Newton:
        limit = 2 * self.iterations if self.norm.error_norm is None else self.iterations  # rounding is further away
        noise = _resolution(self.field.f, self.start.y) ** 0.5 / self.norm.unit if noisy else 0.0
        return Newton(self.field, self.norm, limit, noise=noise)

    def _record_rate(self, result: NewtonState) -> None:
        """Keep the worst contraction of this step."""
        worst = maximum(result.worst_rate, where(self.measured, self.rate, 0 * result.worst_rate))
        self.rate = where(result.measured, worst, self.rate)
        self.measured = self.measured | result.measured

    def _prepare(self) -> None:
        """Evaluate the Jacobian if there is none or a poor one, and factorise for this step size."""
        if self.frozen is None:
            everyone = self.running | True
            jacobian = self._jacobian(self.running)
            factors = tuple(factorise(matrix, self.start.h, [jacobian]) for matrix in self.matrices)
            self.frozen = FrozenJacobian(jacobian, everyone, everyone & False, h=self.start.h, factors=factors)
            return
        poor = self.frozen.poor & negate(self.frozen.fresh) & self.running
        if some(poor):
            self._refresh(poor)
        self._factorise(abs(self.start.h - self.frozen.h) > SAME_STEP * abs(self.frozen.h))

    def _jacobian(self, active: Flag) -> Tensor:
        (time,) = self.start.times((0.0,))
        return self.field.jacobian(time, self.start.y, active)

    def _refresh(self, active: Flag) -> None:
        """Evaluate the Jacobian at the start of the step."""
        assert self.frozen is not None
        if not some(active):
            return
        self.frozen = self.frozen._replace(
            jacobian=where(active, self._jacobian(active), self.frozen.jacobian),
            fresh=self.frozen.fresh | active,
            poor=self.frozen.poor & negate(active),
        )
        self._factorise(active)

    def _factorise(self, active: Flag) -> None:
        """Factorise the iteration matrices for this step size."""
        assert self.frozen is not None
        if not some(active):
            return
        frozen = self.frozen
        h = where(active, self.start.h, frozen.h)
        new = [factorise(matrix, h, [frozen.jacobian]) for matrix in self.matrices]
        factors = tuple(
            Factors(*(where(active, a, b) for a, b in zip(one, other, strict=True)))
            for one, other in zip(new, frozen.factors, strict=True)
        )
        self.frozen = frozen._replace(h=h, factors=factors)

    def adopt(self, matrix: Matrix, factors: Factors) -> None:
        """Use the exact factors of one block from now on: the next stage is closer to it than to the start."""
        assert self.frozen is not None
        index, known = self.matrices.index(matrix), self.frozen.factors
        self.frozen = self.frozen._replace(factors=(*known[:index], factors, *known[index + 1 :]))

    def reusable_jacobian(self) -> FrozenJacobian | None:
        """Return the Jacobian for another attempt from the same state."""
        if self.frozen is None:
            return None
        return self.frozen._replace(poor=where(self.measured, self.rate > REFRESH_RATE, self.frozen.poor))


def _resolution(f: JacobianField, y: Rows) -> float:
    """Return the relative resolution of the coarsest dtype in which f works."""
    dtype: torch.dtype = getattr(f, "dtype", None) or y.dtype
    coarsest = max(torch.finfo(y.dtype).eps, torch.finfo(dtype).eps)
    if torch.is_autocast_enabled(y.device.type):
        coarsest = max(coarsest, torch.finfo(torch.get_autocast_dtype(y.device.type)).eps)
    return coarsest
