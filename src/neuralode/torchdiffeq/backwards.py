"""The adjoint equation, solved by `odeint` itself from output to output: for what the core's own adjoint does not take.

That are solvers which someone put into the registry, and options by which the way back differs from the way there.
Chen, Rubanova, Bettencourt & Duvenaud, *Neural Ordinary Differential Equations*, 2018, algorithm 1: the state
(∂L/∂t, y, λ, ∂L/∂θ) is solved backwards; at every output y is set to what was put out, and λ grows by its cotangent.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from neuralode.torchdiffeq.callbacks import NAMES
from neuralode.torchdiffeq.forward import odeint


class OdeintAdjointMethod(torch.autograd.Function):
    """The function of y0, t and parameters, as torchdiffeq has it: of one tensor and of increasing times."""

    @staticmethod
    def forward(
        ctx: Any,
        shapes: Any,
        func: Any,
        y0: Tensor,
        t: Tensor,
        rtol: Any,
        atol: Any,
        method: str,
        options: dict[str, Any],
        event_fn: Any,
        adjoint_rtol: Any,
        adjoint_atol: Any,
        adjoint_method: str,
        adjoint_options: dict[str, Any],
        t_requires_grad: bool,
        *adjoint_params: Tensor,
    ) -> Any:
        """Solve, without a graph."""
        ctx.func, ctx.t_requires_grad = func, t_requires_grad
        ctx.back = {
            "rtol": adjoint_rtol,
            "atol": adjoint_atol,
            "method": adjoint_method,
            "options": adjoint_options,
        }
        with torch.no_grad():
            found = odeint(func, y0, t, rtol=rtol, atol=atol, method=method, options=options, event_fn=event_fn)
        event_t, y = (None, found) if event_fn is None else found
        ctx.ended = event_t is not None
        ctx.save_for_backward(t if event_t is None else torch.stack((t[0], event_t.to(t))), y, *adjoint_params)
        return found

    @staticmethod
    def backward(ctx: Any, *cotangents: Any) -> Any:
        """Solve back."""
        t, y, *params = ctx.saved_tensors
        with torch.no_grad():
            y_total, t_total, totals = _sweep(ctx, t, y, params, cotangents[-1])
        if t_total is not None and ctx.ended:
            t_total[1:] = 0  # the second time only said which way to go
        nothing = (None,) * 10
        return None, None, y_total, t_total, *nothing, *totals


def _sweep(ctx: Any, t: Tensor, y: Tensor, params: list[Tensor], given: Tensor) -> tuple[Tensor, Any, list[Tensor]]:
    """Cotangents of y0, t and the parameters, from those of the outputs."""
    rates = _augmented(ctx.func, params, ctx.t_requires_grad)
    t_total = torch.zeros_like(t) if ctx.t_requires_grad else None
    moved, adjoint, totals = y.new_zeros(()), given[-1].clone(), [torch.zeros_like(p) for p in params]
    for i in range(len(t) - 1, 0, -1):
        if t_total is not None:
            moves = (given[i].conj() * ctx.func(t[i], y[i])).sum().real
            t_total[i] = moves
            moved = moved - moves
        state = odeint(rates, (moved, y[i], adjoint, *totals), t[i - 1 : i + 1].flip(0), **ctx.back)
        moved, _, adjoint, *totals = (part[1] for part in state)
        adjoint = adjoint + given[i - 1]
    if t_total is not None:
        t_total[0] = moved.real
    return adjoint, t_total, totals


def _augmented(func: Any, params: list[Tensor], by_time: bool) -> Callable[..., Any]:
    """Right-hand side for (∂L/∂t, y, λ, ∂L/∂θ), told of its steps as func wants it."""

    def rates(t: Tensor, state: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        _, y, adjoint, *_ = state
        with torch.enable_grad():
            t, y = t.detach().requires_grad_(by_time), y.detach().requires_grad_()
            slope = func(t, y)
            wanted = [*([t] if by_time else []), y, *params]
            if slope.requires_grad:
                # parameters may lie behind a graph made before the solve, which is met at every evaluation
                grads = torch.autograd.grad(slope, wanted, -adjoint, allow_unused=True, retain_graph=True)
            else:
                grads = (None,) * len(wanted)
        found = [torch.zeros_like(x) if g is None else g for x, g in zip(wanted, grads, strict=True)]
        time, rest = (found[0], found[1:]) if by_time else (torch.zeros_like(t), found)
        return time, slope.detach(), *rest

    for name in NAMES:
        if hasattr(func, name + "_adjoint"):
            setattr(rates, name, getattr(func, name + "_adjoint"))
    return rates
