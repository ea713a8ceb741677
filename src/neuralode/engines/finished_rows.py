"""Drop rows that have finished from the batch, once they are half of it."""

from __future__ import annotations

from torch import Tensor

from neuralode.core.clock import per_row
from neuralode.core.record import Record
from neuralode.core.rounding import equal_up_to_rounding
from neuralode.core.status import RUNNING
from neuralode.engines.base import SolveContext, SolverState

CLOCK_NUMBERS = ("t", "h", "status", "attempts", "accepted", "evaluations")


def rows_to_keep(state: SolverState) -> Tensor | None:
    """Return the indices of the running rows if they are at most half of the batch, or None."""
    running = per_row(state.status) == RUNNING
    if 0 < 2 * int(running.sum()) <= len(running):
        return running.nonzero()[:, 0]
    return None


def can_drop_others(context: SolveContext, state: SolverState, rows: Tensor) -> bool:
    """Return whether f and every event function of these rows alone equal those rows of the whole batch.

    They do not where f holds a tensor with a row axis that is not among its args.
    """
    field, few, events = context.field, context.field.take(rows), context.config.events
    t, y = per_row(state.t).to(state.y.dtype.to_real()), state.y
    batch = [field(t, y)[rows], *(event(field, t, y)[rows] for event in events)]
    try:
        alone = [few(t[rows], y[rows]), *(event(few, t[rows], y[rows]) for event in events)]
    except (RuntimeError, ValueError, TypeError, IndexError):
        return False
    return all(equal_up_to_rounding(a, b) for a, b in zip(alone, batch, strict=True))


def write_back(record: Record, context: SolveContext, state: SolverState) -> None:
    """Write the state of these rows into the record of all rows."""
    rows = context.rows
    for name in ("y", *CLOCK_NUMBERS):
        value = getattr(state, name)
        if rows is not None:
            value = getattr(record, name).index_copy(0, rows, value)
        setattr(record, name, value)
