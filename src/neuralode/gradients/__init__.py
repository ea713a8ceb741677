"""Readings of the record that give gradients: by name."""

from __future__ import annotations

from typing import Any

from neuralode.core.registry import pick
from neuralode.gradients.adjoint import Adjoint
from neuralode.gradients.direct import Direct
from neuralode.gradients.replay import Replay

GRADIENTS = {"replay": Replay(), "adjoint": Adjoint(), "direct": Direct()}


def find_gradient(gradient: Any) -> Any:
    """The gradient that a name stands for."""
    return pick("gradient", gradient, GRADIENTS, (Replay, Adjoint, Direct))


def check_gradient(gradient: Any, engine: Any, method: Any) -> None:
    """Refuse a gradient that the engine cannot give."""
    if gradient.name not in engine.gradients:
        can = " or ".join(f"gradient={name!r}" for name in sorted(engine.gradients))
        raise ValueError(f"method {method.name!r} has no gradient {gradient.name!r}; wanted {can}, or torch.no_grad().")
