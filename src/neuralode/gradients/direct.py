"""Direct: ordinary backpropagation through the accepted steps, all of them in memory at once."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from neuralode.core.record import Plan
from neuralode.gradients.base import Solved
from neuralode.gradients.retake import rerun


@dataclass(frozen=True)
class Direct:
    """Let autograd differentiate the accepted steps.

    The steps are found without a graph and then taken once more with one, so rejected attempts cost no memory and no
    gradient flows through the choice of steps. Keeps every activation of every step.

    Examples
    --------
    >>> import torch, neuralode as node
    >>> y0 = torch.ones(1, dtype=torch.float64, requires_grad=True)
    >>> node.solve(lambda t, y: -y, y0, (0.0, 1.0), gradient="direct").y1.sum().backward()
    >>> round(y0.grad.item(), 4)
    0.3679
    """

    name = "direct"
    derivatives = 2  # that are right through an event

    def plan(self, plan: Plan) -> Plan:
        """Keep the steps; their states are computed again."""
        return replace(plan, replay=True)

    def check(self, method: Any, controller: Any, per_sample: bool) -> None:
        """Any method, any controller."""

    def attach(self, solved: Solved) -> list[Tensor]:
        """The leaves of the solve, differentiable."""
        with torch.enable_grad():
            return rerun(solved)
