"""Replay: the exact derivative of the computed steps, by the pullback of the trajectory. The default."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from torch import Tensor

from neuralode.autodiff.context import ForwardContext
from neuralode.core.record import Plan
from neuralode.engines.base import SolveConfig, Trajectory
from neuralode.gradients.base import check_unchanged


@dataclass(frozen=True)
class Replay:
    """Differentiate the accepted steps exactly, one at a time.

    Parameters
    ----------
    every : int, default=1
        Keep only the state before every ``every``-th step: less memory, at the cost of one more forward pass.
    memory : {"step", "stage"}, default="step"
        Keep the activations of one step during its vector–Jacobian product, or only those of one evaluation of f, at
        the cost of one more evaluation per stage.

    Raises
    ------
    ValueError
        For another ``memory``, or an ``every`` that is not a positive integer.

    Examples
    --------
    >>> import torch, neuralode as node
    >>> rate = torch.tensor(0.5, dtype=torch.float64, requires_grad=True)
    >>> sol = node.solve(lambda t, y: -rate * y, torch.ones(1), (0.0, 2.0), gradient=node.Replay(every=4))
    >>> sol.y1.sum().backward()
    >>> round(rate.grad.item(), 3)  # d/dr exp(-2 r) = -2 exp(-1)
    -0.736
    """

    every: int = 1
    memory: Literal["step", "stage"] = "step"

    name = "replay"
    derivatives = 1

    def __post_init__(self) -> None:
        if isinstance(self.every, bool) or not isinstance(self.every, int) or self.every < 1:
            raise ValueError(f"Replay(every={self.every!r}); wanted a whole number of at least 1.")
        if self.memory not in ("step", "stage"):
            raise ValueError(f"Replay(memory={self.memory!r}); wanted 'step' or 'stage'.")

    def check(self, config: SolveConfig, per_sample: bool) -> None:
        """Support every method and controller."""

    def plan(self, plan: Plan) -> Plan:
        """Keep the states before the steps."""
        return replace(plan, pullback=True, keep_every=self.every, memory=self.memory)

    def attach(self, trajectory: Trajectory, context: ForwardContext) -> list[Tensor]:
        """Return the leaves of the trajectory, with its pullback as their derivative."""
        return list(_Replayed.apply(trajectory, context, *trajectory.problem.inputs))


class _Replayed(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, trajectory: Trajectory, context: ForwardContext, *inputs: Tensor) -> tuple[Tensor, ...]:
        ctx.trajectory, ctx.context = trajectory, context
        ctx.save_for_backward(*inputs)
        ctx.set_materialize_grads(False)
        return tuple(leaf.clone() for leaf in trajectory.leaves)

    @staticmethod
    def backward(ctx: Any, *cotangents: Tensor | None) -> tuple[Tensor | None, ...]:
        check_unchanged(ctx)
        trajectory: Trajectory = ctx.trajectory
        pull = trajectory.pullback_with_graph if torch.is_grad_enabled() else trajectory.pullback
        with ctx.context.restored():
            return None, None, *pull(cotangents)
