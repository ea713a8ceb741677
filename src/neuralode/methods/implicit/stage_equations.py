"""The equations of stages that are solved together, and the field that counts its evaluations."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

import torch
from torch import Tensor

from neuralode.core.clock import Flag, Number, scaled
from neuralode.methods.base import JacobianField, Rows
from neuralode.methods.linear_combinations import combine

Matrix: TypeAlias = tuple[tuple[float, ...], ...]  # the part of a Butcher matrix that belongs to one block
Stages: TypeAlias = Sequence[Rows]


@dataclass(frozen=True)
class StageEquations:
    """The equations Z = h (A ⊗ I) f(base + Z) of stages that depend on each other.

    Parameters
    ----------
    matrix : Matrix
        A, the columns of the Butcher matrix that belong to these stages.
    times : sequence of Tensor
        The time of each stage, as f receives it.
    base : sequence of Tensor[rows, features]
        The known part of the state of each stage.
    h : float or Tensor[rows]
        The step size.
    """

    matrix: Matrix
    times: Sequence[Tensor]
    base: Stages
    h: Number

    def states(self, z: Stages) -> list[Rows]:
        """Return the states at which f is evaluated."""
        return [b + x for b, x in zip(self.base, z, strict=True)]

    def residual(self, slopes: Stages, z: Stages) -> list[Rows]:
        """Return Z − h (A ⊗ I) K for the slopes K."""
        residual = []
        for row, x in zip(self.matrix, z, strict=True):
            pivot, total = combine(row, slopes)
            residual.append(scaled(x, -self.h * pivot, total))
        return residual


class CountedField:
    """A field that counts its evaluations.

    Attributes
    ----------
    evaluations : int or Tensor[rows] of int64
        Evaluations by clock.
    calls : int
        Calls, each for all rows at once.
    """

    def __init__(self, f: JacobianField, h: Number) -> None:
        self.f = f
        self.coupled: bool = f.coupled
        self.evaluations: Number = torch.zeros_like(h, dtype=torch.int64) if isinstance(h, Tensor) else 0
        self.calls = 0

    def evaluate(self, t: Tensor, y: Rows, active: Flag) -> Rows:
        """Return f(t, y), counted for the active clocks."""
        self.count(active)
        return self.f(t, y)

    def jacobian(self, t: Tensor, y: Rows, active: Flag) -> Tensor:
        """Return ∂f/∂y, which counts as one evaluation."""
        self.count(active)
        return self.f.jacobian(t, y)

    def count(self, active: Flag) -> None:
        """Count an evaluation."""
        self.evaluations = self.evaluations + active
        self.calls += 1
