"""Record which interpolations f evaluates, and whether it uses their values or their derivatives."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Literal, NamedTuple, TypeAlias

import torch

if TYPE_CHECKING:
    from neuralode.inputs.interpolation import Interpolation

Quantity: TypeAlias = Literal["value", "derivative"]


class Query(NamedTuple):
    """One evaluation of an interpolation."""

    interpolation: Interpolation
    quantity: Quantity


_recorded: ContextVar[list[Query] | None] = ContextVar("recorded", default=None)


@contextmanager
def recording_queries() -> Iterator[list[Query]]:
    """Record all evaluations of interpolations inside the block, on this thread."""
    queries: list[Query] = []
    token = _recorded.set(queries)
    try:
        yield queries
    finally:
        _recorded.reset(token)


def record_query(interpolation: Interpolation, quantity: Quantity) -> None:
    """Record an evaluation if a recording is active; code that is being compiled records nothing."""
    if torch.compiler.is_compiling():
        return
    queries = _recorded.get()
    if queries is not None:
        queries.append(Query(interpolation, quantity))
