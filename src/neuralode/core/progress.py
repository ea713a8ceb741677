"""A progress bar for long solves."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import import_module

from neuralode.core.extras import require


@contextmanager
def bar() -> Iterator[Callable[[float], None]]:
    """Show a bar that disappears at the end; yield the function that receives the completed fraction."""
    require("progress", "rich")
    rich = import_module("rich.progress")
    with rich.Progress(transient=True) as progress:
        task = progress.add_task("solve", total=1.0)
        yield lambda fraction: progress.update(task, completed=fraction)
