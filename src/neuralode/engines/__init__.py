"""Who repeats the step: the engines by name."""

from __future__ import annotations

from typing import Any

from neuralode.engines.eager import Eager
from neuralode.registry import pick

ENGINES = {"eager": Eager()}


def find_engine(engine: Any) -> Any:
    """The engine that a name stands for."""
    return pick("engine", engine, ENGINES, Eager)
