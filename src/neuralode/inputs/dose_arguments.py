"""Check the times and changes of doses, and bring each to one shape."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float64
from torch import Tensor
from torch.utils._pytree import PyTree, tree_flatten

from neuralode.core.layout import Layout, Leaf
from neuralode.core.problem import Problem
from neuralode.core.times import read_times


def dose_times(
    t: float | Sequence[float | Tensor] | Tensor, problem: Problem, *, name: str
) -> Float64[Tensor, "clocks K"]:
    """Return the times of one dose, with their history; ``name`` is how messages call the dose."""
    if isinstance(t, Tensor) and t.shape[-1:] == (0,):
        return problem.t.new_zeros((problem.layout.rows if problem.per_sample else 1, 0))
    given = [t] if isinstance(t, (int, float)) or (isinstance(t, Tensor) and t.dim() == 0) else t
    try:
        times = read_times(given, problem.layout, problem.per_sample)
    except (TypeError, ValueError) as error:
        raise type(error)(f"{name}: {error}") from error
    times = times.reshape(-1, times.shape[-1])
    fixed = times.detach()
    missing = fixed.isnan() | (fixed == torch.inf)
    may_be_padded = problem.per_sample and isinstance(t, Tensor) and t.dim() == 2
    if not bool((fixed.isfinite() | (missing & may_be_padded)).all()):
        raise ValueError(
            f"{name}: t holds a time that is not finite: {fixed.tolist()}; wanted finite times (with per_sample=True, "
            "times [rows, K] may be padded with NaN or inf)."
        )
    latest = fixed.masked_fill(missing, -torch.inf).cummax(1).values
    if bool(((latest > fixed) & ~missing).any()):
        raise ValueError(f"{name}: t is not sorted: {fixed.tolist()}; wanted nondecreasing times.")
    _check_within(fixed, missing, problem=problem, name=name)
    return times


def _check_within(times: Tensor, missing: Tensor, *, problem: Problem, name: str) -> None:
    """Refuse times outside the span of the solve."""
    outputs = problem.t.detach().reshape(-1, problem.outputs).to(times.device)
    outside = ((times < outputs[:, :1]) | (times > outputs[:, -1:])) & ~missing
    if bool(outside.any()):
        row, index = outside.nonzero()[0].tolist()
        t0, t1 = outputs[row if len(outputs) > 1 else 0, [0, -1]].tolist()
        where = f" in row {row}" if problem.per_sample else ""
        raise ValueError(
            f"{name}: t={times[row, index].item()}{where} lies outside the solve, {t0} to {t1}; wanted times within "
            "(with per_sample=True, NaN in times [rows, K] means no dose)."
        )


def dose_amounts(change: PyTree, layout: Layout, *, count: int, name: str) -> list[Tensor] | None:
    """Return the added leaves of one dose with ``count`` times, [count, *leaf shape] each; None for a function."""
    if callable(change):
        return None
    if layout.spec.is_leaf() and isinstance(change, Sequence):
        change = _stacked(change, name)
    values = [change] * len(layout.leaves)
    if not isinstance(change, (int, float, complex, Tensor)):
        values, spec = tree_flatten(change)
        if spec != layout.spec:
            raise ValueError(
                f"{name}: the change is a {type(change).__name__} whose structure differs from that of y0; wanted a "
                "number, a tensor, a pytree like y0, or a function (t, y, *args)."
            )
    leaves = zip(values, layout.leaves, strict=True)
    return [_leaf_amounts(x, leaf, layout, count=count, name=name) for x, leaf in leaves]


def _stacked(change: Sequence[complex | Tensor], name: str) -> Tensor:
    """Return a list of amounts as one tensor."""
    try:
        parts = [x if isinstance(x, Tensor) else torch.as_tensor(x) for x in change]
        # Not the default dtype: Python numbers must not be rounded to it.
        dtype = torch.complex128 if any(x.is_complex() for x in parts) else torch.float64
        return torch.stack([torch.as_tensor(x, dtype=dtype) for x in change])
    except (RuntimeError, TypeError, ValueError) as error:
        raise TypeError(
            f"{name}: the change is a list that does not form a tensor ({str(error).splitlines()[0]}); wanted one "
            "number, or one tensor of the same shape, for each time."
        ) from error


def _leaf_amounts(amount: object, leaf: Leaf, layout: Layout, *, count: int, name: str) -> Tensor:
    """Return the amounts added to one leaf, [count, *leaf shape]."""
    shape = (layout.rows, *leaf.shape) if layout.has_rows else tuple(leaf.shape)
    x = _as_tensor(amount, leaf, layout, name=name)
    for_each_time = x.dim() == len(shape) + 1 and _broadcasts(x.shape, (count, *shape))
    for_all_times = x.dim() <= len(shape) and _broadcasts(x.shape, shape)
    numbers = x.shape == (count,) and len(shape) > 0
    if numbers and for_all_times and count > 1:
        raise ValueError(
            f"{name}: a change of shape {list(x.shape)} may be one number for each of {count} times or one state "
            f"{list(shape)} for all of them; wanted shape {[count, *shape]}, as change.expand or change[:, None] give "
            "it."
        )
    if numbers and not for_all_times and not for_each_time:
        x = x.reshape(-1, *(1,) * len(shape))
    elif not (for_each_time or for_all_times):
        raise ValueError(
            f"{name}: the change has shape {list(x.shape)}; wanted {[count, *shape]} (a leading axis for its {count} "
            f"times), {list(shape)} (the same at all), [{count}], or a number."
        )
    return x.to(leaf.dtype).expand(count, *shape)


def _as_tensor(amount: object, leaf: Leaf, layout: Layout, *, name: str) -> Tensor:
    """Return an amount as a tensor of a dtype that suits the leaf; 0-d ones on the device of the state."""
    if not isinstance(amount, (int, float, complex, Tensor)):
        raise TypeError(f"{name}: the change holds a {type(amount).__name__}; wanted numbers or tensors.")
    if not isinstance(amount, Tensor):
        # Not the default dtype: Python numbers must not be rounded to it.
        dtype = torch.complex128 if isinstance(amount, complex) else torch.float64
        amount = torch.full((), amount, dtype=dtype)
    if amount.is_complex() and not leaf.dtype.is_complex:
        raise TypeError(f"{name}: the change is complex, the state {leaf.dtype}; wanted real amounts.")
    return amount.to(layout.dtype) if amount.dim() else amount.to(device=layout.device, dtype=leaf.dtype)


def _broadcasts(shape: Sequence[int], to: Sequence[int]) -> bool:
    try:
        return tuple(torch.broadcast_shapes(tuple(shape), tuple(to))) == tuple(to)
    except RuntimeError:
        return False


def check_new_state(new: PyTree, y: PyTree, *, name: str) -> None:
    """Refuse the result of a dose function if its structure, shapes, dtypes or devices differ from those of y."""
    leaves, spec = tree_flatten(new)
    expected, expected_spec = tree_flatten(y)
    if spec != expected_spec or not all(isinstance(x, Tensor) for x in leaves):
        raise TypeError(f"{name}: the function returned a {type(new).__name__}; wanted a state like y.")
    for x, like in zip(leaves, expected, strict=True):
        if x.shape != like.shape or x.dtype != like.dtype or x.device != like.device:
            raise ValueError(
                f"{name}: the function returned {x.dtype} of shape {list(x.shape)} on {x.device}; wanted "
                f"{like.dtype} of shape {list(like.shape)} on {like.device}, as y has."
            )
