"""Explicit Runge–Kutta steps, for any tableau."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache

import torch
from torch import Tensor

from neuralode.core.clock import Number, column_times, real_dtype, scaled, stage_times, step_column
from neuralode.methods.base import ErrorNorm, Evaluate, QuadratureNode, Retaken, Rows, Step, StepStart
from neuralode.methods.one_step import evaluation_nodes
from neuralode.methods.runge_kutta.base import OfTableau
from neuralode.methods.runge_kutta.tableau import Tableau


@dataclass(frozen=True)
class ExplicitRungeKutta(OfTableau):
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
    one_call = False  # crosses a whole stretch in one call
    inexact = 0.0  # a step is a formula
    memoryless = True  # a step is a function of (t, y, h) alone: it can be re-taken from those

    @property
    def evaluations_per_step(self) -> int:
        """Evaluations of f in every step but the first, whose first stage is f(t0, y0)."""
        return self.stages - 1 if self.tableau.first_same_as_last else self.stages

    def evaluations_again(self, dense: bool, method_state: None = None) -> int:
        """Evaluations of f in `retake`, and in dense output if ``dense``."""
        return self.stages + self.dense_evaluations if dense else self.evaluations_per_step

    @property
    def weights(self) -> tuple[float, ...]:
        """The weight with which each evaluation of `retake` enters the new state, in the order of evaluation."""
        b = self.tableau.b
        return b[:-1] if self.tableau.first_same_as_last else b

    def begin(self, f0: Rows) -> Rows:
        """What the first step begins with: its first stage."""
        return f0

    def step(self, start: StepStart, error_norm: ErrorNorm | None = None) -> Step:
        """Attempt one step of size h; ``method_state`` is f(t, y) if it is known."""
        f, t, y, h, method_state = start
        table = self.tableau
        y1, stages = self._stages(f, t, y, h, method_state, table.stages)
        made = table.stages - (method_state is not None)
        following = stages[-1] if table.first_same_as_last else None
        return Step(
            y1=y1,
            error=self._error(h, stages),
            method_state=following,
            method_state_if_rejected=stages[0],
            stages=stages,
            ok=True,
            evaluations=made,
            calls=made,
        )

    def retake(self, start: StepStart, *, dense: bool, derivatives: int = 1) -> Retaken:
        """Take an accepted step again, with the stages that only dense output needs if ``dense``."""
        f, t, y, h, _ = start
        y1, stages = self._stages(f, t, y, h, None, self.stages if dense else len(self.weights))
        return Retaken(y1, stages, None)

    def stages_from(self, f: Evaluate, t: Number, y: Rows, h: Number, first: Rows) -> tuple[Rows, Sequence[Tensor]]:
        """The new state and the stages of a step whose first stage is known."""
        return self._stages(f, t, y, h, first, self.stages)

    def quadrature(self, start: StepStart) -> list[QuadratureNode]:
        """Return the nodes at which the step evaluates f."""
        return evaluation_nodes(self, start)

    @cached_property
    def _polynomials(self) -> tuple[tuple[float, ...], ...]:
        """Those of the tableau; of its first stage θ, where the others multiply differences from that: Σ b_i(θ) = θ."""
        first, *others = self.tableau.interpolant
        return ((1.0,) + (0.0,) * (len(first) - 1), *others) if self.tableau.dense_c else self.tableau.interpolant

    @property
    def dense_evaluations(self) -> int:
        """Further evaluations of f in dense output."""
        return len(self.tableau.dense_c)

    def interpolate(self, start: StepStart, stages: Sequence[Tensor], thetas: Sequence[float]) -> Tensor:
        """The states at some θ of one step, each by its own weights b_i(θ): shape [θ, rows, features]."""
        f, t, y, h, _ = start
        stages = self._with_dense(f, t, y, h, stages)
        return torch.stack([advanced(y, h, self.weights_at(theta), stages) for theta in thetas])

    def interpolant(self, start: StepStart, stages: Sequence[Tensor]) -> Tensor:
        """Coefficients C[0…q] of y(θ) = Σ C[j] θ^j on the step, θ from 0 to 1: shape [q + 1, rows, features]."""
        f, t, y, h, _ = start
        stages = self._with_dense(f, t, y, h, stages)
        lazy = bool(self.tableau.dense_c)
        # the coefficients of high degrees are large and cancel
        work = torch.promote_types(y.dtype, torch.float64) if lazy else y.dtype
        polynomials = _rows(self._polynomials, work, y.device)
        first = stages[0].to(work)
        total = polynomials[0] * first
        for polynomial, stage, weights in zip(polynomials[1:], stages[1:], self.tableau.interpolant[1:], strict=True):
            if any(weights):
                total.addcmul_(polynomial, stage.to(work) - first if lazy else stage)
        return torch.cat((y[None], column_times(h, total).to(y.dtype)))

    def _error(self, h: Number, stages: Sequence[Tensor]) -> Rows | tuple[Rows, Rows] | None:
        """The error estimate, or a pair of them."""
        high, low = self.tableau.b_error, self.tableau.b_error_low
        if high is None:
            return None
        error = increment(h, high, stages)
        return error if low is None else (error, increment(h, low, stages))

    def _with_dense(self, f: Evaluate, t: Number, y: Rows, h: Number, stages: Sequence[Tensor]) -> Sequence[Tensor]:
        """The stages, and those that only the dense output has."""
        table = self.tableau
        if not table.dense_c:
            return stages
        stages = list(stages)
        for time, weights in zip(
            stage_times(t, h, table.dense_c, real_dtype(y.dtype), y.device), table.dense_a, strict=True
        ):
            stages.append(f(time, advanced(y, h, weights, stages)))
        return stages

    def _stages(
        self, f: Evaluate, t: Number, y: Rows, h: Number, first: Rows | None, count: int
    ) -> tuple[Rows, list[Tensor]]:
        """The first ``count`` stages and the new state."""
        table = self.tableau
        times = stage_times(t, h, table.c[:count], real_dtype(y.dtype), y.device)
        h = step_column(h, y)
        stages = [f(times[0], y) if first is None else first]
        at = y
        for i in range(1, count):
            at = advanced(y, h, table.a[i], stages)
            stages.append(f(times[i], at))
        if table.first_same_as_last and count == table.stages:
            return at, stages  # the last stage was evaluated at the new state
        return advanced(y, h, table.b, stages), stages


def advanced(y: Rows, h: Number, weights: tuple[float, ...], stages: Sequence[Tensor]) -> Rows:
    """``y + h Σ wᵢ kᵢ``."""
    pivot, total = combine(weights, stages)
    return scaled(y, h, total, pivot)


def increment(h: Number, weights: tuple[float, ...], stages: Sequence[Tensor]) -> Rows:
    """``h Σ wᵢ kᵢ``."""
    pivot, total = combine(weights, stages)
    return column_times(step_column(h, total) * pivot, total)


def combine(weights: tuple[float, ...], stages: Sequence[Tensor]) -> tuple[float, Tensor]:
    """Σ wᵢ kᵢ as w₁ · (k₁ + Σ (wᵢ / w₁) kᵢ), over the weights that are not zero: one operation a stage.

    A single stage is returned as it is: what comes back is not to be written into.
    """
    first, pivot, rest = _pivoted(weights)
    total = stages[first]
    for n, (i, weight) in enumerate(rest):
        total = total.add_(stages[i], alpha=weight) if n else torch.add(total, stages[i], alpha=weight)
    return pivot, total


@lru_cache(maxsize=1024)
def _pivoted(weights: tuple[float, ...]) -> tuple[int, float, list[tuple[int, float]]]:
    # all weights are zero at θ = 0
    (first, pivot), *rest = [(i, weight) for i, weight in enumerate(weights) if weight] or [(0, 0.0)]
    return first, pivot, [(i, weight / pivot) for i, weight in rest]


@lru_cache(maxsize=256)
def _rows(polynomials: tuple[tuple[float, ...], ...], dtype: torch.dtype, device: torch.device) -> list[Tensor]:
    """One tensor [q, 1, 1] a stage."""
    with torch.inference_mode(False):  # cached past this call: must not be an inference tensor
        return list(torch.tensor(polynomials, dtype=dtype, device=device)[:, :, None, None])
