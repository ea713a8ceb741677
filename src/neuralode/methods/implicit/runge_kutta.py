"""Implicit Runge–Kutta methods, for any tableau.

Stages are found by Newton's iteration to within the step's own tolerance; gradients do not go through the iteration
but follow from the implicit function theorem.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from neuralode.core.clock import Number, negate, some, where
from neuralode.methods.base import ErrorNorm, QuadratureNode, Retaken, Rows, Step, StepStart
from neuralode.methods.implicit.linear import Stages
from neuralode.methods.implicit.newton import TOLERATED
from neuralode.methods.implicit.step import Carry, ImplicitStep, Parts, divided, plus, weighted
from neuralode.methods.runge_kutta.base import OfTableau
from neuralode.methods.runge_kutta.tableau import Tableau


@dataclass(frozen=True)
class ImplicitRungeKutta(OfTableau):
    """A method that takes the steps of a `Tableau` whose stages depend on themselves.

    Stages are solved block by block, as the tableau has them: one after another where ``a`` is lower triangular, all
    together where it is full. The Jacobian of f is evaluated when the iteration contracts badly, not at every step.

    Parameters
    ----------
    tableau : Tableau
        The coefficients.
    dense_limit : int
        Size of a system (the numbers in a row, or in all rows where f mixes them) up to which Jacobians are formed and
        factorised. Larger ones are solved by GMRES, which asks for products with the Jacobian only.
    iterations : int
        Newton iterations at most with one Jacobian.

    Examples
    --------
    >>> import neuralode as node
    >>> method = node.methods()["kvaerno5"]
    >>> method.order, method.implicit, method.adaptive
    (5, True, True)
    """

    tableau: Tableau
    dense_limit: int = 128
    iterations: int = 10

    implicit = True
    one_call = False  # crosses a whole stretch in one call
    dense_evaluations = 0  # the inside of a step needs no more of f
    # the error that Newton may leave of a step, in units of the step's tolerance: stages amplify what is left
    # of them (measured up to 0.17)
    inexact = 100 * TOLERATED
    memoryless = True  # what is handed on saves work and changes nothing beyond the tolerance

    def __post_init__(self) -> None:
        for name in ("dense_limit", "iterations"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or value < (name == "iterations"):
                least = "at least 1" if name == "iterations" else "not negative"
                raise ValueError(f"ImplicitRungeKutta({name}={value!r}); wanted a whole number, {least}.")
        if self.tableau.dense_c:
            raise ValueError(
                f"Tableau {self.name!r} is implicit and has dense stages, evaluations of f that stiffness would spoil; "
                "wanted an interpolant of the stages alone."
            )

    @property
    def evaluations_per_step(self) -> int:
        """Evaluations of f in a usual step: two for every stage that is solved for."""
        explicit = sum(part.matrix is None for part in self._parts.parts)
        return 2 * (self.stages - explicit) + explicit - self.tableau.first_same_as_last

    def evaluations_again(self, dense: bool, method_state: Any = None) -> int:
        """Evaluations of f in a usual `retake`."""
        return self.stages if dense else self.evaluations_per_step

    def begin(self, f0: Rows) -> Carry:
        """What the first step begins with: the slope there, if a stage is there."""
        return Carry(slope=f0) if self._parts.explicit_first else Carry()

    def step(self, start: StepStart, error_norm: ErrorNorm | None = None) -> Step:
        """Attempt one step of size h."""
        f, t, y, h, method_state = start
        method_state = Carry() if method_state is None else method_state
        with torch.no_grad():
            work = self._begun(f, t, y, h, error_norm, method_state)
            work.run()
            solver, increments = work.solver, work.increments
            y1, error = work.end(), None
            if self.tableau.b_error is not None:
                error = weighted(self.tableau.b_error, increments)
            if some(negate(solver.ok)):
                if error is not None:
                    error = where(solver.ok, error, torch.full_like(error, torch.inf))
                if error_norm is None:
                    # to reject a stated step would not make it smaller: it has no result, and nothing passes for one
                    y1 = where(solver.ok, y1, torch.full_like(y1, torch.nan))
            if_accepted, if_rejected = Carry(), Carry()
            linear = solver.learned()
            if linear is not None:
                rate = solver.rate
                if_rejected = Carry(linear=linear, rate=rate)
                if_accepted = Carry(linear=linear._replace(fresh=solver.running & False), rate=rate)
            if self._parts.explicit_first:
                if_rejected = if_rejected._replace(slope=work.first)
            if self.tableau.first_same_as_last:
                if_accepted = if_accepted._replace(slope=divided(increments[-1], h))
            else:
                if_rejected = if_rejected._replace(slope=())
        ok = solver.ok | (error_norm is None)
        return Step(
            y1=y1,
            error=error,
            method_state=if_accepted,
            method_state_if_rejected=if_rejected,
            stages=increments,
            ok=ok,
            evaluations=work.f.cost,
            calls=work.f.calls,
        )

    def retake(self, start: StepStart, *, dense: bool, derivatives: int = 1) -> Retaken:
        """An accepted step again, its stages solved to rounding.

        With gradients enabled, each block is then given ``derivatives`` Newton iterations with a graph, whose matrix is
        the exact one and constant: a fixed point of an iteration that contracts at rate 0 has the derivatives of the
        solution, one more with each iteration.
        """
        f, t, y, h, _ = start
        work = self._begun(f, t, y, h)
        work.run(derivatives if torch.is_grad_enabled() else 0)
        return Retaken(work.end(), work.increments, None)

    def interpolate(self, start: StepStart, stages: Stages, thetas: Sequence[float]) -> Tensor:
        """The states at some θ of one step, each by its own weights b_i(θ): shape [θ, rows, features]."""
        y = start.y
        return torch.stack([plus(y, self.weights_at(theta), stages) for theta in thetas])

    def interpolant(self, start: StepStart, stages: Stages) -> Tensor:
        """Coefficients C[0…q] of y(θ) = Σ C[j] θ^j on the step, θ from 0 to 1: shape [q + 1, rows, features]."""
        y = start.y
        powers = zip(*self.tableau.interpolant, strict=True)
        zero = torch.zeros_like(y)
        return torch.stack([y, *(plus(zero, weights, stages) for weights in powers)])

    def quadrature(self, start: StepStart) -> list[QuadratureNode]:
        """Weights, times and states of the stages."""
        f, t, y, h, _ = start
        with torch.no_grad():
            work = self._begun(f, t, y, h)
            work.run()
        nodes = zip(self.tableau.b, work.times, work.states, strict=True)
        return [QuadratureNode(*node) for node in nodes if node[0]]

    def _begun(
        self,
        f: Any,
        t: Number,
        y: Rows,
        h: Number,
        error_norm: ErrorNorm | None = None,
        method_state: Carry | None = None,
    ) -> ImplicitStep:
        return ImplicitStep(
            self._parts, f, t, y, h, error_norm, method_state or Carry(), self.iterations, self.dense_limit
        )

    @cached_property
    def _parts(self) -> Parts:
        return Parts.of(self.tableau)
