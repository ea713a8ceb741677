r"""Linear multistep methods: Adams–Bashforth and Adams–Bashforth–Moulton.

The polynomial through the slopes at the last k points, on any grid, is integrated over the step:
:math:`y_1 = y + h \sum_j f_j \int_0^1 L_j(\theta)\,d\theta`. If the new point is among them the method is implicit: the
explicit method predicts, and functional iteration corrects. (Hairer, Nørsett & Wanner, *Solving Ordinary Differential
Equations I*, III.1 and III.5.)
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from neuralode.core.clock import Flag, Number, column_times, negate, real_dtype, scaled, some, where
from neuralode.core.dense_output import horner
from neuralode.methods.base import ErrorNorm, MethodState, QuadratureNode, Retaken, Rows, Step, StepStart
from neuralode.methods.multistep.lagrange_integrals import Polynomials, lagrange_integrals
from neuralode.methods.one_step import gauss_nodes
from neuralode.methods.runge_kutta.explicit import ExplicitRungeKutta
from neuralode.methods.runge_kutta.tableaus.rk4_38 import RK4_38

HIGHEST_ORDER = 12
STARTER = ExplicitRungeKutta(RK4_38)


class WeightedSlopes(NamedTuple):
    """Slopes, and the polynomials in θ that weigh them in the dense output."""

    slopes: list[Tensor]
    polynomials: Polynomials

    def total(self, like: Tensor) -> Tensor:
        """Return Σ wᵢ fᵢ over the whole step, shaped like ``like``."""
        if isinstance(self.polynomials, Tensor):
            weights = self.polynomials.sum(-1).unbind(-1)  # at θ = 1: a number, or one for each row, for each slope
            return torch.stack([column_times(w, f) for w, f in zip(weights, self.slopes, strict=True)]).sum(0)
        total = torch.zeros_like(like)
        for row, slope in zip(self.polynomials, self.slopes, strict=True):
            total = torch.add(total, slope, alpha=sum(row))
        return total


class AdamsStep(NamedTuple):
    """The result of one step."""

    y1: Rows
    weighted: WeightedSlopes
    evaluations: int


class AdamsMethod:
    """The parts that both Adams methods share: the starting steps, past slopes and dense output."""

    order: int
    start: int

    family = "linear multistep"
    partitioned = False
    adaptive = False
    implicit = False  # the corrector is a functional iteration: no linear systems
    one_call = False
    inexact = 0.0
    dense_evaluations = 0
    memoryless = False
    error_order = 0

    @property
    def interpolant_order(self) -> int:
        """The order of the dense output, which that of the starting steps limits."""
        return min(self.order, STARTER.interpolant_order)

    @property
    def past_slopes(self) -> int:
        """How many past slopes a step uses."""
        raise NotImplementedError

    @property
    def evaluations_per_step(self) -> int:
        """Evaluations of f in a step after the starting steps."""
        raise NotImplementedError

    def evaluations_again(self, dense: bool, method_state: MethodState | None = None) -> int:
        """Return the evaluations of f in `retake`; dense output needs no more."""
        return STARTER.stages if self._starting(method_state or MethodState()) else self.evaluations_per_step

    def begin(self, f0: Rows) -> MethodState:
        """Return a method state without past slopes."""
        return MethodState()

    def step(self, start: StepStart, error_norm: ErrorNorm | None = None) -> Step:
        """Take one step from y and the past slopes in the method state."""
        result, following = self._take(start)
        return Step(
            y1=result.y1,
            error=None,
            method_state=following,
            method_state_if_rejected=following,  # fixed steps: only rows that have ended are rejected
            stages=result.weighted,
            ok=True,
            evaluations=result.evaluations,
            calls=result.evaluations,
        )

    def retake(self, start: StepStart, *, dense: bool, derivatives: int = 1) -> Retaken:
        """Take an accepted step again."""
        result, following = self._take(start)
        return Retaken(result.y1, result.weighted, following)

    def interpolant(self, start: StepStart, stages: WeightedSlopes) -> Tensor:
        """Return the coefficients C[j] of y(t + θ h) = Σ C[j] θ^j: [degree + 1, rows, features]."""
        y, slopes, polynomials = start.y, torch.stack(stages.slopes), stages.polynomials
        if not isinstance(polynomials, Tensor):
            polynomials = torch.tensor(polynomials, dtype=torch.float64, device=y.device)
        equation = "jm,jrf->mrf" if polynomials.dim() == 2 else "rjm,jrf->mrf"
        total = column_times(start.h, torch.einsum(equation, polynomials.to(y.dtype), slopes))
        degree = max(self.order, len(STARTER.tableau.interpolant[0]))  # the same for starting steps and others
        return torch.cat((y[None], total, total.new_zeros((degree - len(total), *y.shape))))

    def interpolate(self, start: StepStart, stages: WeightedSlopes, thetas: Sequence[float]) -> Tensor:
        """Return the states at each θ: [θ, rows, features]."""
        y, coefficients = start.y, self.interpolant(start, stages)
        at = [torch.tensor(theta, dtype=real_dtype(y.dtype), device=y.device) for theta in thetas]
        return torch.stack([horner(coefficients, theta) for theta in at])

    def quadrature(self, start: StepStart) -> list[QuadratureNode]:
        """Return Gauss nodes on the dense output: past slopes are not evaluated within this step."""
        return gauss_nodes(self, start)

    def _take(self, start: StepStart) -> tuple[AdamsStep, MethodState]:
        """Return the result of a step and the method state after it."""
        state, h = start.method_state or MethodState(), start.h
        slope = start.slope(0.0, start.y)
        slopes = [slope, *state.states]
        if isinstance(h, Tensor):  # a number on a shared clock, as in the forward pass
            h = h.detach() if h.dim() else h.item()
        following = MethodState(tuple(slopes[: self.past_slopes]), (h, *state.rest)[: self.past_slopes])
        if self._starting(state):
            y1, stages = STARTER.stages_from(start, slope)
            weighted = WeightedSlopes(list(stages), STARTER.tableau.interpolant)
            return AdamsStep(y1, weighted, STARTER.stages), following
        return self._advance(start, slopes, state.rest[: len(slopes) - 1]), following

    def _starting(self, state: MethodState) -> bool:
        """Return whether there are too few past slopes for a multistep step."""
        return 1 + len(state.states) < min(self.start, self.past_slopes + 1)

    def _advance(self, start: StepStart, slopes: list[Tensor], sizes: tuple[Number, ...]) -> AdamsStep:
        """Take a multistep step; ``slopes`` has that at ``start`` first, ``sizes`` those of the steps before."""
        raise NotImplementedError

    def _check_order(self, least: int, hint: str = "") -> None:
        name = f"{type(self).__name__}(order={self.order!r})"
        if isinstance(self.order, bool) or not isinstance(self.order, int) or not 1 <= self.order <= HIGHEST_ORDER:
            raise ValueError(f"{name}; wanted a whole number from 1 to {HIGHEST_ORDER}.")
        if self.order < least:
            raise ValueError(f"{name}; wanted at least {least}{hint}.")


@dataclass(frozen=True)
class ExplicitAdams(AdamsMethod):
    """Adams–Bashforth methods: one evaluation of f a step, on any grid.

    Parameters
    ----------
    order : int, default=4
        How many slopes are used, from 1 to 12. Higher orders need smaller steps to be stable.
    start : int, default=4
        How many slopes are first collected by Runge–Kutta steps (3/8 rule), if the order uses as many.

    Examples
    --------
    >>> import torch, neuralode as node
    >>> y0 = torch.ones(1, dtype=torch.float64)
    >>> sol = node.solve(lambda t, y: -y, y0, (0.0, 1.0), method=node.ExplicitAdams(order=3), step_size=0.01)
    >>> round(sol.y1.item(), 5)  # exp(-1)
    0.36788
    """

    order: int = 4
    start: int = 4

    name = "explicit_adams"
    stages = 1

    def __post_init__(self) -> None:
        self._check_order(least=1)

    @property
    def evaluations_per_step(self) -> int:
        """Evaluations of f in a step after the starting steps."""
        return 1

    @property
    def past_slopes(self) -> int:
        """How many past slopes a step uses."""
        return self.order - 1

    def _advance(self, start: StepStart, slopes: list[Tensor], sizes: tuple[Number, ...]) -> AdamsStep:
        weighted = WeightedSlopes(slopes, lagrange_integrals(start.h, sizes, implicit=False))
        return AdamsStep(scaled(start.y, start.h, weighted.total(start.y)), weighted, evaluations=1)


@dataclass(frozen=True)
class ImplicitAdams(AdamsMethod):
    """Adams–Bashforth–Moulton methods: an explicit prediction, corrected with the slope at the new point.

    Parameters
    ----------
    order : int, default=4
        Order of the corrector, from 2 to 12.
    iterations : int, default=1
        Corrections a step, at most.
    rtol, atol : float, default=None
        Corrections end when two of them differ by less in every number; None for both: all corrections are made.
    start : int, default=4
        How many slopes are first collected by Runge–Kutta steps (3/8 rule), if the order uses as many.

    Examples
    --------
    >>> import torch, neuralode as node
    >>> y0 = torch.ones(1, dtype=torch.float64)
    >>> sol = node.solve(lambda t, y: -y, y0, (0.0, 1.0), method=node.ImplicitAdams(), step_size=0.01)
    >>> round(sol.y1.item(), 7)  # exp(-1)
    0.3678794
    """

    order: int = 4
    iterations: int = 1
    rtol: float | None = None
    atol: float | None = None
    start: int = 4

    name = "implicit_adams"
    stages = 2

    def __post_init__(self) -> None:
        self._check_order(least=2, hint=" (order 1 is implicit_euler)")
        if isinstance(self.iterations, bool) or not isinstance(self.iterations, int) or self.iterations < 1:
            raise ValueError(f"ImplicitAdams(iterations={self.iterations!r}); wanted a whole number of at least 1.")

    @property
    def evaluations_per_step(self) -> int:
        """Evaluations of f in a step after the starting steps."""
        return 1 + self.iterations

    @property
    def past_slopes(self) -> int:
        """How many past slopes a step uses."""
        return self.order - 2

    def _advance(self, start: StepStart, slopes: list[Tensor], sizes: tuple[Number, ...]) -> AdamsStep:
        y, h = start.y, start.h
        predictor = WeightedSlopes(slopes, lagrange_integrals(h, sizes, implicit=False))
        corrector = lagrange_integrals(h, sizes, implicit=True)
        move = column_times(h, predictor.total(y))
        (time,) = start.times((1.0,))
        latest, going, count = slopes[0], True, 0
        for count in range(1, self.iterations + 1):  # noqa: B007 (used after the loop)
            slope = start.f(time, y + move)
            corrected = column_times(h, WeightedSlopes([slope, *slopes], corrector).total(y))
            converged = self._converged(move, corrected, h)
            # a converged row keeps its values, so that it does not depend on the iterations of others
            latest, move = where(going, slope, latest), where(going, corrected, move)
            going = going & negate(converged)
            if not some(going):
                break
        return AdamsStep(y + move, WeightedSlopes([latest, *slopes], corrector), evaluations=1 + count)

    def _converged(self, before: Tensor, after: Tensor, h: Number) -> Flag:
        """Return whether a correction changed every number by less than the tolerances, by clock."""
        per_row = isinstance(h, Tensor) and h.dim() > 0
        if self.rtol is None and self.atol is None:
            return torch.zeros(len(before), dtype=torch.bool, device=before.device) if per_row else False
        scale = (self.atol or 0.0) + (self.rtol or 0.0) * torch.maximum(before.detach().abs(), after.detach().abs())
        within = (before - after).detach().abs() < scale
        return within.all(1) if per_row else bool(within.all())
