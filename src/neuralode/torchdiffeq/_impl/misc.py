"""torchdiffeq's place for norms, and for what its own solver classes are given."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from neuralode.torchdiffeq.foreign import Perturb, flat, mixed, rms, unflatten
from neuralode.torchdiffeq.inputs import check

__all__ = ["Perturb", "_check_inputs", "_flat_to_shape", "_linf_norm", "_mixed_norm", "_rms_norm", "_zero_norm"]

_rms_norm, _mixed_norm = rms, mixed


def _linf_norm(tensor: Tensor) -> Tensor:
    """The largest modulus."""
    return tensor.abs().max()


def _zero_norm(tensor: Any) -> float:
    """Nothing counts."""
    return 0.0


def _flat_to_shape(tensor: Tensor, length: Sequence[int], shapes: Sequence[torch.Size]) -> tuple[Tensor, ...]:
    """The parts of a tuple state that lies in the last axis, each behind leading axes ``length``."""
    return unflatten(tensor, shapes, tuple(length))


def _check_inputs(
    func: Any, y0: Any, t: Any, rtol: Any, atol: Any, method: Any, options: Any, event_fn: Any, SOLVERS: Mapping
) -> tuple:
    """What a solver class is given: a state of one tensor, times that increase, a function with callbacks."""
    task = check(func, y0, t, rtol, atol, method, options, event_fn, SOLVERS)
    it = flat(task)
    reverse = task.direction < 0
    return it.shapes, it.func, it.y0, it.t, it.rtol, it.atol, task.method, it.options, it.event_fn, reverse
