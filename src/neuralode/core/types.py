"""Types of the objects that users pass to a solve."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

from torch import Tensor
from torch.utils._pytree import PyTree

__all__ = ["Axes", "PyTree", "Tolerance", "UserFunction"]

# A function of (t, y, *args): f, `save`, or the function of an event or a dose.
UserFunction: TypeAlias = Callable[..., PyTree]

# One tolerance for the whole state, a tensor that broadcasts against each leaf, or a pytree of these like the state.
Tolerance: TypeAlias = float | Tensor | PyTree

# One axis for all tensors of a pytree, None for no axis, or a pytree of these, as `in_dims` of `torch.vmap`.
Axes: TypeAlias = int | PyTree | None
