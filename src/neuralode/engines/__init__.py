"""Who repeats the step: the engines by name."""

from __future__ import annotations

from typing import Any

from neuralode.core.registry import pick
from neuralode.engines.eager import Eager
from neuralode.engines.one_call import Whole

ENGINES = {"eager": Eager()}
WHOLE = Whole()


def find_engine(engine: Any, method: Any) -> Any:
    """The engine that a name stands for, or the one that a method needs."""
    found = pick("engine", engine, ENGINES, Eager)
    return WHOLE if method.whole else found
