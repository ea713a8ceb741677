"""Who wants to hear which paths are asked: a solve, while it evaluates f for the first time."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, TypeAlias

import torch

Queries: TypeAlias = list[tuple[Any, str]]  # paths, and what was asked of them: "value" or "slope"

_listening: ContextVar[Queries | None] = ContextVar("listening", default=None)


def note(path: Any, use: str) -> None:
    """Tell who listens that a path was asked; code that is being compiled tells nobody."""
    if torch.compiler.is_compiling():
        return
    queries = _listening.get()
    if queries is not None:
        queries.append((path, use))


@contextmanager
def recording_queries() -> Iterator[Queries]:
    """Hear which paths are asked meanwhile, and for what."""
    queries: Queries = []
    token = _listening.set(queries)
    try:
        yield queries
    finally:
        _listening.reset(token)
