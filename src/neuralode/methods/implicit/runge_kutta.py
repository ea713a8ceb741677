"""Implicit Runge–Kutta methods, for any tableau.

Stages are solved by Newton's iteration, on adaptive steps to within the step's tolerance and on fixed steps to
rounding. Gradients do not go through the iteration; they follow from the implicit function theorem.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from neuralode.core.clock import negate, some, where
from neuralode.methods.base import ErrorNorm, QuadratureNode, Retaken, Rows, Step, StepStart
from neuralode.methods.implicit.newton import STAGE_TOLERANCE
from neuralode.methods.implicit.stage_equations import Stages
from neuralode.methods.implicit.step import ImplicitState, ImplicitStep
from neuralode.methods.implicit.tableau_blocks import TableauBlocks
from neuralode.methods.linear_combinations import add_weighted, weighted_sum
from neuralode.methods.runge_kutta.tableau import Tableau
from neuralode.methods.runge_kutta.tableau_method import TableauMethod


@dataclass(frozen=True)
class ImplicitRungeKutta(TableauMethod):
    """A method that takes the steps of an implicit `Tableau`.

    Stages are solved block by block: one after another where ``a`` is lower triangular, together where it is full. The
    Jacobian of f is evaluated again when the iteration contracts badly, not at every step.

    Parameters
    ----------
    tableau : Tableau
        The coefficients.
    dense_limit : int, default=128
        Size of a system (the numbers in a row, or in all rows if f couples them) up to which Jacobians are formed and
        factorised. Larger systems are solved by GMRES, which needs products with the Jacobian only.
    iterations : int, default=10
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
    dense_evaluations = 0
    inexact = 100 * STAGE_TOLERANCE  # steps amplify the remaining error of the stages (measured up to 0.17)

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
        """Evaluations of f in a typical step: two for every implicit stage."""
        explicit = sum(block.matrix is None for block in self._blocks.blocks)
        return 2 * (self.stages - explicit) + explicit - self.tableau.first_same_as_last

    def evaluations_again(self, dense: bool, method_state: ImplicitState | None = None) -> int:
        """Return the evaluations of f in a typical `retake`."""
        return self.stages if dense else self.evaluations_per_step

    def begin(self, f0: Rows) -> ImplicitState:
        """Return the method state before the first step: the first stage if it is explicit."""
        return ImplicitState(slope=f0) if self._blocks.explicit_first else ImplicitState()

    def step(self, start: StepStart, error_norm: ErrorNorm | None = None) -> Step:
        """Attempt one step."""
        with torch.no_grad():
            step = self._start(start, error_norm)
            step.run()
            y1, error = self._result(step, fixed=error_norm is None)
            if_accepted, if_rejected = self._method_states(step)
        return Step(
            y1=y1,
            error=error,
            method_state=if_accepted,
            method_state_if_rejected=if_rejected,
            stages=step.increments,
            ok=step.solver.ok | (error_norm is None),
            evaluations=step.field.evaluations,
            calls=step.field.calls,
        )

    def retake(self, start: StepStart, *, dense: bool, derivatives: int = 1) -> Retaken:
        """Take an accepted step again, with its stages solved to rounding.

        With gradients enabled, each block then gets ``derivatives`` Newton iterations with a graph, whose matrix is
        exact and constant. The fixed point of an iteration that contracts at rate 0 has the derivatives of the
        solution, one more with each iteration.
        """
        step = self._start(start._replace(method_state=None))
        step.run(derivatives if torch.is_grad_enabled() else 0)
        return Retaken(step.y1(), step.increments, None)

    def interpolate(self, start: StepStart, stages: Stages, thetas: Sequence[float]) -> Tensor:
        """Return the states at each θ by its own weights bᵢ(θ): [θ, rows, features]."""
        return torch.stack([add_weighted(start.y, self.weights_at(theta), stages) for theta in thetas])

    def interpolant(self, start: StepStart, stages: Stages) -> Tensor:
        """Return the coefficients C[j] of y(t + θ h) = Σ C[j] θ^j: [degree + 1, rows, features]."""
        powers = zip(*self.tableau.interpolant, strict=True)
        zero = torch.zeros_like(start.y)
        return torch.stack([start.y, *(add_weighted(zero, weights, stages) for weights in powers)])

    def quadrature(self, start: StepStart) -> list[QuadratureNode]:
        """Return the stages with their weights."""
        with torch.no_grad():
            step = self._start(start._replace(method_state=None))
            step.run()
        nodes = zip(self.tableau.b, step.times, step.states, strict=True)
        return [QuadratureNode(weight, t, y) for weight, t, y in nodes if weight]

    @cached_property
    def _blocks(self) -> TableauBlocks:
        return TableauBlocks.of(self.tableau)

    def _start(self, start: StepStart, error_norm: ErrorNorm | None = None) -> ImplicitStep:
        return ImplicitStep(
            self._blocks, start, error_norm=error_norm, iterations=self.iterations, dense_limit=self.dense_limit
        )

    def _result(self, step: ImplicitStep, *, fixed: bool) -> tuple[Rows, Rows | None]:
        """Return the new state and its error; where Newton failed, an infinite error or, on fixed steps, NaN."""
        y1, error, ok = step.y1(), None, step.solver.ok
        if self.tableau.b_error is not None:
            error = weighted_sum(self.tableau.b_error, step.increments)
        if some(negate(ok)):
            if error is not None:
                error = where(ok, error, torch.full_like(error, torch.inf))
            if fixed:  # a fixed step cannot be shortened: it has no result
                y1 = where(ok, y1, torch.full_like(y1, torch.nan))
        return y1, error

    def _method_states(self, step: ImplicitStep) -> tuple[ImplicitState, ImplicitState]:
        """Return the method states for the next step, and for another attempt at this one."""
        if_accepted, if_rejected = ImplicitState(), ImplicitState()
        jacobian, rate = step.solver.reusable_jacobian(), step.solver.rate
        if jacobian is not None:
            stale = jacobian._replace(fresh=step.solver.running & False)
            if_accepted, if_rejected = ImplicitState((), stale, rate), ImplicitState((), jacobian, rate)
        if self.tableau.first_same_as_last:
            assert step.first_slope is not None
            if_accepted = if_accepted._replace(slope=step.last_slope())
            if_rejected = if_rejected._replace(slope=step.first_slope)
        return if_accepted, if_rejected
