"""Types of the objects that users pass to a solve."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, TypeAlias

from torch import Tensor
from torch.utils._pytree import PyTree

__all__ = ["Axes", "PyTree", "Save", "Tolerance", "UserFunction"]

# A function of (t, y, *args): f, `save`, or the function of an event or a dose.
UserFunction: TypeAlias = Callable[..., PyTree]

# The argument `save` of a solve: accepted steps, or values of a function, instead of the states at the output times.
Save: TypeAlias = Literal["steps"] | UserFunction | None

# One tolerance for the whole state, a tensor that broadcasts against each leaf, or a pytree of these like the state.
Tolerance: TypeAlias = float | Tensor | PyTree

# One axis for all tensors of a pytree, None for no axis, or a pytree of these, as `in_dims` of `torch.vmap`.
Axes: TypeAlias = int | PyTree | None
