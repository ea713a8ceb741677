"""Who wants to hear which paths are asked: a solve, while it evaluates f for the first time."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, TypeAlias

import torch

Heard: TypeAlias = list[tuple[Any, str]]  # paths, and what was asked of them: "value" or "slope"

_listening: ContextVar[Heard | None] = ContextVar("listening", default=None)


def note(path: Any, use: str) -> None:
    """Tell who listens that a path was asked; code that is being compiled tells nobody."""
    if torch.compiler.is_compiling():
        return
    heard = _listening.get()
    if heard is not None:
        heard.append((path, use))


@contextmanager
def listening() -> Iterator[Heard]:
    """Hear which paths are asked meanwhile, and for what."""
    heard: Heard = []
    token = _listening.set(heard)
    try:
        yield heard
    finally:
        _listening.reset(token)
