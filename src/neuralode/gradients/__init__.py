"""Gradients of a solve, by name."""

from __future__ import annotations

from collections.abc import Mapping

from neuralode.core.registry import pick
from neuralode.gradients.adjoint import Adjoint
from neuralode.gradients.base import Gradient
from neuralode.gradients.direct import Direct
from neuralode.gradients.replay import Replay

__all__ = ["GRADIENTS", "Adjoint", "Direct", "Gradient", "Replay", "find_gradient"]

GRADIENTS: Mapping[str, Gradient] = {"replay": Replay(), "adjoint": Adjoint(), "direct": Direct()}


def find_gradient(gradient: str | Gradient) -> Gradient:
    """Return the gradient of a name, or the gradient itself."""
    return pick("gradient", gradient, table=GRADIENTS, kind=Gradient)
