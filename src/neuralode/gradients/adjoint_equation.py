"""The adjoint equation as a function of packed rows."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from neuralode.autodiff.substitution import Substitution
from neuralode.core.problem import Problem
from neuralode.core.types import PyTree


@dataclass(frozen=True)
class AdjointEquation:
    """The right-hand side of (y, λ), and of the cotangents of parameters if they are part of the state."""

    problem: Problem
    parameters: Substitution

    def __call__(self, t: Tensor, state: tuple[Tensor, ...], *args: PyTree) -> tuple[Tensor, ...]:
        """Return (f, −λᵀ ∂f/∂y, −λᵀ ∂f/∂θ …)."""
        y, adjoint, *totals = state
        linearised = torch.is_grad_enabled()  # an implicit method differentiates this
        with torch.enable_grad():
            y = y.view_as(y) if linearised and y.requires_grad else y.detach().requires_grad_()
            slope = replace(self.parameters.field, args=args)(t, y)
        inputs = [y, *(self.parameters.inputs if totals else ())]
        if not slope.requires_grad:
            return slope, torch.zeros_like(y), *map(torch.zeros_like, totals)
        if self.problem.strict and not linearised:
            self.parameters.check([slope], y)
        # Keep the graph: given parameters may be computed before the solve, and every evaluation uses that part.
        keep = linearised or not self.problem.strict
        grads = torch.autograd.grad(
            slope, inputs, -adjoint, allow_unused=True, create_graph=linearised, retain_graph=keep
        )
        return slope if linearised else slope.detach(), *(
            torch.zeros_like(x) if g is None else g for x, g in zip(inputs, grads, strict=True)
        )
