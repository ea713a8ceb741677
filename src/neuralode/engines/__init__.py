"""Engines, by name: what repeats the step from the start to the end of a solve."""

from __future__ import annotations

from collections.abc import Mapping

from neuralode.core.registry import pick
from neuralode.engines.base import Engine
from neuralode.engines.eager import Eager
from neuralode.engines.one_call import OneCall
from neuralode.methods.base import Method

__all__ = ["ENGINES", "ONE_CALL", "Engine", "find_engine"]

ENGINES: Mapping[str, Engine] = {"eager": Eager()}
ONE_CALL = OneCall()


def find_engine(engine: str | Engine, method: Method) -> Engine:
    """Return the engine of a name, or the engine itself; methods that cross the span in one call have their own."""
    found, eager = pick("engine", engine, table=ENGINES, kind=Engine), ENGINES["eager"]
    if found is eager or found is ONE_CALL:
        return ONE_CALL if method.one_call else eager
    return found
