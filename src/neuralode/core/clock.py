"""Clock numbers: Python numbers where all rows share one clock, tensors [rows] where every row has its own.

A *clock* is the time, step size and status of rows that step together: one for all rows, or one for each row with
``per_sample=True``.

The eager engine steps a shared clock on the host, where a float costs a tenth of a one-element tensor. Decisions about
steps are written once, in operators that both kinds support and the functions below.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache
from typing import TypeAlias, TypeVar

import torch
from torch import Tensor
from torch.utils._pytree import tree_map

from neuralode.core.types import PyTree

Number: TypeAlias = float | Tensor  # a float, or a float64 tensor [rows] (0-d where a shared clock is traced)
Flag: TypeAlias = bool | Tensor
X = TypeVar("X", bound=float | Tensor)

EPS = torch.finfo(torch.float64).eps
MAX_FILLS = 4  # up to this many scalar tensors are made as fast as one tensor that holds all


def number(x: Tensor, *, per_row: bool) -> Number:
    """Return a tensor [rows] or 0-d as a clock number; a shared clock waits for the device."""
    return x.to(torch.float64) if per_row else x.item()


def host(x: Number) -> float:
    """Return the number of a shared clock as a float."""
    return x.item() if isinstance(x, Tensor) else x


def per_row(x: object) -> Tensor:
    """Narrow numbers or flags to a tensor with an entry for each row."""
    assert isinstance(x, Tensor), "a clock for each row"
    return x


def where(condition: Flag, yes: X, no: X) -> X | Tensor:
    """Choose between two numbers or flags, or between the rows of two states, by clock."""
    if not isinstance(condition, Tensor):
        return yes if condition else no
    if isinstance(no, Tensor) and not isinstance(yes, Tensor):
        return no.masked_fill(condition, yes)  # one operation less than `torch.where` with a number
    if isinstance(yes, Tensor) and yes.dim() > condition.dim():
        condition = (
            condition[:, None]
            if yes.dim() == 2 and condition.dim() == 1
            else condition.reshape(-1, *(1,) * (yes.dim() - 1))
        )
    return torch.where(condition, yes, no)


def choose(condition: Flag, yes: PyTree, no: PyTree) -> PyTree:
    """Choose between two pytrees of tensors [rows, …]; with a tensor condition None if either is None."""
    if not isinstance(condition, Tensor):
        return yes if condition else no
    if yes is None or no is None:
        return None
    if isinstance(yes, Tensor) and isinstance(no, Tensor):
        return where(condition, yes, no)
    return tree_map(lambda a, b: where(condition, a, b), yes, no)


def minimum(a: Number, b: Number) -> Number:
    """Return the smaller number of each clock; ``b`` may be a plain number."""
    if isinstance(a, Tensor):
        return torch.minimum(a, b) if isinstance(b, Tensor) else a.clamp(max=b)
    return torch.clamp(b, max=a) if isinstance(b, Tensor) else min(a, b)


def maximum(a: Number, b: Number) -> Number:
    """Return the larger number of each clock; ``b`` may be a plain number."""
    if isinstance(a, Tensor):
        return torch.maximum(a, b) if isinstance(b, Tensor) else a.clamp(min=b)
    return torch.clamp(b, min=a) if isinstance(b, Tensor) else max(a, b)


def both(a: Flag, b: Flag) -> Flag:
    """Return ``a & b`` without an operation where one of them is a plain True."""
    if a is True:
        return b
    return a if b is True else a & b


def replace_nan(a: Number, number: float) -> Number:
    """Return the numbers of each clock with NaN replaced; infinities stay."""
    return (
        torch.nan_to_num(a, nan=number, posinf=math.inf, neginf=-math.inf)
        if isinstance(a, Tensor)
        else number
        if math.isnan(a)
        else a
    )


def isfinite(a: Number) -> Flag:
    """Return whether the number of each clock is finite."""
    return torch.isfinite(a) if isinstance(a, Tensor) else math.isfinite(a)


def power(a: Number, exponent: float) -> Number:
    """Return ``a ** exponent`` for positive a.

    Tensors use exp(log a · exponent): the last bits of `torch.pow` depend on the length of the tensor.
    """
    return torch.exp(torch.log(a) * exponent) if isinstance(a, Tensor) else a**exponent


def negate(flag: Flag) -> Flag:
    """Return the logical negation of each flag (``~True`` is −2)."""
    return ~flag if isinstance(flag, Tensor) else not flag


def some(flag: Flag) -> bool:
    """Return whether the flag of any clock is set."""
    return bool(flag.any()) if isinstance(flag, Tensor) else flag


def stage_times(
    t: Number, h: Number, nodes: tuple[float, ...], dtype: torch.dtype, device: torch.device
) -> Sequence[Tensor]:
    """Return ``t + c h`` for every node c, computed in float64 and rounded to ``dtype``."""
    compiling = torch.compiler.is_compiling()  # fuses scalars; a constant column would be copied to the device
    if isinstance(h, Tensor) or isinstance(t, Tensor):
        if compiling:
            t, h = (x.double() if isinstance(x, Tensor) else x for x in (t, h))
            return [torch.as_tensor(t + c * h).to(dtype) for c in nodes]
        c = _column(nodes, device)
        return (t + h * (c[:, None] if max(_dim(t), _dim(h)) else c)).to(dtype).unbind()
    if compiling or len(nodes) <= MAX_FILLS:  # fills: no copy, so no synchronization
        return [torch.scalar_tensor(t + c * h, dtype=dtype, device=device) for c in nodes]
    if device.type == "cpu":
        return torch.tensor([t + c * h for c in nodes], dtype=dtype).unbind()
    return (_column(nodes, device) * h).add_(t).to(dtype).unbind()


def real_dtype(dtype: torch.dtype) -> torch.dtype:
    """Return the real dtype of the same precision. Unlike `torch.dtype.to_real`, `torch.compile` can trace it."""
    return _REAL.get(dtype, dtype)


def scaled(y: Tensor, h: Number, increment: Tensor, factor: float = 1.0) -> Tensor:
    """Return ``y + h * factor * increment`` with the h of each row's clock."""
    if isinstance(h, Tensor):
        h = column(h, y)
        return torch.addcmul(y, increment, h if factor == 1.0 else h * factor)  # rounds as `alpha` does below
    return torch.add(y, increment, alpha=h * factor)


def step_column(h: Number, y: Tensor) -> Number:
    """Return per-row sizes as a column in the dtype of the state, for repeated use by `scaled`; others unchanged."""
    return column(h, y) if isinstance(h, Tensor) and h.dim() else h


def column(h: Tensor, y: Tensor) -> Tensor:
    """Return h in the dtype of the state, shaped to multiply its rows; a column is returned as it is."""
    if h.dim() == 2:
        return h
    h = h.to(y.dtype)
    return h[:, None] if h.dim() else h


def column_times(h: Number, rows: Tensor) -> Tensor:
    """Return ``h * rows`` with the h of each row's clock."""
    return rows * column(h, rows) if isinstance(h, Tensor) else rows * h


_REAL = {
    complex_dtype: complex_dtype.to_real() for complex_dtype in (torch.complex32, torch.complex64, torch.complex128)
}


def _dim(a: Number) -> int:
    return a.dim() if isinstance(a, Tensor) else 0


@lru_cache(maxsize=256)
def _column(nodes: tuple[float, ...], device: torch.device) -> Tensor:
    with torch.inference_mode(False):  # cached, so it must not be an inference tensor
        return torch.tensor(nodes, dtype=torch.float64, device=device)
