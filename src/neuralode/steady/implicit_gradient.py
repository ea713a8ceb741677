"""Derivatives of a steady state by the implicit function theorem, without the trajectory that led to it.

At f(y*, θ) = 0 the theorem gives dy* = −J⁻¹ ∂f/∂θ dθ with J = ∂f/∂y. One linear solve with Jᵀ turns a cotangent of y*
into a cotangent of f; one evaluation of f carries it on to every tensor that f uses.
"""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Bool
from torch import Tensor

from neuralode.core.problem import Problem
from neuralode.core.status import GradientError
from neuralode.steady.linear_systems import LinearSystem, jacobian_system, time_zero


def attach_implicit_gradient(
    problem: Problem, y: Tensor, steady: Bool[Tensor, " rows"], *, derivatives: int, dense_limit: int
) -> Tensor:
    """Return the steady state with a graph that reaches every tensor that f uses.

    Each of the ``derivatives`` rounds y − J⁻¹ f(y), with J constant, makes one further order of derivatives correct.

    Parameters
    ----------
    problem : Problem
        Its field is f.
    y : Tensor[rows, features]
        The steady state, packed and without a graph.
    steady : Tensor[rows]
        The rows that receive gradients.
    derivatives : {1, 2}
        Number of correct orders.
    dense_limit : int
        Size up to which Jacobians are formed.
    """
    t, attached, system = time_zero(problem), y, None
    for _ in range(derivatives):
        slope = problem.field(t, attached)
        if not slope.requires_grad:
            return y
        system = jacobian_system(problem, y, dense_limit) if system is None else system
        attached = attached + _NewtonStep.apply(torch.where(steady[:, None], slope, 0), system, derivatives)
    return attached


class _NewtonStep(torch.autograd.Function):
    """−J⁻¹ f: zero, since f is zero, but with derivatives."""

    @staticmethod
    def forward(ctx: Any, slope: Tensor, system: LinearSystem, derivatives: int) -> Tensor:
        ctx.system, ctx.derivatives = system, derivatives
        return torch.zeros_like(slope)

    @staticmethod
    def backward(ctx: Any, *cotangents: Tensor) -> tuple[Tensor, None, None]:
        if torch.is_grad_enabled() and ctx.derivatives < 2:
            raise GradientError("steady_state(derivatives=1) has no second derivatives; wanted derivatives=2.")
        return -_TransposedSolve.apply(cotangents[0], ctx.system), None, None


class _TransposedSolve(torch.autograd.Function):
    """J⁻ᵀ g."""

    @staticmethod
    def forward(ctx: Any, g: Tensor, system: LinearSystem) -> Tensor:
        ctx.system = system
        return system.solve_transposed(g)

    @staticmethod
    def backward(ctx: Any, *cotangents: Tensor) -> tuple[Tensor, None]:
        return ctx.system.solve(cotangents[0]), None
