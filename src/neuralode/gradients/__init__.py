"""Readings of the record that give gradients: by name."""

from __future__ import annotations

from typing import Any

from neuralode.gradients.adjoint import Adjoint
from neuralode.gradients.direct import Direct
from neuralode.gradients.replay import Replay
from neuralode.registry import pick

GRADIENTS = {"replay": Replay(), "adjoint": Adjoint(), "direct": Direct()}


def find_gradient(gradient: Any, engine: Any) -> Any:
    """The gradient that a name stands for, if the engine can do it."""
    found = pick("gradient", gradient, GRADIENTS, (Replay, Adjoint, Direct))
    if found.name not in engine.gradients:
        can = ", ".join(repr(name) for name in sorted(engine.gradients))
        raise ValueError(f"engine {engine.name!r} has no gradient {found.name!r}; it has {can}.")
    return found
