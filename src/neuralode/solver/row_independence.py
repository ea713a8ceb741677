"""Check whether rows, or the halves of a pair, depend on each other."""

from __future__ import annotations

import weakref
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from neuralode.autodiff.captured import modules_of
from neuralode.core.problem import Problem

LONG = 1e3  # where a solve has no end


_rows_checked: weakref.WeakKeyDictionary[Any, set] = weakref.WeakKeyDictionary()


def check_rows(problem: Problem) -> int:
    """Refuse an f whose rows depend on each other, once per field and shapes; returns the calls of f it took.

    All other rows are given other numbers and other times: the first must not notice. Then those of one half: the other
    half must not notice.
    """
    rows, f = problem.layout.rows, problem.field.f
    owner = getattr(f, "__self__", f)  # bound methods are made anew each time
    known = _rows_checked.setdefault(owner, set()) if _can_remember(owner) else set()
    modes = tuple(m.training for module in modules_of(f) for m in module.modules())
    case = (getattr(f, "__name__", ""), modes, problem.y0.shape, problem.y0.dtype)
    if rows < 2 or (case in known and not problem.field.args):  # other args make another field
        return 0
    y, t = problem.y0.detach(), problem.t.detach()
    start, span = t[:, 0], (t[:, -1] - t[:, 0]).clamp(-LONG, LONG)
    spread = torch.linspace(0, 1e-2, rows, dtype=t.dtype, device=t.device)
    times, others = start + spread * span, start + (spread.flip(0) + 5e-3) * span
    moved = _moved(y)
    dtype = y.dtype.to_real()
    whole = problem.field(times.to(dtype), y)
    for keep in _some_rows(y):
        answer = problem.field(torch.where(keep, times, others).to(dtype), torch.where(keep[:, None], y, moved))
        if not _agree(whole[keep], answer[keep]):
            raise ValueError(
                "f of one row changes with the other rows, which per_sample=True cannot allow: write `t[:, None]` "
                "where t (shape [B]) meets y, or f mixes samples (BatchNorm in training, a mean over the batch), or "
                "draws random numbers. With per_sample=False all rows share one step."
            )
    known.add(case)
    return 3


def check_alone(problem: Problem) -> tuple[Problem, int]:
    """Find out whether rows that share a clock depend on each other: an implicit method then solves for all at once.

    Returns the problem that knows, and the calls of f it took.
    """
    if problem.per_sample or problem.layout.rows < 2:
        return problem, 0
    with torch.no_grad():
        y, t = problem.y0.detach(), problem.t.detach()[0].to(device=problem.y0.device, dtype=problem.field.time_dtype)
        whole = problem.field(t, y)
        answers = [(keep, problem.field(t, torch.where(keep[:, None], y, _moved(y)))) for keep in _some_rows(y)]
        alone = all(_agree(whole[keep], answer[keep]) for keep, answer in answers)
    return replace(problem, field=replace(problem.field, coupled=not alone)), 3


def check_separable(problem: Problem, method: Any) -> int:
    """Refuse what a method for pairs (q, p) cannot take; returns the calls of f it took.

    Where q is another its own slope must be the same, and so with p. This is asked at every solve: training may make f
    another. It is not asked at y0, where much is zero, as all is that is multiplied by a p at rest.
    """
    layout, name = problem.layout, method.name
    if layout.spec.type not in (tuple, list) or layout.spec.num_children != 2:
        came = "a tensor" if layout.spec.is_leaf() else f"a {layout.spec.type.__name__} of {layout.spec.num_children}"
        raise ValueError(
            f"y0 is {came}; method {name!r} wants a tuple (q, p) or a list of two, and f(t, (q, p)) that returns "
            "(dq/dt, dp/dt). Other states are for other methods, such as 'rk4' or 'tsit5'."
        )
    q, p = layout.halves
    if q.features != p.features:
        raise ValueError(
            f"y0 = (q, p) has {q.features} numbers a row in q and {p.features} in p; method {name!r} wants as many in "
            "one as in the other."
        )
    if problem.field.separable:
        return 0
    y, t = problem.y0.detach(), problem.t.detach()[..., 0].to(device=layout.device, dtype=problem.field.time_dtype)
    size = torch.cat([_size(half, y).expand(q.features) for half in (y[:, : q.features], y[:, q.features :])])
    near, far = 0.931 * y + 0.317 * size, 1.0837 * y - 0.1234 * size
    place = torch.arange(layout.features, device=y.device) < q.features
    whole = problem.field(t, near)
    for half, other, columns in (("q", "p", place), ("p", "q", ~place)):
        answer = problem.field(t, torch.where(columns, far, near))
        if not _agree(whole[:, columns], answer[:, columns]):
            why = " (friction?)" if half == "p" else ""
            raise ValueError(
                f"d{half}/dt changes with {half}{why}; method {name!r} takes a function of (t, {other}) alone. "
                "Wanted a separable f, or another method, such as 'rk4' or 'tsit5'."
            )
    return 3


def _size(part: Tensor, whole: Tensor) -> Tensor:
    """How large the numbers of a part are: as those of the whole where it is zero, as 1 where all is."""
    if not part.numel():
        return part.new_ones(()).real
    own, all_ = part.abs().amax(), whole.abs().amax()
    return torch.where(own > 0, own, torch.where(all_ > 0, all_, 1))


def _moved(y: Tensor) -> Tensor:
    """Other numbers in every row."""
    return y.roll(1, 0) * 1.01 + 1e-3


def _some_rows(y: Tensor) -> tuple[Tensor, Tensor]:
    """The first row, and one half of them: what these two do not notice, no row is likely to."""
    place = torch.arange(len(y), device=y.device)
    return place == 0, place >= len(y) // 2


def _agree(a: Tensor, b: Tensor) -> bool:
    """Equal up to what the order of a sum may change."""
    both = a.isfinite() & b.isfinite()
    if not bool((a.isfinite() == b.isfinite()).all()) or not a.numel():
        return not a.numel()
    slack = torch.finfo(a.dtype).eps ** 0.5 * torch.where(both, a.abs(), 0).amax()
    return bool((torch.where(both, (a - b).abs(), 0) <= slack).all())


def _can_remember(f: Any) -> bool:
    try:
        weakref.ref(f)
        hash(f)
    except TypeError:
        return False
    return True
