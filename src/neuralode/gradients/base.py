"""The contract of gradients: from a trajectory without a graph to differentiable outputs."""

from __future__ import annotations

from typing import Any, Protocol

from torch import Tensor

from neuralode.autodiff.context import ForwardContext
from neuralode.core.record import Plan
from neuralode.core.status import GradientError
from neuralode.engines.base import SolveConfig, Trajectory


class Gradient(Protocol):
    """How derivatives of a solve by y0, t and the differentiable tensors that f uses are taken.

    A gradient that meets this contract is accepted wherever the name of one is.
    """

    @property
    def name(self) -> str:
        """The name of the gradient, as messages show it."""
        ...

    @property
    def derivatives(self) -> int:
        """How often the outputs can be differentiated through an event."""
        ...

    def check(self, config: SolveConfig, per_sample: bool) -> None:
        """Raise ValueError, in a sentence, for a configuration that this gradient does not support."""
        ...

    def plan(self, plan: Plan) -> Plan:
        """Return the plan with all that `attach` needs of the trajectory.

        Set ``pullback`` to call `Trajectory.pullback`, and ``keep_states`` to call `Trajectory.rerun`.
        """
        ...

    def attach(self, trajectory: Trajectory, context: ForwardContext) -> list[Tensor]:
        """Return ``trajectory.leaves`` with a graph that reaches ``trajectory.problem.inputs``.

        The values must be those of the leaves, but not the same tensors: users may write into them. Whatever evaluates
        f in backward must do so inside of ``context.restored()``, and count its calls in ``trajectory.calls``.
        """
        ...


def check_unchanged(ctx: Any) -> None:  # Any: the context of an autograd function
    """Raise `GradientError` if an input of an autograd function was overwritten since its forward pass."""
    try:
        _ = ctx.saved_tensors
    except RuntimeError as error:
        if "inplace" not in str(error) and "in-place" not in str(error):
            raise
        raise GradientError(
            "f changed between forward and backward: a tensor it uses was overwritten (parameters updated in between?)."
        ) from error
