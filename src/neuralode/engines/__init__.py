"""Who repeats the step: the engines by name."""

from __future__ import annotations

from typing import Any

from neuralode.core.registry import pick
from neuralode.engines.eager import Eager
from neuralode.engines.one_call import OneCall

ENGINES = {"eager": Eager()}
ONE_CALL = OneCall()


def find_engine(engine: Any, method: Any) -> Any:
    """The engine that a name stands for, or the one that a method needs."""
    found = pick("engine", engine, ENGINES, Eager)
    return ONE_CALL if method.one_call else found
