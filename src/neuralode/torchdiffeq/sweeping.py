"""The core's adjoint, set up as torchdiffeq's: its norms, its callbacks, its errors."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from neuralode.core.layout import Layout, lay_out
from neuralode.core.status import BackwardSolveError
from neuralode.gradients import Adjoint
from neuralode.gradients.adjoint import _Adjoint as AdjointFunction
from neuralode.torchdiffeq.callbacks import observe
from neuralode.torchdiffeq.foreign import flatten, mixed, rms
from neuralode.torchdiffeq.inputs import Task
from neuralode.torchdiffeq.options import ONE_STEP, Options, read_options

TINY = 1e-300  # the core wants tolerances above 0


@dataclass(frozen=True)
class Way:
    """The way back: a task with its method and options; tolerances, where they are not those of the forward solve."""

    task: Task
    rtol: float | None
    atol: float | None
    norm: Any


def sweeping(task: Task, way: Way, params: tuple[Tensor, ...], layout: Layout) -> Adjoint:
    """The gradient of a task by the core's adjoint."""
    options = read_options(way.task, "_adjoint")
    return Sweeping(
        rtol=None if way.rtol is None else max(way.rtol, TINY),
        atol=None if way.atol is None else max(way.atol, TINY),
        method=getattr(options.method, "method", options.method),  # nothing is read inside of backward steps
        norm=_norm(task, way.norm),
        controller=ONE_STEP if options.by_outputs else options.controller,
        observer=_observer(task, way, options, params, layout),
    )


class Sweeping(Adjoint):
    """`Adjoint` whose failures are raised as torchdiffeq raises them."""

    def attach(self, solved: Any) -> list[Tensor]:
        """The outputs, differentiable."""
        how = self.backwards(solved.method, solved.controller, solved.tolerances)
        return list(_Swept.apply(solved, how, *solved.inputs))


class _Swept(AdjointFunction):
    @staticmethod
    def backward(ctx: Any, *cotangents: Tensor) -> Any:
        try:
            return AdjointFunction.backward(ctx, *cotangents)
        except BackwardSolveError as error:
            raise AssertionError(f"underflow in dt, or non-finite values in state `y`: {error}") from error


def _norm(task: Task, choice: Any) -> Any:
    """The norm of the backward solve, as the core wants it."""
    state_norm = task.options.get("norm")
    if not callable(choice) and state_norm is None and isinstance(task.y0, Tensor):
        return "full" if choice is None else "seminorm"

    def norm(errors: Any) -> Tensor:
        y, adjoint, params = errors
        t = flatten(y).new_zeros(())
        if not callable(choice):
            return largest(state_norm, (t, y, adjoint, *params), choice is None)
        parts = (y, adjoint) if isinstance(y, Tensor) else (*y, *adjoint)
        return torch.as_tensor(choice((t, *parts, *params))).abs()

    return norm


def largest(state_norm: Callable[..., Any] | None, errors: tuple, count_params: bool) -> Tensor:
    """What torchdiffeq chooses: the largest of the norms of t, y, λ and each parameter."""
    t, y, adjoint, *params = errors
    state_norm = state_norm or (rms if isinstance(y, Tensor) else mixed)
    sizes = [t.abs(), state_norm(y), state_norm(adjoint), mixed(params) if count_params else 0.0]
    return torch.stack([torch.as_tensor(size, dtype=torch.float64, device=t.device).abs() for size in sizes]).max()


def _observer(task: Task, way: Way, options: Options, params: tuple[Tensor, ...], layout: Layout) -> Any:
    """Who observes the backward solve."""
    back = replace(way.task, t=task.t.detach().flip(0))
    packed = torch.zeros(layout.rows, layout.features, dtype=layout.dtype, device=layout.device)
    whole, bare = lay_out((packed, packed, *params), False), lay_out((packed, packed), False)

    def state(z: Tensor) -> tuple[Tensor, ...]:
        # of an implicit method the parameters' share is added up apart
        y, adjoint, *totals = (whole if z.numel() == whole.rows * whole.features else bare).unpack(z)
        return z.new_zeros(()), *(flatten(layout.unpack(x)) for x in (y, adjoint)), *totals

    return observe(back, options.callbacks, options.limit, state)
