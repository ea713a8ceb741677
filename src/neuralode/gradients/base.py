"""What a gradient reads: a solve that has been marched, and its steps taken again with a graph."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import Tensor

from neuralode.controllers import NOWHERE
from neuralode.core.problem import Problem
from neuralode.core.record import Plan, Record


@dataclass(frozen=True)
class Solved:
    """A marched solve with all that is needed to differentiate it."""

    problem: Problem
    plan: Plan
    method: Any
    controller: Any
    engine: Any
    tolerances: tuple[Any, Any]
    max_steps: int
    record: Record
    leaves: tuple[Tensor, ...]  # what was put out: the outputs, and the dense output's coefficients last
    captured: tuple[Tensor, ...]  # every differentiable tensor that f and save use, args among them
    forward_context: Any  # an Ambient
    backward: list[int]  # evaluations of f made by gradients so far
    stops: Any = NOWHERE
    strict: bool = True  # whether a differentiable tensor that is not among the captured ones is an error

    @property
    def inputs(self) -> tuple[Tensor, ...]:
        """What gradients flow to."""
        # as views, made by a torch function: a solve around this one can see them pass
        return (self.problem.y0, self.problem.t, *(x.view_as(x) for x in self.captured))
