"""The size of the first step, where steps adapt."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from neuralode.core import clock
from neuralode.core.clock import where
from neuralode.core.norms import Norm
from neuralode.core.problem import Problem


def first_step(problem: Problem, *, controller: Any, norm: Norm, order: int, y0: Tensor, f0: Tensor) -> tuple[Any, int]:
    """Size of the first attempt, and the evaluations it cost.

    Hairer, Nørsett & Wanner I, II.4, algorithm 4.14: a step whose explicit Euler increment is small, and whose change
    of slope is within the tolerance.
    """
    t0, span = problem.start, abs(problem.end - problem.start)
    if controller.first_step is not None:
        h = controller.first_step
        h = clock.minimum(h if isinstance(h, Tensor) == isinstance(t0, Tensor) else t0 * 0 + h, span)
        return controller.bound(h), 0
    size = _reader(norm, problem.per_sample)
    d0, d1 = size(y0, y0, y0), size(f0, y0, y0)
    tiny = (d0 < 1e-5) | (d1 < 1e-5)
    h0 = clock.minimum(where(tiny, d0 * 0 + 1e-6, 0.01 * d0 / where(tiny, d1 * 0 + 1, d1)), span)
    calls, d2 = 0, d1
    for _ in range(11):  # a trial that is not finite is divided by ten, at most ten times
        probe = clock.scaled(y0, h0 * problem.direction, f0)
        times = clock.stage_times(t0, h0 * problem.direction, (1.0,), y0.dtype.to_real(), y0.device)
        d2 = size(problem.field(times[0], probe) - f0, y0, y0) / clock.maximum(h0, 1e-300)
        calls += 1
        bad = clock.negate(clock.isfinite(d2))
        if not clock.some(bad):
            break
        h0 = where(bad, h0 / 10, h0)
    steepest = clock.maximum(d1, where(clock.isfinite(d2), d2, d1))
    flat = steepest <= 1e-15
    fitted = clock.power(0.01 / where(flat, steepest * 0 + 1, steepest), 1 / order)
    h1 = where(flat, clock.maximum(h0 * 1e-3, 1e-6), fitted)
    h = clock.minimum(clock.minimum(100 * h0, h1), span)
    return clock.minimum(controller.bound(h), clock.maximum(span, controller.min_step or 0.0)), calls


def _reader(norm: Norm, per_sample: bool) -> Callable[..., Any]:
    if per_sample:
        return lambda *states: norm(*states).to(torch.float64)
    return lambda *states: norm(*states).item()
