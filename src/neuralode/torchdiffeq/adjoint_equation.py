"""The adjoint equation, solved backwards by `odeint` itself.

This serves what the solver's own adjoint does not support: solver classes of the user, and options by which the
backward solve differs from the forward solve. The state (∂L/∂t, y, λ, ∂L/∂θ) is solved backwards from output to output;
at every output, y is reset to the forward solution, and λ is increased by the cotangent of the output (Chen, Rubanova,
Bettencourt & Duvenaud, *Neural Ordinary Differential Equations*, 2018, algorithm 1).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from neuralode.torchdiffeq.arguments import Arguments, EventFunction, Function, Tolerance, tightest_tolerance
from neuralode.torchdiffeq.external_solvers import (
    flatten_arguments,
    mixed_norm,
    rms_norm,
    unflatten,
    with_increasing_times,
)
from neuralode.torchdiffeq.odeint import odeint
from neuralode.torchdiffeq.user_function import CALLBACK_NAMES


@dataclass(frozen=True)
class BackwardSolve:
    """Settings of the backward solve.

    Parameters
    ----------
    arguments : Arguments
        The forward call with the method, options and tolerances of the backward solve.
    rtol, atol : float or None
        Tolerances that were given for the backward solve; None if it uses those of the forward solve.
    norm : {"seminorm"} or callable or None
        "seminorm" leaves the parameters out of the error. A callable takes scaled errors of (t, y, λ, parameters).
    """

    arguments: Arguments
    rtol: float | None
    atol: float | None
    norm: str | Callable[..., Any] | None


def solve_adjoint_by_odeint(arguments: Arguments, backward: BackwardSolve, parameters: tuple[Tensor, ...]) -> Any:
    """Return the outputs of `odeint_adjoint`, whose backward pass calls `odeint`."""
    flat = flatten_arguments(arguments)
    rtol = tightest_tolerance("rtol", arguments.rtol) if backward.rtol is None else backward.rtol
    atol = tightest_tolerance("atol", arguments.atol) if backward.atol is None else backward.atol
    norm = _flat_norm(flat.options["norm"], backward.norm, flat.shapes)
    options = {**with_increasing_times(backward.arguments.options, arguments.direction), "norm": norm}
    forward_solve = (
        flat.shapes, flat.func, flat.y0, flat.t, flat.rtol, flat.atol, arguments.method, flat.options, flat.event_fn,
    )  # fmt: skip
    backward_solve = (rtol, atol, backward.arguments.method, options, arguments.t.requires_grad)
    outputs = OdeintAdjointMethod.apply(*forward_solve, *backward_solve, *parameters)
    if flat.event_fn is None:
        return unflatten(outputs, flat.shapes, (len(flat.t),))
    event_t, y = outputs
    return event_t.to(arguments.t) * arguments.direction, unflatten(y, flat.shapes, (2,))


class OdeintAdjointMethod(torch.autograd.Function):
    """Autograd function of y0, t and the parameters, with torchdiffeq's signature: one tensor, increasing times."""

    @staticmethod
    def forward(
        ctx: Any,
        shapes: Sequence[torch.Size] | None,
        func: Function,
        y0: Tensor,
        t: Tensor,
        rtol: Tolerance,
        atol: Tolerance,
        method: str,
        options: dict[str, Any],
        event_fn: EventFunction | None,
        adjoint_rtol: Tolerance,
        adjoint_atol: Tolerance,
        adjoint_method: str,
        adjoint_options: dict[str, Any],
        t_requires_grad: bool,
        *adjoint_params: Tensor,
    ) -> Any:
        """Solve without a graph."""
        ctx.func, ctx.t_requires_grad = func, t_requires_grad
        ctx.backward_arguments = {
            "rtol": adjoint_rtol,
            "atol": adjoint_atol,
            "method": adjoint_method,
            "options": adjoint_options,
        }
        with torch.no_grad():
            outputs = odeint(func, y0, t, rtol=rtol, atol=atol, method=method, options=options, event_fn=event_fn)
        event_t, y = (None, outputs) if event_fn is None else outputs
        ctx.ended_at_event = event_t is not None
        ctx.save_for_backward(t if event_t is None else torch.stack((t[0], event_t.to(t))), y, *adjoint_params)
        return outputs

    @staticmethod
    def backward(ctx: Any, *cotangents: Any) -> Any:
        """Solve the adjoint equation from the last output to the first."""
        t, y, *parameters = ctx.saved_tensors
        with torch.no_grad():
            y0_cotangent, t_cotangent, parameter_cotangents = _solve_backwards(
                ctx, t, y, parameters=parameters, cotangents=cotangents[-1]
            )
        if t_cotangent is not None and ctx.ended_at_event:
            t_cotangent[1:] = 0  # t[1] only gave the direction of time
        no_gradients = (None,) * 10
        return None, None, y0_cotangent, t_cotangent, *no_gradients, *parameter_cotangents


def _solve_backwards(
    ctx: Any, t: Tensor, y: Tensor, *, parameters: list[Tensor], cotangents: Tensor
) -> tuple[Tensor, Tensor | None, list[Tensor]]:
    """Return the cotangents of y0, t and the parameters, given those of the outputs."""
    rates = augmented_dynamics(ctx.func, parameters, with_time=ctx.t_requires_grad)
    t_cotangent = torch.zeros_like(t) if ctx.t_requires_grad else None
    integral, adjoint = y.new_zeros(()), cotangents[-1].clone()  # integral: ∂L/∂t along the solution
    parameter_cotangents = [torch.zeros_like(p) for p in parameters]
    for i in range(len(t) - 1, 0, -1):
        if t_cotangent is not None:
            change = (cotangents[i].conj() * ctx.func(t[i], y[i])).sum().real
            t_cotangent[i] = change
            integral = integral - change
        state = (integral, y[i], adjoint, *parameter_cotangents)
        state = odeint(rates, state, t[i - 1 : i + 1].flip(0), **ctx.backward_arguments)
        integral, _, adjoint, *parameter_cotangents = (part[1] for part in state)
        adjoint = adjoint + cotangents[i - 1]
    if t_cotangent is not None:
        t_cotangent[0] = integral.real
    return adjoint, t_cotangent, parameter_cotangents


def augmented_dynamics(
    func: Function, parameters: list[Tensor], *, with_time: bool
) -> Callable[[Tensor, tuple[Tensor, ...]], tuple[Tensor, ...]]:
    """Return the right-hand side of (∂L/∂t, y, λ, ∂L/∂θ), with the adjoint callbacks of func as its callbacks."""

    def rates(t: Tensor, state: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        _, y, adjoint, *_ = state
        with torch.enable_grad():
            t, y = t.detach().requires_grad_(with_time), y.detach().requires_grad_()
            slope = func(t, y)
        time_rate, *other_rates = negative_vjp(slope, [t, y, *parameters], adjoint)
        return time_rate, slope.detach(), *other_rates

    for name in CALLBACK_NAMES:
        if hasattr(func, name + "_adjoint"):
            setattr(rates, name, getattr(func, name + "_adjoint"))
    return rates


def negative_vjp(slope: Tensor, inputs: list[Tensor], adjoint: Tensor) -> list[Tensor]:
    """Return −λᵀ ∂slope/∂x for each input x; zero if x requires no gradient or the slope does not depend on it."""
    needed = [x for x in inputs if x.requires_grad] if slope.requires_grad else []
    gradients: dict[int, Tensor | None] = {}
    if needed:
        # Keep the graph: parameters may be computed before the solve, and every evaluation uses that part of the graph.
        products = torch.autograd.grad(slope, needed, -adjoint, allow_unused=True, retain_graph=True)
        gradients = {id(x): product for x, product in zip(needed, products, strict=True)}
    return [torch.zeros_like(x) if (g := gradients.get(id(x))) is None else g for x in inputs]


def largest_norm(state_norm: Callable[..., Any] | None, errors: tuple[Any, ...], *, with_parameters: bool) -> Tensor:
    """Return torchdiffeq's default: the largest of the norms of t, y, λ and, unless left out, each parameter."""
    t, y, adjoint, *parameters = errors
    state_norm = state_norm or (rms_norm if isinstance(y, Tensor) else mixed_norm)
    norms = [t.abs(), state_norm(y), state_norm(adjoint), mixed_norm(parameters) if with_parameters else 0.0]
    return torch.stack([torch.as_tensor(norm, dtype=torch.float64, device=t.device).abs() for norm in norms]).max()


def _flat_norm(
    state_norm: Callable[..., Any],
    adjoint_norm: str | Callable[..., Any] | None,
    shapes: Sequence[torch.Size] | None,
) -> Callable[..., Any]:
    """Return the norm of (t, y, λ, parameters), in which y and λ are flat."""
    if not callable(adjoint_norm):
        return lambda errors: largest_norm(state_norm, errors, with_parameters=adjoint_norm is None)
    if shapes is None:
        return adjoint_norm

    def norm(errors: tuple[Tensor, ...]) -> Any:
        t, y, adjoint, *parameters = errors
        return adjoint_norm((t, *unflatten(y, shapes), *unflatten(adjoint, shapes), *parameters))

    return norm
