"""Direct: backpropagation through the accepted steps, with all of them in memory at once."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from neuralode.autodiff.context import ForwardContext
from neuralode.core.record import Plan
from neuralode.engines.base import SolveConfig, Trajectory


@dataclass(frozen=True)
class Direct:
    """Backpropagate through the accepted steps.

    The solve runs without a graph; then the accepted steps are computed again with one. Rejected attempts cost no
    memory, and no gradient flows through the choice of steps. Every activation of every step is kept.

    Examples
    --------
    >>> import torch, neuralode as node
    >>> y0 = torch.ones(1, dtype=torch.float64, requires_grad=True)
    >>> node.solve(lambda t, y: -y, y0, (0.0, 1.0), gradient="direct").y1.sum().backward()
    >>> round(y0.grad.item(), 4)
    0.3679
    """

    name = "direct"
    derivatives = 2

    def check(self, config: SolveConfig, per_sample: bool) -> None:
        """Support every method and controller."""

    def plan(self, plan: Plan) -> Plan:
        """Keep the steps."""
        return replace(plan, keep_states=True)

    def attach(self, trajectory: Trajectory, context: ForwardContext) -> list[Tensor]:
        """Return the leaves with the graph of the accepted steps, computed again."""
        with torch.enable_grad():
            return trajectory.rerun()
