"""Packing: whatever state the user has, as one tensor of B rows of F numbers, and back."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from typing import Any

import torch
from jaxtyping import Shaped
from torch import Tensor
from torch.utils._pytree import TreeSpec, tree_flatten, tree_flatten_with_path, tree_unflatten


@dataclass(frozen=True)
class Leaf:
    """One tensor of the state: its shape without the row axis, its dtype, and the columns it fills."""

    shape: torch.Size
    dtype: torch.dtype
    start: int
    stop: int

    @property
    def width(self) -> int:
        """How many columns."""
        return self.stop - self.start


@dataclass(frozen=True)
class Layout:
    """How a pytree of tensors lies in ``y[rows, features]``.

    Leaves share a leading row axis (``has_rows``), or the whole state is one row. Mixed dtypes lie in the widest;
    half precision lies in float32. ``axes`` is the memory order of a single leaf that is not row-major (channels-last).
    """

    spec: TreeSpec
    leaves: tuple[Leaf, ...]
    dtype: torch.dtype
    device: torch.device
    rows: int
    has_rows: bool
    axes: tuple[int, ...] | None = None

    @property
    def features(self) -> int:
        """F: how many numbers a row holds."""
        return self.leaves[-1].stop if self.leaves else 0

    @cached_property
    def plain(self) -> bool:
        """Whether the state is its own packing."""
        leaf = self.leaves[0]
        matrix = self.has_rows and len(leaf.shape) == 1
        return self.spec.is_leaf() and matrix and leaf.dtype == self.dtype

    @cached_property
    def halves(self) -> tuple[Layout, Layout]:
        """Of a pair: how either half lies in its own columns."""
        first = self.spec.child(0).num_leaves
        found = []
        for spec, leaves in zip(self.spec.children(), (self.leaves[:first], self.leaves[first:]), strict=True):
            start = leaves[0].start if leaves else 0
            own = tuple(replace(leaf, start=leaf.start - start, stop=leaf.stop - start) for leaf in leaves)
            found.append(replace(self, spec=spec, leaves=own, axes=None))
        return found[0], found[1]

    def pack(self, tree: Any) -> Shaped[Tensor, "rows features"]:
        """The rows of a state (or of an answer of f, whose structure the door has checked)."""
        if self.plain:
            return tree.to(self.dtype)
        tensors = [tree] if self.spec.is_leaf() else tree_flatten(tree)[0]
        if len(tensors) == 1:
            tensor, leaf = tensors[0], self.leaves[0]
            if self.axes is not None:
                tensor = tensor.permute(self.axes)
            return tensor.reshape(self._count(tensor, leaf), leaf.width).to(self.dtype)
        parts = [
            x.reshape(self._count(x, leaf), leaf.width).to(self.dtype)
            for x, leaf in zip(tensors, self.leaves, strict=True)
        ]
        return torch.cat(parts, 1)

    def _count(self, tensor: Tensor, leaf: Leaf) -> int:
        return tensor.shape[0] if self.has_rows else 1

    def unpack(self, y: Shaped[Tensor, "*lead rows features"], dtype: torch.dtype | None = None) -> Any:
        """The state that rows hold, with any leading axes kept; floating leaves in ``dtype`` if that is given."""
        if self.plain and dtype is None:
            return y
        tensors = [self._leaf(y, leaf, dtype) for leaf in self.leaves]
        return tensors[0] if self.spec.is_leaf() else tree_unflatten(tensors, self.spec)

    def _leaf(self, y: Tensor, leaf: Leaf, dtype: torch.dtype | None) -> Tensor:
        lead = y.shape[:-1] if self.has_rows else y.shape[:-2]
        columns = y if leaf.width == y.shape[-1] else y[..., leaf.start : leaf.stop]
        if self.axes is None:
            tensor = columns.reshape(lead + leaf.shape)
        else:
            stored = [leaf.shape[axis - 1] for axis in self.axes[1:]]
            ahead = len(lead) - 1
            back = [self.axes.index(axis) for axis in range(len(self.axes))]
            tensor = columns.reshape(*lead, *stored).permute(*range(ahead), *(ahead + axis for axis in back))
        wanted = leaf.dtype if dtype is None or leaf.dtype.is_complex else dtype
        if tensor.dtype.is_complex and not wanted.is_complex:
            tensor = tensor.real
        return tensor.to(wanted)

    def broadcast(self, value: Any) -> Any:
        """Tolerances as columns: a number stays one; tensors, or a pytree of both, broadcast against their leaves."""
        if isinstance(value, (int, float)):
            return float(value)
        values = [value] * len(self.leaves)
        if not isinstance(value, Tensor) and not self.spec.is_leaf():
            values, spec = tree_flatten(value)
            if spec != self.spec:
                raise ValueError("its structure, the order of keys included, is not that of y0")
        parts = []
        for x, leaf in zip(values, self.leaves, strict=True):
            x = torch.as_tensor(x, dtype=self.dtype.to_real(), device=self.device)
            own = (self.rows, *leaf.shape) if self.has_rows else tuple(leaf.shape)
            full = x.expand(own)
            if self.axes is not None:
                full = full.permute(self.axes)
            parts.append(full.reshape(self.rows if self.has_rows else 1, leaf.width))
        return torch.cat(parts, 1)


def lay_out(tree: Any, per_sample: bool) -> Layout:
    """Find the layout of a state; refuse what cannot be a state."""
    if type(tree) is Tensor and tree.dim() > per_sample - 1 and (tree.is_floating_point() or tree.is_complex()):
        return _layout_of_tensor(tree.shape, tree.stride(), tree.dtype, tree.device, per_sample)
    return _find_layout(tree, per_sample)


@lru_cache(maxsize=256)
def _layout_of_tensor(
    shape: torch.Size, stride: tuple[int, ...], dtype: torch.dtype, device: torch.device, per_sample: bool
) -> Layout:
    """Find the layout of a tensor from its metadata alone, once for each."""
    return _find_layout(torch.empty_strided(shape, stride, dtype=dtype, device="meta"), per_sample, device)


def _find_layout(tree: Any, per_sample: bool, device: torch.device | None = None) -> Layout:
    if isinstance(tree, Tensor):
        named, spec = [((), tree)], tree_flatten(tree)[1]
    else:
        named, spec = tree_flatten_with_path(tree)
    if not named:
        raise ValueError("y0 holds no tensor.")
    tensors = []
    for path, x in named:
        where = "y0" + "".join(str(key) for key in path)
        if not isinstance(x, Tensor):
            raise TypeError(f"{where} is a {type(x).__name__}; wanted a tensor (torch.as_tensor makes one).")
        if not (x.is_floating_point() or x.is_complex()):
            raise TypeError(f"{where} has dtype {x.dtype}; wanted a floating or complex tensor, as y0.float() gives.")
        if x.device != named[0][1].device:
            raise ValueError(f"{where} is on {x.device}, the first leaf on {named[0][1].device}; wanted one device.")
        tensors.append(x)
    if per_sample:
        _demand_rows(named)
    has_rows = per_sample or _share_rows(tensors)
    leaves, start = [], 0
    for x in tensors:
        shape = x.shape[1:] if has_rows else x.shape
        leaves.append(Leaf(shape, x.dtype, start, start + math.prod(shape)))
        start += math.prod(shape)
    dtype = _packed(tensors[0].dtype)
    for x in tensors[1:]:
        dtype = torch.promote_types(dtype, _packed(x.dtype))
    rows = tensors[0].shape[0] if has_rows else 1
    layout = Layout(
        spec=spec, leaves=tuple(leaves), dtype=dtype, device=device or tensors[0].device, rows=rows, has_rows=has_rows
    )
    return replace(layout, axes=_memory_order(tensors[0])) if len(tensors) == 1 and has_rows else layout


def _packed(dtype: torch.dtype) -> torch.dtype:
    """Half precision is too coarse to add steps up in."""
    return torch.float32 if dtype in (torch.float16, torch.bfloat16) else dtype


def _demand_rows(named: Sequence[tuple[Any, Tensor]]) -> None:
    for path, x in named:
        where = "y0" + "".join(str(key) for key in path)
        if x.dim() == 0:
            raise ValueError(f"{where} has no axis; per_sample=True wants a leading batch axis on every leaf of y0.")
        if x.shape[0] != named[0][1].shape[0]:
            raise ValueError(
                f"{where} has {x.shape[0]} rows, the first leaf {named[0][1].shape[0]}; per_sample=True wants the same "
                "leading batch axis on every leaf of y0."
            )


def _share_rows(tensors: list[Tensor]) -> bool:
    return all(x.dim() >= 2 and x.shape[0] == tensors[0].shape[0] for x in tensors)


def _memory_order(x: Tensor) -> tuple[int, ...] | None:
    """Axes from the slowest to the fastest, rows first; None where that is their own order."""
    axes = (0, *sorted(range(1, x.dim()), key=lambda axis: -x.stride(axis)))
    plain = tuple(range(x.dim()))
    return axes if axes != plain and x.permute(axes).is_contiguous() else None
