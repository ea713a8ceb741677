"""Check whether the rows of f depend on each other."""

from __future__ import annotations

import weakref
from dataclasses import replace

import torch
from torch import Tensor

from neuralode.autodiff.captured import modules_of
from neuralode.core.clock import per_row
from neuralode.core.problem import Problem
from neuralode.core.rounding import equal_up_to_rounding

MAX_SPAN = 1e3  # f is evaluated within this span if a solve is longer or has no end

_checked: weakref.WeakKeyDictionary[object, set] = weakref.WeakKeyDictionary()


def check_rows(problem: Problem) -> int:
    """Refuse an f whose rows depend on each other, once per f and shapes; return the number of calls of f.

    The state and the time are changed in all rows but the first, then in one half; the other rows must not change.
    """
    rows, case, known = problem.layout.rows, *_case(problem)
    if rows < 2 or (case in known and not problem.field.args):  # with other args, f is another function
        return 0
    y, t = problem.y0.detach(), per_row(problem.t.detach())
    start, span = t[:, 0], (t[:, -1] - t[:, 0]).clamp(-MAX_SPAN, MAX_SPAN)
    spread = torch.linspace(0, 1e-2, rows, dtype=t.dtype, device=t.device)
    times, other_times = start + spread * span, start + (spread.flip(0) + 5e-3) * span
    dtype, changed = y.dtype.to_real(), _changed(y)
    slopes = problem.field(times.to(dtype), y)
    for keep in _kept_rows(y):
        t_mixed, y_mixed = torch.where(keep, times, other_times), torch.where(keep[:, None], y, changed)
        mixed = problem.field(t_mixed.to(dtype), y_mixed)
        if not equal_up_to_rounding(slopes[keep], mixed[keep]):
            raise ValueError(
                "the slope of a row changes with the other rows, which per_sample=True does not allow. Write "
                "`t[:, None]` where f combines t (shape [B]) with y. Otherwise f mixes samples (BatchNorm in training, "
                "a mean over the batch) or draws random numbers. With per_sample=False all rows share their steps."
            )
    known.add(case)
    return 3


def find_coupling(problem: Problem) -> tuple[Problem, int]:
    """Detect whether rows that share a clock depend on each other, so that implicit methods solve for all at once.

    Returns the problem with ``field.coupled`` set, and the number of calls of f.
    """
    if problem.per_sample or problem.layout.rows < 2:
        return problem, 0
    field, y = problem.field, problem.y0.detach()
    with torch.no_grad():
        t = problem.t.detach()[0].to(device=y.device, dtype=field.time_dtype)
        slopes, changed = field(t, y), _changed(y)
        pairs = [(keep, field(t, torch.where(keep[:, None], y, changed))) for keep in _kept_rows(y)]
        independent = all(equal_up_to_rounding(slopes[keep], mixed[keep]) for keep, mixed in pairs)
    return replace(problem, field=replace(field, coupled=not independent)), 3


def _case(problem: Problem) -> tuple[tuple, set]:
    """Return the key of a check of f, and the keys of the checks that f has passed."""
    f = problem.field.f
    owner = getattr(f, "__self__", f)  # a bound method is a new object at each access
    known = _checked.setdefault(owner, set()) if _can_be_key(owner) else set()
    modes = tuple(m.training for module in modules_of(f) for m in module.modules())
    return (getattr(f, "__name__", ""), modes, problem.y0.shape, problem.y0.dtype), known


def _changed(y: Tensor) -> Tensor:
    """Return other numbers for every row."""
    return y.roll(1, 0) * 1.01 + 1e-3


def _kept_rows(y: Tensor) -> tuple[Tensor, Tensor]:
    """Return masks of the first row and of one half: a dependence on others changes one of them."""
    index = torch.arange(len(y), device=y.device)
    return index == 0, index >= len(y) // 2


def _can_be_key(f: object) -> bool:
    try:
        weakref.ref(f)
        hash(f)
    except TypeError:
        return False
    return True
