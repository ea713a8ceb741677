"""Read and check the output times."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import TypeAlias

import torch
from torch import Tensor

from neuralode.core.layout import Layout

Times: TypeAlias = Tensor | Sequence[float | Tensor]


def read_times(t: Times, layout: Layout, per_sample: bool) -> Tensor:
    """Return ``t`` as a float64 tensor [outputs], or [rows, outputs] per sample, with its graph.

    Raises
    ------
    TypeError, ValueError
        For a type, dtype or shape that is not one of output times.
    """
    if not isinstance(t, Tensor):
        t = _stack_times(t)
    if not t.is_floating_point():
        raise TypeError(f"t has dtype {t.dtype}; wanted floating times, as t.double() gives.")
    if t.dim() not in ((1, 2) if per_sample else (1,)):
        wanted = "[T] or [B, T]" if per_sample else "[T] (different times for each row need per_sample=True)"
        raise ValueError(f"t has shape {list(t.shape)}; wanted {wanted}.")
    if t.dim() == 2 and t.shape[0] != layout.rows:
        raise ValueError(f"t has {t.shape[0]} rows, y0 has {layout.rows}; wanted one row of times for each row of y0.")
    if t.shape[-1] == 0:
        raise ValueError("t is empty; wanted at least one time.")
    t = t.to(torch.float64)
    if per_sample:
        t = t.to(layout.device)
        return t if t.dim() == 2 else t.expand(layout.rows, -1)
    return t


def _stack_times(t: Sequence[float | Tensor]) -> Tensor:
    if not isinstance(t, Sequence) or len(t) < 1:
        raise TypeError(f"t is a {type(t).__name__}; wanted (t0, t1) or a tensor of output times.")
    if all(isinstance(x, (int, float)) for x in t):
        return torch.tensor([float(x) for x in t], dtype=torch.float64)
    parts = []
    for x in t:
        if isinstance(x, Tensor):
            if not x.is_floating_point() or x.dim():
                raise TypeError(f"t holds a tensor of {x.dtype}, shape {list(x.shape)}; wanted floating 0-d times.")
            parts.append(x.to(torch.float64))
        elif isinstance(x, (int, float)):
            parts.append(torch.tensor(float(x), dtype=torch.float64))
        else:
            raise TypeError(f"t holds a {type(x).__name__}; wanted numbers or 0-d tensors.")
    device = next((x.device for x in parts if x.device.type != "cpu"), torch.device("cpu"))
    return torch.stack([x.to(device) for x in parts])


def check_times(t: Tensor, per_sample: bool, endless: bool) -> tuple[list[float] | Tensor, float]:
    """Return the times as constants, and the direction of integration; refuse times that are not finite and monotone.

    If ``endless``, the last time may be infinite.
    """
    fixed = t.detach()
    host = fixed.tolist()
    rows = host if per_sample else [host]
    spans = [row[-1] - row[0] for row in rows]
    direction = -1.0 if any(span < 0 for span in spans) else 1.0
    for index, row in enumerate(rows):
        place = f" in row {index}" if per_sample else ""
        if not all(map(math.isfinite, row[:-1] if endless and not math.isnan(row[-1]) else row)):
            hint = " (a last time may be infinite where a terminal event ends the solve)" if math.isinf(row[-1]) else ""
            raise ValueError(f"t holds a time that is not finite{place}: {_short(row)}{hint}.")
        if any((b - a) * direction < 0 for a, b in pairwise(row)):
            raise ValueError(
                f"t is not monotone{place}: {_short(row)}; wanted times that only increase or only decrease"
                f"{', the same way in every row' if per_sample else ''}."
            )
    return (fixed if per_sample else host), direction


def _short(row: list[float]) -> str:
    return str(row) if len(row) <= 6 else f"[{row[0]}, {row[1]}, … {row[-1]}]"
