"""A bar in t, for solves that take long."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import import_module
from typing import Any

from neuralode.core.extras import require


@contextmanager
def bar(show: bool) -> Iterator[Callable[[float], None] | None]:
    """Yield what to tell the fraction done, or None if nobody watches; the bar is gone however the solve ends."""
    if not show:
        yield None
        return
    require("progress", "rich")
    rich: Any = import_module("rich.progress")
    with rich.Progress(transient=True) as progress:
        task = progress.add_task("solve", total=1.0)
        yield lambda fraction: progress.update(task, completed=fraction)
