"""An estimate of the first step size for adaptive methods.

Hairer, Nørsett & Wanner, *Solving Ordinary Differential Equations I*, II.4, algorithm 4.14: a size at which
the increment of an explicit Euler step is small, and the change of the slope over it is within the tolerance.
"""

from __future__ import annotations

from torch import Tensor

from neuralode.controllers.base import SolveStart
from neuralode.core import clock
from neuralode.core.clock import Number, where

TRIALS = 11  # trial steps: each is a tenth of the one before, until the slope at its end is finite


def estimate_initial_step(start: SolveStart) -> tuple[Number, int]:
    """Return an estimate of the first step size, at most the span, and the calls of f that it took."""
    problem, y0, f0 = start.problem, start.y0, start.f0
    span = abs(problem.end - problem.start)
    size, slope = _ratio(start, y0), _ratio(start, f0)
    tiny = (size < 1e-5) | (slope < 1e-5)
    h0 = where(tiny, size * 0 + 1e-6, 0.01 * size / where(tiny, slope * 0 + 1, slope))
    h0 = clock.minimum(h0, span)
    curvature, calls = slope, 0
    for _ in range(TRIALS):
        signed = h0 * problem.direction
        trial = clock.scaled(y0, signed, f0)
        t1 = clock.stage_times(problem.start, signed, (1.0,), dtype=clock.real_dtype(y0.dtype), device=y0.device)[0]
        curvature = _ratio(start, problem.field(t1, trial) - f0) / clock.maximum(h0, 1e-300)
        calls += 1
        bad = clock.negate(clock.isfinite(curvature))
        if not clock.some(bad):
            break
        h0 = where(bad, h0 / 10, h0)
    steepest = clock.maximum(slope, where(clock.isfinite(curvature), curvature, slope))
    flat = steepest <= 1e-15
    fitted = clock.power(0.01 / where(flat, steepest * 0 + 1, steepest), 1 / start.order)
    h1 = where(flat, clock.maximum(h0 * 1e-3, 1e-6), fitted)
    return clock.minimum(clock.minimum(100 * h0, h1), span), calls


def _ratio(start: SolveStart, x: Tensor) -> Number:
    """Return the norm of ``x`` scaled by the tolerances at y0."""
    return clock.number(start.norm(x, start.y0, start.y0), per_row=start.problem.per_sample)
