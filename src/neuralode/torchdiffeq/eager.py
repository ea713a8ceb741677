"""Solves inside of a function that `torch.compile` compiles: they run as they are, between two compiled parts."""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import wraps
from typing import Any, ParamSpec, TypeVar, cast

import torch

P = ParamSpec("P")
R = TypeVar("R")

COMPILER = "torch._dynamo"  # takes seconds to load: whoever compiles has loaded it

_apart: dict[str, Callable[..., Any]] = {}


def eager(function: Callable[P, R]) -> Callable[P, R]:
    """The function, not to be looked into by a compiler: how often it loops depends on numbers.

    Examples
    --------
    >>> @eager
    ... def double(x: float) -> float:
    ...     return 2 * x
    >>> double(2.0)
    4.0
    """
    name = f"{function.__module__}.{function.__qualname__}"

    @wraps(function)
    def call(*args: P.args, **kwargs: P.kwargs) -> R:
        if COMPILER not in sys.modules:
            return function(*args, **kwargs)
        if name not in _apart:
            _apart[name] = cast(Any, torch.compiler.disable)(function)
        return _apart[name](*args, **kwargs)

    return call
