"""Check whether f is separable, for methods that advance pairs (q, p)."""

from __future__ import annotations

import torch
from torch import Tensor

from neuralode.core.problem import Problem
from neuralode.core.rounding import equal_up_to_rounding
from neuralode.methods.base import Method


def check_separable(problem: Problem, method: Method) -> int:
    """Refuse a state that is not a pair, or an f that is not separable; return the number of calls of f.

    If only q changes, dq/dt must not change, and likewise for p. This is checked at every solve, because training may
    change f; and not at y0, where many terms vanish, such as those that are multiplied by a p at rest.
    """
    layout, name = problem.layout, method.name
    if layout.spec.type not in (tuple, list) or layout.spec.num_children != 2:
        came = "a tensor" if layout.spec.is_leaf() else f"a {layout.spec.type.__name__} of {layout.spec.num_children}"
        raise ValueError(
            f"y0 is {came}; method {name!r} requires a tuple (q, p) or a list of two, and f(t, (q, p)) that "
            "returns (dq/dt, dp/dt). For other states use other methods, such as 'rk4' or 'tsit5'."
        )
    q, p = layout.halves
    if q.features != p.features:
        raise ValueError(
            f"y0 = (q, p) has {q.features} numbers per row in q and {p.features} in p; method {name!r} requires the "
            "same number in both."
        )
    if problem.field.separable:
        return 0
    y, t = problem.y0.detach(), problem.t.detach()[..., 0].to(device=layout.device, dtype=problem.field.time_dtype)
    size = torch.cat([_scale(half, y).expand(q.features) for half in (y[:, : q.features], y[:, q.features :])])
    near, far = 0.931 * y + 0.317 * size, 1.0837 * y - 0.1234 * size
    in_q = torch.arange(layout.features, device=y.device) < q.features
    slopes = problem.field(t, near)
    for half, other, columns in (("q", "p", in_q), ("p", "q", ~in_q)):
        changed = problem.field(t, torch.where(columns, far, near))
        if not equal_up_to_rounding(slopes[:, columns], changed[:, columns]):
            why = " (friction?)" if half == "p" else ""
            raise ValueError(
                f"d{half}/dt changes with {half}{why}; method {name!r} requires a function of (t, {other}) alone. "
                "Wanted a separable f, or another method, such as 'rk4' or 'tsit5'."
            )
    return 3


def _scale(half: Tensor, y: Tensor) -> Tensor:
    """Return the largest modulus of a half of y; that of y if the half is zero; 1 if y is zero."""
    if not half.numel():
        return half.new_ones(()).real
    of_half, of_y = half.abs().amax(), y.abs().amax()
    return torch.where(of_half > 0, of_half, torch.where(of_y > 0, of_y, 1))
