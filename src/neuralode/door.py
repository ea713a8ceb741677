"""Questions put to f before a solve: is what it returns a slope, and does every row depend on itself alone?"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves

from neuralode.gradients.ambient import modules_of, watch
from neuralode.problem import Problem
from neuralode.registry import pick

_rows_checked: WeakKeyDictionary[Any, set] = WeakKeyDictionary()


def check_choices(save: Any, on_failure: Any, max_steps: Any) -> None:
    """Refuse choices that are none."""
    if save is not None and not callable(save):
        pick("save", save, {"steps": None}, ())
    pick("on_failure", on_failure, {"raise": None, "return": None}, ())
    if isinstance(max_steps, bool) or not isinstance(max_steps, int) or max_steps < 1:
        raise ValueError(f"max_steps={max_steps!r}; wanted a whole number of at least 1.")


def look(problem: Problem, save: Callable[..., Any] | None) -> tuple[Tensor, tuple[Tensor, ...]]:
    """f(t0, y0), and every differentiable tensor that f and ``save`` use beside y and t."""
    if not torch.is_grad_enabled():
        return first_evaluation(problem), ()
    f0, seen = watch(lambda: first_evaluation(problem))
    if save is not None:
        seen += watch(lambda: _save_once(problem, save))[1]
    held = [x for f in (problem.field.f, save) for module in modules_of(f) for x in module.parameters()]
    passed = [x for x in tree_leaves(problem.field.args) if isinstance(x, Tensor)]
    found = {id(x): x for x in (*passed, *held, *seen) if x.requires_grad}
    return f0, tuple(found.values())


def _save_once(problem: Problem, save: Callable[..., Any]) -> None:
    field, layout = problem.field, problem.layout
    t = problem.t.detach()[..., 0].to(device=layout.device, dtype=field.time_dtype)
    save(t, layout.unpack(problem.y0.detach()), *field.args)


def first_evaluation(problem: Problem) -> Tensor:
    """f(t0, y0), checked in structure, shape, dtype and device; no rows evaluate f only for those."""
    field, layout = problem.field, problem.layout
    t = problem.t.detach()[..., 0].to(device=layout.device, dtype=field.time_dtype)
    state = layout.unpack(problem.y0.detach(), field.dtype)
    versions = _versions(state, t) if field.guarded else None
    try:
        answer = field.f(t, state, *field.args)
    except RuntimeError as error:
        if problem.per_sample and "size of tensor" in str(error):
            raise ValueError(
                f"f failed on t of shape {list(t.shape)}: {error}. Under per_sample=True each row has its own time: "
                "write t[:, None]."
            ) from error
        raise
    if versions is not None and versions != _versions(state, t):
        raise ValueError("f writes into its arguments; wanted a new tensor: y + 1, not y.add_(1) or y[0] = 1.")
    field.check(answer)
    return layout.pack(answer)


def _versions(state: Any, t: Tensor) -> list[int]:
    return [x._version for x in tree_leaves((state, t))]


def check_rows(problem: Problem) -> int:
    """Refuse an f whose rows depend on each other, once per field and shapes; returns the calls of f it took.

    Every other row is given other numbers and another time: the rows between must not notice.
    """
    rows = problem.layout.rows
    key, shapes = _identity(problem.field.f), (problem.y0.shape, problem.y0.dtype)
    if rows < 2 or (key is not None and shapes in _rows_checked.get(key, ())):
        return 0
    y, t = problem.y0.detach(), problem.t.detach()
    start, span = t[:, 0], t[:, -1] - t[:, 0]
    spread = torch.linspace(0, 1e-2, rows, dtype=t.dtype, device=t.device)
    times = start + spread * span
    other_times = start + spread.flip(0) * span + 5e-3 * span
    odd = torch.arange(rows, device=y.device) % 2 == 1
    others = torch.where(odd[:, None], y.roll(1, 0) * 1.01 + 1e-3, y)
    dtype = y.dtype.to_real()
    first = problem.field(times.to(dtype), y)
    again = problem.field(torch.where(odd, other_times, times).to(dtype), others)
    kept, noticed = first[~odd], again[~odd]
    both = kept.isfinite() & noticed.isfinite()
    size = torch.where(both, kept.abs(), 0).amax() if kept.numel() else kept.new_zeros(())
    slack = torch.finfo(dtype).eps ** 0.5 * size
    if bool((torch.where(both, (kept - noticed).abs(), 0) > slack).any()) or bool((kept.isfinite() != noticed.isfinite()).any()):
        raise ValueError(
            "f of one row changes with the other rows, which per_sample=True cannot allow: write `t[:, None]` where t "
            "(shape [B]) meets y, or f mixes samples (BatchNorm in training, a mean over the batch), or draws random "
            "numbers. With per_sample=False all rows share one step."
        )
    if key is not None:
        _rows_checked.setdefault(key, set()).add(shapes)
    return 2


def _identity(f: Any) -> Any:
    """What to remember an f by: bound methods are made anew each time, their function is not."""
    f = getattr(f, "__func__", f)
    try:
        hash(f)
        WeakKeyDictionary({f: None})
    except TypeError:
        return None
    return f
