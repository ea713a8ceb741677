"""What a gradient reads: a solve that has been marched, and its steps taken again with a graph."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from torch import Tensor
from torch.autograd.graph import Node

from neuralode.controllers import NOWHERE
from neuralode.core.problem import Problem
from neuralode.core.record import Plan, Record
from neuralode.core.status import GradientError


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


def check_leaves(outputs: Iterable[Tensor], known: set[int], edges: set[Node], originals: set[Node]) -> None:
    """Refuse a graph that reaches a differentiable leaf which was not found when f was watched.

    Or that reaches how a tensor was computed for which f should have met a stand-in: what is behind it would be counted
    twice.
    """
    todo = [x.grad_fn for x in outputs if x.grad_fn is not None]
    seen = set(todo)
    while todo:
        node = todo.pop()
        if node in originals and node not in edges:
            raise GradientError(
                "f gives a tensor that was computed before the solve to what is no function of torch, such as the "
                "apply of a torch.autograd.Function, where it cannot be followed. Pass it in args=(...)."
            )
        leaf = getattr(node, "variable", None)
        if leaf is not None and id(leaf) not in known:
            raise GradientError(
                f"f uses a differentiable tensor of shape {list(leaf.shape)} that it did not use at the first "
                "evaluation, so its gradient would be lost. Pass it in args=(...), or make f a torch.nn.Module that "
                "holds it."
            )
        for following, _ in node.next_functions:
            if following is not None and following not in seen and following not in edges:
                seen.add(following)
                todo.append(following)
