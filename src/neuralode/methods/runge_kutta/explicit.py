"""Explicit Runge–Kutta steps, for any tableau."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache

import torch
from torch import Tensor

from neuralode.core.clock import Number, column_times, scaled, step_column
from neuralode.methods.base import ErrorNorm, QuadratureNode, Retaken, Rows, Step, StepStart
from neuralode.methods.linear_combinations import combine
from neuralode.methods.one_step import evaluation_nodes
from neuralode.methods.runge_kutta.tableau import Tableau
from neuralode.methods.runge_kutta.tableau_method import TableauMethod


@dataclass(frozen=True)
class ExplicitRungeKutta(TableauMethod):
    """A method that takes the steps of an explicit `Tableau`.

    Parameters
    ----------
    tableau : Tableau
        The coefficients.

    Examples
    --------
    >>> import neuralode as node
    >>> method = node.methods()["dopri5"]
    >>> method.order, method.stages, method.adaptive, method.evaluations_per_step
    (5, 7, True, 6)
    """

    tableau: Tableau

    implicit = False
    inexact = 0.0

    @property
    def evaluations_per_step(self) -> int:
        """Evaluations of f in every step but the first, whose first stage is f(t0, y0)."""
        return self.stages - 1 if self.tableau.first_same_as_last else self.stages

    @property
    def dense_evaluations(self) -> int:
        """Further evaluations of f in dense output."""
        return len(self.tableau.dense_c)

    def evaluations_again(self, dense: bool, method_state: None = None) -> int:
        """Return the evaluations of f in `retake`, with those of dense output if ``dense``."""
        return self.stages + self.dense_evaluations if dense else self.evaluations_per_step

    @property
    def weights(self) -> tuple[float, ...]:
        """The weight with which each evaluation in `retake` enters the new state, in the order of evaluation."""
        b = self.tableau.b
        return b[:-1] if self.tableau.first_same_as_last else b

    def begin(self, f0: Rows) -> Rows:
        """Return the first stage of the first step."""
        return f0

    def step(self, start: StepStart, error_norm: ErrorNorm | None = None) -> Step:
        """Attempt one step; the method state is its first stage f(t, y), or None."""
        table, first = self.tableau, start.method_state
        y1, stages = self._take(start, first, table.stages)
        evaluations = table.stages - (first is not None)
        return Step(
            y1=y1,
            error=self._error(start.h, stages),
            method_state=stages[-1] if table.first_same_as_last else None,
            method_state_if_rejected=stages[0],
            stages=stages,
            ok=True,
            evaluations=evaluations,
            calls=evaluations,
        )

    def retake(self, start: StepStart, *, dense: bool, derivatives: int = 1) -> Retaken:
        """Take an accepted step again; a last stage that only dense output reads is evaluated if ``dense``."""
        y1, stages = self._take(start, None, self.stages if dense else len(self.weights))
        return Retaken(y1, stages, None)

    def stages_from(self, start: StepStart, first: Rows) -> tuple[Rows, Sequence[Tensor]]:
        """Return the new state and the stages of a step whose first stage is known."""
        return self._take(start, first, self.stages)

    def quadrature(self, start: StepStart) -> list[QuadratureNode]:
        """Return the nodes at which the step evaluates f."""
        return evaluation_nodes(self, start)

    def interpolate(self, start: StepStart, stages: Sequence[Tensor], thetas: Sequence[float]) -> Tensor:
        """Return the states at each θ by its own weights bᵢ(θ): [θ, rows, features]."""
        y, h, stages = start.y, step_column(start.h, start.y), self._with_dense_stages(start, stages)
        return torch.stack([advanced(y, self.weights_at(theta), stages, h=h) for theta in thetas])

    def interpolant(self, start: StepStart, stages: Sequence[Tensor]) -> Tensor:
        """Return the coefficients C[j] of y(t + θ h) = Σ C[j] θ^j: [degree + 1, rows, features]."""
        y, stages = start.y, self._with_dense_stages(start, stages)
        cancelling = bool(self.tableau.dense_c)  # coefficients of high degrees are large
        dtype = torch.promote_types(y.dtype, torch.float64) if cancelling else y.dtype
        polynomials = _columns(self._polynomials, dtype, y.device)
        first = stages[0].to(dtype)
        total = polynomials[0] * first
        for polynomial, stage, weights in zip(polynomials[1:], stages[1:], self.tableau.interpolant[1:], strict=True):
            if any(weights):
                total.addcmul_(polynomial, stage.to(dtype) - first if cancelling else stage)
        return torch.cat((y[None], column_times(start.h, total).to(y.dtype)))

    @cached_property
    def _polynomials(self) -> tuple[tuple[float, ...], ...]:
        """The polynomials bᵢ(θ); θ for the first stage where the others multiply differences from it (Σ bᵢ(θ) = θ)."""
        first, *others = self.tableau.interpolant
        return ((1.0,) + (0.0,) * (len(first) - 1), *others) if self.tableau.dense_c else self.tableau.interpolant

    def _error(self, h: Number, stages: Sequence[Tensor]) -> Rows | tuple[Rows, Rows] | None:
        high, low = self.tableau.b_error, self.tableau.b_error_low
        if high is None:
            return None
        error = increment(h, high, stages)
        return error if low is None else (error, increment(h, low, stages))

    def _take(self, start: StepStart, first: Rows | None, count: int) -> tuple[Rows, list[Tensor]]:
        """Return the new state and the first ``count`` stages."""
        table, f, y = self.tableau, start.f, start.y
        times, h = start.times(table.c[:count]), step_column(start.h, y)
        state, stages = y, [f(times[0], y) if first is None else first]
        for i in range(1, count):
            state = advanced(y, table.a[i], stages, h=h)
            stages.append(f(times[i], state))
        if table.first_same_as_last and count == table.stages:
            return state, stages  # the last stage was evaluated at the new state
        return advanced(y, table.b, stages, h=h), stages

    def _with_dense_stages(self, start: StepStart, stages: Sequence[Tensor]) -> Sequence[Tensor]:
        """Return the stages, followed by those of the dense output."""
        table = self.tableau
        if not table.dense_c:
            return stages
        y, h, stages = start.y, step_column(start.h, start.y), list(stages)
        for time, weights in zip(start.times(table.dense_c), table.dense_a, strict=True):
            stages.append(start.f(time, advanced(y, weights, stages, h=h)))
        return stages


def advanced(y: Rows, weights: tuple[float, ...], stages: Sequence[Tensor], *, h: Number) -> Rows:
    """Return y + h Σ wᵢ kᵢ."""
    pivot, total = combine(weights, stages)
    return scaled(y, h, total, factor=pivot)


def increment(h: Number, weights: tuple[float, ...], stages: Sequence[Tensor]) -> Rows:
    """Return h Σ wᵢ kᵢ."""
    pivot, total = combine(weights, stages)
    return column_times(step_column(h, total) * pivot, total)


@lru_cache(maxsize=256)
def _columns(polynomials: tuple[tuple[float, ...], ...], dtype: torch.dtype, device: torch.device) -> list[Tensor]:
    """Return the coefficients of each stage as a tensor [degree, 1, 1]."""
    with torch.inference_mode(False):  # cached past this call: must not be an inference tensor
        return list(torch.tensor(polynomials, dtype=dtype, device=device)[:, :, None, None])
