"""Drop rows that have finished from the batch."""

from __future__ import annotations

import torch
from torch import Tensor

from neuralode.core.record import Record
from neuralode.engines.base import SolveContext, SolverState


def rows_are_independent(context: SolveContext, state: SolverState, rows: Tensor) -> bool:
    """Whether f of these rows alone, and every event function, equals those rows of f of all."""
    field, few = context.field, context.field.take(rows)
    t = state.t.to(state.y.dtype.to_real())
    whole = [field(t, state.y)[rows], *(event(field, t, state.y)[rows] for event in context.events)]
    try:
        alone = [few(t[rows], state.y[rows]), *(event(few, t[rows], state.y[rows]) for event in context.events)]
    except (RuntimeError, ValueError, TypeError, IndexError):
        return False  # a captured tensor has the row axis
    return all(a.shape == b.shape and _alike(a, b) for a, b in zip(alone, whole, strict=True))


def _alike(alone: Tensor, whole: Tensor) -> bool:
    slack = torch.finfo(whole.dtype).eps ** 0.5
    return bool(((alone - whole).abs() <= slack * (1 + whole.abs())).all())


def write_back(record: Record, context: SolveContext, state: SolverState) -> None:
    """Write where these rows stand into the whole."""
    rows = context.rows
    for name in ("y", "t", "h", "status", "attempts", "accepted", "cost"):
        value = getattr(state, name)
        if rows is not None:
            value = getattr(record, name).index_copy(0, rows, value)
        setattr(record, name, value)
