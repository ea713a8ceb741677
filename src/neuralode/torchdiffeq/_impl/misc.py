"""The names of torchdiffeq's ``_impl.misc``: norms, and the arguments of solver classes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from neuralode.torchdiffeq.arguments import EventFunction, Function, State, Tolerance, check_arguments
from neuralode.torchdiffeq.external_solvers import Perturb, flatten_arguments, mixed_norm, rms_norm, unflatten

__all__ = ["Perturb", "_check_inputs", "_flat_to_shape", "_linf_norm", "_mixed_norm", "_rms_norm", "_zero_norm"]

_rms_norm, _mixed_norm = rms_norm, mixed_norm


def _linf_norm(tensor: Tensor) -> Tensor:
    """Return the largest absolute value."""
    return tensor.abs().max()


def _zero_norm(tensor: Any) -> float:
    """Return zero."""
    return 0.0


def _flat_to_shape(tensor: Tensor, length: Sequence[int], shapes: Sequence[torch.Size]) -> tuple[Tensor, ...]:
    """Return the parts of a tuple state that is flattened in the last axis, with the leading axes ``length``."""
    return unflatten(tensor, shapes, tuple(length))


def _check_inputs(
    func: Function,
    y0: State,
    t: Tensor,
    rtol: Tolerance | None,
    atol: Tolerance | None,
    method: str | None,
    options: Mapping[str, Any] | None,
    event_fn: EventFunction | None,
    SOLVERS: Mapping[str, Any],
) -> tuple[Any, ...]:
    """Return the arguments of a solver class: increasing times, a state of one tensor, a function with callbacks."""
    arguments = check_arguments(
        func, y0, t, rtol=rtol, atol=atol, method=method, options=options, event_fn=event_fn, solvers=SOLVERS
    )
    flat = flatten_arguments(arguments)
    solve = flat.shapes, flat.func, flat.y0, flat.t, flat.rtol, flat.atol
    return *solve, arguments.method, flat.options, flat.event_fn, arguments.direction < 0
