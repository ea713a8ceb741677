r"""Linear multistep methods: Adams–Bashforth, and Adams–Bashforth–Moulton.

The polynomial through the slopes at the last k points, evenly spaced or not, is integrated over the step,
:math:`y_1 = y + h \sum_j f_j \int_0^1 L_j(\theta)\,d\theta`. With the new point among them the method is implicit: it
is predicted by the explicit one and then corrected by functional iteration. (Hairer, Nørsett & Wanner I, III.1, III.5.)
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from neuralode.core.clock import Flag, Number, column_times, host, negate, scaled, some, stage_times, where
from neuralode.core.dense_output import horner
from neuralode.methods.base import ErrorNorm, Evaluate, MethodState, QuadratureNode, Retaken, Rows, Step, StepStart
from neuralode.methods.one_step import gauss_nodes
from neuralode.methods.runge_kutta.explicit import ExplicitRungeKutta
from neuralode.methods.runge_kutta.tableaus.rk4_38 import RK4_38

HIGHEST_ORDER = 12
STARTER = ExplicitRungeKutta(RK4_38)
EVEN = 1e-9  # nodes this near to whole numbers are these


class Weighted(NamedTuple):
    """Slopes, and of the weight of each its coefficients of θ, θ² and so on.

    These are rows of floats, or a tensor [*clocks, slopes, degree].
    """

    slopes: list[Tensor]
    polynomials: Any

    def total(self, like: Tensor) -> Tensor:
        """Σ wᵢ fᵢ over the whole step."""
        if isinstance(self.polynomials, Tensor):
            weights = self.polynomials.sum(-1).unbind(-1)  # at θ = 1: one number, or one a row, for each slope
            return torch.stack([column_times(w, f) for w, f in zip(weights, self.slopes, strict=True)]).sum(0)
        total = torch.zeros_like(like)
        for row, slope in zip(self.polynomials, self.slopes, strict=True):
            total = torch.add(total, slope, alpha=sum(row))
        return total


class _Adams:
    """What both share: the start, what is remembered, dense output."""

    order: int
    start: int

    family = "linear multistep"
    partitioned = False
    adaptive = False
    implicit = False  # no linear system: the corrector is a functional iteration
    one_call = False
    inexact = 0.0
    dense_evaluations = 0
    memoryless = False
    error_order = 0

    def _check(self) -> None:
        if isinstance(self.order, bool) or not isinstance(self.order, int) or not 1 <= self.order <= HIGHEST_ORDER:
            raise ValueError(
                f"{type(self).__name__}(order={self.order!r}); wanted a whole number from 1 to {HIGHEST_ORDER}."
            )

    @property
    def interpolant_order(self) -> int:
        """Order of the dense output: a starting step has that of the starting method."""
        return min(self.order, STARTER.interpolant_order)

    @property
    def degree(self) -> int:
        """Of the polynomials in θ."""
        return max(self.order, len(STARTER.tableau.interpolant[0]))

    def begin(self, f0: Rows) -> MethodState:
        """Nothing is remembered before the first step."""
        return MethodState()

    def step(self, start: StepStart, error_norm: ErrorNorm | None = None) -> Step:
        """One step of size h from y and the slopes remembered."""
        f, t, y, h, method_state = start
        y1, weighted, following, calls = self._step(f, t, y, h, method_state)
        # Only rows that have ended are rejected.
        return Step(
            y1=y1,
            error=None,
            method_state=following,
            method_state_if_rejected=following,
            stages=weighted,
            ok=True,
            evaluations=calls,
            calls=calls,
        )

    def retake(self, start: StepStart, *, dense: bool, derivatives: int = 1) -> Retaken:
        """The step again: the new state, its slopes, and what the next is to remember."""
        f, t, y, h, method_state = start
        y1, weighted, following, _ = self._step(f, t, y, h, method_state)
        return Retaken(y1, weighted, following)

    def _step(
        self, f: Evaluate, t: Number, y: Rows, h: Number, method_state: MethodState | None
    ) -> tuple[Rows, Weighted, MethodState, int]:
        past, sizes = method_state or MethodState()
        slope = f(stage_times(t, h, (0.0,), y.dtype.to_real(), y.device)[0], y)
        slopes = [slope, *past]
        size = h
        if isinstance(h, Tensor):  # of one clock it is a number, as it was in the forward pass
            size = h.detach() if h.dim() else h.item()
        following = MethodState(tuple(slopes[: self.past]), (size, *sizes)[: self.past])
        if self._starts(method_state or MethodState()):
            y1, stages = STARTER.stages_from(f, t, y, h, slope)
            return y1, Weighted(list(stages), STARTER.tableau.interpolant), following, STARTER.stages
        y1, weighted, calls = self._advance(f, t, y, h, slopes, sizes)
        return y1, weighted, following, calls

    def _starts(self, remembered: MethodState) -> bool:
        """Whether too few slopes are remembered for a step of its own."""
        return 1 + len(remembered.states) < min(self.start, self.past + 1)

    def _advance(
        self, f: Evaluate, t: Number, y: Rows, h: Number, slopes: list[Tensor], sizes: tuple[Number, ...]
    ) -> tuple[Rows, Weighted, int]:
        raise NotImplementedError

    @property
    def past(self) -> int:
        """How many slopes are remembered."""
        raise NotImplementedError

    @property
    def evaluations_per_step(self) -> int:
        """Evaluations of f in a step that does not start."""
        raise NotImplementedError

    def evaluations_again(self, dense: bool, method_state: MethodState | None = None) -> int:
        """Evaluations of f in `retake`; dense output needs no more."""
        return STARTER.stages if self._starts(method_state or MethodState()) else self.evaluations_per_step

    def interpolant(self, start: StepStart, stages: Weighted) -> Tensor:
        """Coefficients C[0…q] of y(θ) = Σ C[j] θ^j: shape [q + 1, rows, features]."""
        _, _, y, h, _ = start
        slopes, polynomials = torch.stack(stages.slopes), stages.polynomials
        if not isinstance(polynomials, Tensor):
            polynomials = torch.tensor(polynomials, dtype=torch.float64, device=y.device)
        parts = "...jm,jrf->mrf" if polynomials.dim() == 2 else "rjm,jrf->mrf"
        total = column_times(h, torch.einsum(parts, polynomials.to(y.dtype), slopes))
        missing = self.degree - len(total)  # all steps of a method have as many, those that start it too
        return torch.cat((y[None], total, total.new_zeros((missing, *y.shape))))

    def interpolate(self, start: StepStart, stages: Weighted, thetas: Any) -> Tensor:
        """The states at some θ of one step."""
        y, coefficients = start.y, self.interpolant(start, stages)
        return torch.stack(
            [horner(coefficients, torch.tensor(x, dtype=y.dtype.to_real(), device=y.device)) for x in thetas]
        )

    def quadrature(self, start: StepStart) -> list[QuadratureNode]:
        """Return Gauss nodes on the dense output: past slopes are not evaluated within this step."""
        return gauss_nodes(self, start)


@dataclass(frozen=True)
class ExplicitAdams(_Adams):
    """Adams–Bashforth: one evaluation a step.

    Parameters
    ----------
    order : int, default 4
        How many slopes are used. The higher, the smaller the steps that are stable.
    start : int, default 4
        So many slopes are gathered by Runge–Kutta steps (3/8 rule) first, if the order wants as many.

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
        self._check()

    @property
    def evaluations_per_step(self) -> int:
        """Evaluations of f in a step that does not start."""
        return 1

    @property
    def past(self) -> int:
        """How many slopes are remembered."""
        return self.order - 1

    def _advance(
        self, f: Evaluate, t: Number, y: Rows, h: Number, slopes: list[Tensor], sizes: tuple[Number, ...]
    ) -> tuple[Rows, Weighted, int]:
        weighted = Weighted(slopes, _polynomials(h, sizes[: len(slopes) - 1], False))
        return scaled(y, h, weighted.total(y)), weighted, 1


@dataclass(frozen=True)
class ImplicitAdams(_Adams):
    """Adams–Bashforth–Moulton: predicted explicitly, corrected with the slope at the new point.

    Parameters
    ----------
    order : int, default 4
        Order of the corrector.
    iterations : int, default 1
        Corrections a step, at most.
    rtol, atol : float, optional
        Corrections end when two of them differ by less; all are made unless given.
    start : int, default 4
        So many slopes are gathered by Runge–Kutta steps (3/8 rule) first, if the order wants as many.

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
        self._check()
        if self.order < 2:
            raise ValueError(f"ImplicitAdams(order={self.order!r}); wanted at least 2 (order 1 is implicit_euler).")
        if isinstance(self.iterations, bool) or not isinstance(self.iterations, int) or self.iterations < 1:
            raise ValueError(f"ImplicitAdams(iterations={self.iterations!r}); wanted a whole number of at least 1.")

    @property
    def evaluations_per_step(self) -> int:
        """Evaluations of f in a step."""
        return 1 + self.iterations

    @property
    def past(self) -> int:
        """How many slopes are remembered."""
        return self.order - 2

    def _advance(
        self, f: Evaluate, t: Number, y: Rows, h: Number, slopes: list[Tensor], sizes: tuple[Number, ...]
    ) -> tuple[Rows, Weighted, int]:
        sizes = sizes[: len(slopes) - 1]
        time = stage_times(t, h, (1.0,), y.dtype.to_real(), y.device)[0]
        polynomials = _polynomials(h, sizes, True)
        move = column_times(h, Weighted(slopes, _polynomials(h, sizes, False)).total(y))
        latest, going, count = slopes[0], True, 0
        for count in range(1, self.iterations + 1):  # noqa: B007 (of use afterwards)
            slope = f(time, y + move)
            corrected = column_times(h, Weighted([slope, *slopes], polynomials).total(y))
            done = self._converged(move, corrected, h)
            # a row that has converged keeps what it has: it does not depend on how long others take
            latest, move = where(going, slope, latest), where(going, corrected, move)
            going = going & negate(done)
            if not some(going):
                break
        return y + move, Weighted([latest, *slopes], polynomials), 1 + count

    def _converged(self, before: Tensor, after: Tensor, h: Number) -> Flag:
        """Whether a correction changed less than is tolerated, in every number."""
        rows = isinstance(h, Tensor) and h.dim() > 0
        if self.rtol is None and self.atol is None:
            return torch.zeros(len(before), dtype=torch.bool, device=before.device) if rows else False
        scale = (self.atol or 0.0) + (self.rtol or 0.0) * torch.maximum(before.detach().abs(), after.detach().abs())
        within = (before - after).detach().abs() < scale
        return within.all(1) if rows else bool(within.all())


def _polynomials(h: Number, sizes: tuple[Number, ...], ahead: bool) -> Any:
    """∫₀^θ Lⱼ for the nodes of the new point (if ``ahead``), the present one, and those before it."""
    if not isinstance(h, Tensor):
        nodes, at = [1.0] if ahead else [], 0.0
        for size in (0.0, *sizes):
            at -= host(size) / h
            nodes.append(float(round(at)) if abs(at - round(at)) < EVEN else at)
        return _integrated(tuple(nodes))
    safe = torch.where(h == 0, 1, h)  # rows that take no step
    at, nodes = torch.zeros_like(safe), [torch.ones_like(safe)] if ahead else []
    nodes.append(at)
    for size in sizes:
        at = at - torch.where(h == 0, 1, torch.as_tensor(size, dtype=h.dtype, device=h.device) / safe)
        nodes.append(at)
    c = torch.stack(nodes, -1)
    powers = torch.arange(len(nodes), dtype=h.dtype, device=h.device)
    vandermonde = torch.stack([c**n for n in range(len(nodes))], -2)  # [*clocks, power, node]
    return torch.linalg.inv(vandermonde) / (powers + 1)


@lru_cache(maxsize=256)
def _integrated(nodes: tuple[float, ...]) -> tuple[tuple[float, ...], ...]:
    count = len(nodes)
    inverse = np.linalg.inv(np.vander(nodes, count, increasing=True).T)
    return tuple(map(tuple, (inverse / np.arange(1, count + 1)).tolist()))
