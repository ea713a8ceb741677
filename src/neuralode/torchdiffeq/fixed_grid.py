"""Fixed-step solves: interpolation between grid times, and solves by the grid engine in plain torch operations.

The latter serve `torch.func` transforms and forward-mode differentiation, which trace every operation.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Literal

import torch
from torch import Tensor

from neuralode.controllers.base import AttemptOutcome, StepRequest
from neuralode.core.clock import Number, column, scaled, stage_times
from neuralode.core.field import Field
from neuralode.core.record import StepEdges
from neuralode.engines.grid import step_through, steps_between
from neuralode.methods.base import Rows, StepStart


@dataclass(frozen=True)
class Interpolated:
    """A method with torchdiffeq's interpolation between grid times instead of its own dense output.

    Parameters
    ----------
    method : Method
        The method that takes the steps; every other attribute is its own.
    kind : {"linear", "cubic"}
        A line between the ends of a step, or the cubic Hermite polynomial with the slopes f at both ends.

    Examples
    --------
    >>> import neuralode as node
    >>> Interpolated(node.methods()["rk4"], "cubic").interpolant_order
    3
    """

    method: Any
    kind: Literal["linear", "cubic"]

    @property
    def interpolant_order(self) -> int:
        """Return the order of the interpolant, which the order of the method may limit further."""
        return 1 if self.kind == "linear" else 3

    def __getattr__(self, name: str) -> Any:
        if name == "method" or name.startswith("__"):  # not yet set while the object is copied or unpickled
            raise AttributeError(name)
        return getattr(self.method, name)

    def interpolate(self, start: StepStart, stages: Any, thetas: Sequence[float]) -> Tensor:
        """Return the states at some θ of one step: [θ, rows, features]."""
        y, y1 = start.y, self.method.interpolate(start, stages, (1.0,))[0]
        if all(theta == 1 for theta in thetas):
            return y1.expand(len(thetas), *y1.shape)
        coefficients = self._coefficients(start, y1)
        powers = [[theta**j for j in range(len(coefficients))] for theta in thetas]
        weights = torch.tensor(powers, dtype=y.dtype, device=y.device)
        return torch.tensordot(weights, coefficients, dims=1)

    def interpolant(self, start: StepStart, stages: Any) -> Tensor:
        """Return the coefficients of θ⁰, θ¹, …: [degree + 1, rows, features]."""
        return self._coefficients(start, self.method.interpolant(start, stages).sum(0))

    def _coefficients(self, start: StepStart, y1: Rows) -> Tensor:
        f, t, y, h, _ = start
        increment = y1 - y
        if self.kind == "linear":
            return torch.stack((y, increment))
        first, last = stage_times(t, h, nodes=(0.0, 1.0), dtype=y.dtype.to_real(), device=y.device)
        zero = torch.zeros_like(y)
        hf0, hf1 = (_times_slope(h, f(time, state), zero) for time, state in ((first, y), (last, y1)))
        return torch.stack((y, hf0, 3 * increment - 2 * hf0 - hf1, hf0 + hf1 - 2 * increment))


def without_interpolation(method: Any) -> Any:
    """Return the method itself, with its own dense output."""
    return method.method if isinstance(method, Interpolated) else method


def _times_slope(h: Number, slope: Tensor, zero: Tensor) -> Tensor:
    return slope * column(h, slope) if isinstance(h, Tensor) else scaled(zero, h, slope)


def solve_on_grid(
    field: Field,
    y0: Rows,
    grid: Tensor | list[float],
    *,
    method: Any,
    output_times: list[float] | None,
    perturb: bool,
) -> Tensor:
    """Take one step from each grid time to the next, in plain torch operations.

    Parameters
    ----------
    field : Field
        The right-hand side, without its guard against functions that modify their arguments.
    y0 : Tensor[rows, features]
        The packed initial state.
    grid : Tensor[steps + 1] or list of float
        The times at which steps end, from the start to the end of the solve; differentiable if it is a tensor.
    method : Method
        A fixed-step method; under `torch.func` transforms an explicit one.
    output_times : list of float or None
        The output times, within the grid; None if they are the grid times.
    perturb : bool
        Evaluate the right-hand side strictly within each step.

    Returns
    -------
    Tensor[outputs, rows, features]
        The packed states at the output times.
    """
    steps = steps_between(grid)
    if perturb:
        steps = [step._replace(edges=StepEdges(t1, True, True)) for step, t1 in zip(steps, grid[1:], strict=True)]
    if output_times is None:
        return torch.stack([y0, *(result.y1 for result in step_through(field, y0, steps, method=method))])
    steps = [
        step._replace(thetas=_outputs_within(output_times, t0, t1))
        for step, (t0, t1) in zip(steps, pairwise(map(float, grid)), strict=True)
    ]
    states = [result.states for result in step_through(field, y0, steps, method=method)]
    return torch.cat([y0[None], *(x for x in states if x is not None)])


def _outputs_within(output_times: list[float], t0: float, t1: float) -> tuple[float, ...]:
    """Return the output times within (t0, t1] as fractions θ of the step."""
    direction = 1 if t1 > t0 else -1
    ahead = [t * direction for t in output_times]
    within = output_times[bisect_right(ahead, t0 * direction) : bisect_right(ahead, t1 * direction)]
    return tuple((t - t0) / (t1 - t0) for t in within)


def grid_times(controller: Any, start: float, end: float) -> list[float]:
    """Return the times at which a fixed-step controller ends its steps, with both ends of the solve."""
    direction = 1.0 if end >= start else -1.0
    times, history = [start], controller.start(start, end)
    while times[-1] != end:
        proposal = controller.propose(StepRequest(t=times[-1], h=0.0, end=end, direction=direction), history)
        decision = controller.decide(AttemptOutcome(ratio=None, h=0.0, planned=0.0, clipped=False, order=1), history)
        times.append(proposal.t1)
        history = decision.history
    return times
