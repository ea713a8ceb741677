"""A base class for one-step methods; dense output and quadrature for methods without their own."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from neuralode.core.clock import column_times
from neuralode.methods.base import ErrorNorm, QuadratureNode, Retaken, Rows, Step, StepStart

HERMITE_ORDER = 3  # of the cubic through the states and slopes at both ends of a step


class OneStepMethod:
    """A base class for explicit one-step methods. Subclasses give ``name``, ``order`` and `step`.

    The defaults satisfy the contract of `neuralode.methods.base.Method`: a step is computed again for gradients, its
    dense output is the cubic Hermite interpolant, and its quadrature uses the ``weights`` of its evaluations or Gauss
    nodes on the dense output. Subclasses override members that they can do better.

    Attributes
    ----------
    name : str
        The name, as messages show it.
    order : int
        The order of the solution.
    evaluations_per_step : int, default=1
        Evaluations of f in `step`.
    adaptive : bool, default=False
        Whether `step` estimates its error; then give ``error_order`` too.
    error_order : int, default=0
        The order of the error estimate.
    weights : tuple of float, default=()
        The weight with which each evaluation of f enters the new state, in the order of evaluation; their sum is 1. ()
        if the step is no such sum.

    Examples
    --------
    Heun's method:

    >>> import torch, neuralode as node
    >>> from neuralode.core.clock import scaled
    >>> from neuralode.methods import OneStepMethod, Step, StepStart
    >>> class Heun(OneStepMethod):
    ...     name, order, evaluations_per_step, weights = "heun", 2, 2, (0.5, 0.5)
    ...     def step(self, start: StepStart, error_norm=None) -> Step:
    ...         k1 = start.slope(0.0, start.y)
    ...         k2 = start.slope(1.0, scaled(start.y, start.h, k1))
    ...         return self.result(start, y1=scaled(start.y, start.h, (k1 + k2) / 2))
    >>> sol = node.solve(lambda t, y: -y, torch.ones(1), (0.0, 1.0), method=Heun(), step_size=0.1)
    >>> round(sol.y1.item(), 3)  # exp(-1)
    0.369
    """

    name: str
    order: int
    family: str = "one-step"
    evaluations_per_step: int = 1
    adaptive: bool = False
    error_order: int = 0
    weights: tuple[float, ...] = ()

    implicit = False
    partitioned = False
    one_call = False
    memoryless = True
    inexact = 0.0
    dense_evaluations = 2  # the slopes at both ends

    @property
    def interpolant_order(self) -> int:
        """The order of the dense output."""
        return min(self.order, HERMITE_ORDER)

    @property
    def stages(self) -> int:
        """The number of stages of a step."""
        return self.evaluations_per_step

    def step(self, start: StepStart, error_norm: ErrorNorm | None = None) -> Step:
        """Attempt one step; see `neuralode.methods.base.Method.step`."""
        raise NotImplementedError(f"{type(self).__name__}.step")

    def result(self, start: StepStart, *, y1: Rows, error: Rows | None = None) -> Step:
        """Return the result of a step that leaves no method state, given its new state and error estimate."""
        return Step(
            y1=y1,
            error=error,
            method_state=None,
            method_state_if_rejected=None,
            stages=y1,
            ok=True,
            evaluations=self.evaluations_per_step,
            calls=self.evaluations_per_step,
        )

    def begin(self, f0: Rows) -> Any:
        """Return no method state."""
        return None

    def evaluations_again(self, dense: bool, method_state: Any = None) -> int:
        """Return the evaluations of f in `retake`, with those of dense output if ``dense``."""
        return self.evaluations_per_step + (self.dense_evaluations if dense else 0)

    def retake(self, start: StepStart, *, dense: bool, derivatives: int = 1) -> Retaken:
        """Take the step again."""
        step = self.step(start._replace(method_state=None))
        return Retaken(step.y1, step.stages, None)

    def interpolate(self, start: StepStart, stages: Any, thetas: Sequence[float]) -> Tensor:
        """Return the states at each θ of the dense output: [θ, rows, features]."""
        return interpolated(self.interpolant(start, stages), thetas)

    def interpolant(self, start: StepStart, stages: Any) -> Tensor:
        """Return the coefficients of the cubic Hermite interpolant; ``stages`` is the new state, as from `result`."""
        return hermite_interpolant(start, stages)

    def quadrature(self, start: StepStart) -> list[QuadratureNode]:
        """Return the nodes at which the step evaluates f, or Gauss nodes if it has no ``weights``."""
        return evaluation_nodes(self, start) if self.weights else gauss_nodes(self, start)


def hermite_interpolant(start: StepStart, y1: Rows) -> Tensor:
    """Return the coefficients of the cubic with the states and slopes at both ends: [4, rows, features]."""
    f, y, h = start.f, start.y, start.h
    t0, t1 = start.times((0.0, 1.0))
    first, last = column_times(h, f(t0, y)), column_times(h, f(t1, y1))
    rise = y1 - y
    return torch.stack((y, first, 3 * rise - 2 * first - last, first + last - 2 * rise))


def interpolated(coefficients: Tensor, thetas: Sequence[float]) -> Tensor:
    """Return Σ C[j] θ^j for each θ: [θ, rows, features]."""
    return torch.stack([polynomial_at(coefficients, theta) for theta in thetas])


def polynomial_at(coefficients: Tensor, theta: float) -> Tensor:
    """Return Σ C[j] θ^j, with θ on the host: no copy to the device."""
    *lower, total = coefficients.unbind()
    for coefficient in reversed(lower):
        total = torch.add(coefficient, total, alpha=theta)
    return total


class WeightedMethod(Protocol):
    """A method whose `retake` evaluates f once for each weight."""

    @property
    def weights(self) -> tuple[float, ...]: ...  # noqa: D102

    def retake(self, start: StepStart, *, dense: bool, derivatives: int = 1) -> Retaken: ...  # noqa: D102


class DenseMethod(Protocol):
    """A method with dense output."""

    def retake(self, start: StepStart, *, dense: bool, derivatives: int = 1) -> Retaken: ...  # noqa: D102

    def interpolate(self, start: StepStart, stages: Any, thetas: Sequence[float]) -> Tensor: ...  # noqa: D102


def evaluation_nodes(method: WeightedMethod, start: StepStart) -> list[QuadratureNode]:
    """Return the nodes at which a step evaluates f, with the weights of its evaluations."""
    f, visited = start.f, []

    def recording(t: Tensor, y: Rows) -> Rows:
        visited.append((t, y))
        return f(t, y)

    method.retake(start._replace(f=recording), dense=False)
    return [QuadratureNode(weight, t, y) for weight, (t, y) in zip(method.weights, visited, strict=True)]


def gauss_nodes(method: DenseMethod, start: StepStart, count: int = 4) -> list[QuadratureNode]:
    """Return ``count`` Gauss–Legendre nodes on the dense output of a step."""
    nodes, weights = np.polynomial.legendre.leggauss(count)
    thetas = tuple((1 + x) / 2 for x in nodes.tolist())
    states = method.interpolate(start, method.retake(start, dense=True).stages, thetas)
    columns = zip(weights.tolist(), start.times(thetas), states, strict=True)
    return [QuadratureNode(weight / 2, t, y) for weight, t, y in columns]
