"""Pack a pytree of tensors into one matrix [rows, features], and unpack it again."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache

import torch
from jaxtyping import Shaped
from torch import Tensor
from torch.utils._pytree import KeyPath, TreeSpec, tree_flatten, tree_flatten_with_path, tree_unflatten

from neuralode.core.types import PyTree, Tolerance


@dataclass(frozen=True)
class Leaf:
    """One tensor of the state: its shape without the row axis, its dtype, and the columns it fills."""

    shape: torch.Size
    dtype: torch.dtype
    start: int
    stop: int

    @property
    def width(self) -> int:
        """The number of columns."""
        return self.stop - self.start


@dataclass(frozen=True)
class Layout:
    """How a pytree of tensors is packed into ``y[rows, features]``.

    Parameters
    ----------
    spec : TreeSpec
        The structure of the pytree.
    leaves : tuple of Leaf
        Its tensors.
    dtype : torch.dtype
        The dtype of the packed state: the widest of the leaves, and float32 for half precision.
    device : torch.device
        The device of all leaves.
    rows : int
        The number of rows; 1 without a row axis.
    has_rows : bool
        Whether leaves have a leading row axis: with ``per_sample``, or if all have the same first length and
        at least two axes. Otherwise the whole state is one row.
    axes : tuple of int, default=None
        The memory order of a single leaf that is not row-major, such as channels-last.
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
        """The number of columns."""
        return self.leaves[-1].stop if self.leaves else 0

    @cached_property
    def plain(self) -> bool:
        """Whether the state is a matrix of the packed dtype: packing returns it unchanged."""
        leaf = self.leaves[0]
        matrix = self.has_rows and len(leaf.shape) == 1
        return self.spec.is_leaf() and matrix and leaf.dtype == self.dtype

    @cached_property
    def halves(self) -> tuple[Layout, Layout]:
        """The layouts of both halves of a pair, each within its own columns."""
        first = self.spec.child(0).num_leaves
        layouts = []
        for spec, leaves in zip(self.spec.children(), (self.leaves[:first], self.leaves[first:]), strict=True):
            start = leaves[0].start if leaves else 0
            shifted = tuple(replace(leaf, start=leaf.start - start, stop=leaf.stop - start) for leaf in leaves)
            layouts.append(replace(self, spec=spec, leaves=shifted, axes=None))
        return layouts[0], layouts[1]

    def pack(self, tree: PyTree) -> Shaped[Tensor, "rows features"]:
        """Pack a state, or a slope whose structure has been checked."""
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

    def unpack(self, y: Shaped[Tensor, "*lead rows features"], dtype: torch.dtype | None = None) -> PyTree:
        """Unpack rows, with any leading axes kept; floating leaves are cast to ``dtype`` if it is given."""
        if self.plain and dtype is None:
            return y
        tensors = [self._leaf(y, leaf, dtype) for leaf in self.leaves]
        return tensors[0] if self.spec.is_leaf() else tree_unflatten(tensors, self.spec)

    def _leaf(self, y: Tensor, leaf: Leaf, dtype: torch.dtype | None) -> Tensor:
        """Return one leaf of packed rows."""
        lead = y.shape[:-1] if self.has_rows else y.shape[:-2]
        columns = y if leaf.width == y.shape[-1] else y[..., leaf.start : leaf.stop]
        if self.axes is None:
            tensor = columns.reshape(lead + leaf.shape)
        else:
            stored = [leaf.shape[axis - 1] for axis in self.axes[1:]]
            ahead = len(lead) - 1
            inverse = [self.axes.index(axis) for axis in range(len(self.axes))]
            tensor = columns.reshape(*lead, *stored).permute(*range(ahead), *(ahead + axis for axis in inverse))
        dtype = leaf.dtype if dtype is None or leaf.dtype.is_complex else dtype
        if tensor.dtype.is_complex and not dtype.is_complex:
            tensor = tensor.real
        return tensor.to(dtype)

    def broadcast(self, value: Tolerance) -> float | Tensor:
        """Pack tolerances: a number stays a number; tensors, or a pytree of both, are broadcast against their leaves.

        Raises
        ------
        TypeError, ValueError, RuntimeError
            If the value has neither the structure of the state nor a shape that broadcasts.
        """
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
            full = x.expand((self.rows, *leaf.shape) if self.has_rows else tuple(leaf.shape))
            if self.axes is not None:
                full = full.permute(self.axes)
            parts.append(full.reshape(self.rows if self.has_rows else 1, leaf.width))
        return torch.cat(parts, 1)


def lay_out(tree: PyTree, per_sample: bool) -> Layout:
    """Return the layout of a state.

    Raises
    ------
    TypeError, ValueError
        If a leaf is not a floating or complex tensor, if leaves are on several devices, if there is no leaf, or with
        ``per_sample`` if leaves do not share a leading axis.
    """
    if type(tree) is Tensor and tree.dim() > per_sample - 1 and (tree.is_floating_point() or tree.is_complex()):
        return _layout_of_tensor(tree.shape, tree.stride(), tree.dtype, device=tree.device, per_sample=per_sample)
    return _find_layout(tree, per_sample)


@lru_cache(maxsize=256)
def _layout_of_tensor(
    shape: torch.Size, stride: tuple[int, ...], dtype: torch.dtype, *, device: torch.device, per_sample: bool
) -> Layout:
    """Return the layout of a tensor from its metadata, computed once."""
    return _find_layout(torch.empty_strided(shape, stride, dtype=dtype, device="meta"), per_sample, device)


def _find_layout(tree: PyTree, per_sample: bool, device: torch.device | None = None) -> Layout:
    """Return the layout of a state, as if its leaves were on ``device``."""
    if isinstance(tree, Tensor):
        named, spec = [((), tree)], tree_flatten(tree)[1]
    else:
        named, spec = tree_flatten_with_path(tree)
    if not named:
        raise ValueError("y0 holds no tensor.")
    _check_leaves(named)
    if per_sample:
        _check_rows(named)
    tensors = [x for _, x in named]
    has_rows = per_sample or _share_rows(tensors)
    leaves, start = [], 0
    for x in tensors:
        shape = x.shape[1:] if has_rows else x.shape
        stop = start + math.prod(shape)
        leaves.append(Leaf(shape=shape, dtype=x.dtype, start=start, stop=stop))
        start = stop
    dtype = _packed_dtype(tensors[0].dtype)
    for x in tensors[1:]:
        dtype = torch.promote_types(dtype, _packed_dtype(x.dtype))
    return Layout(
        spec=spec,
        leaves=tuple(leaves),
        dtype=dtype,
        device=device or tensors[0].device,
        rows=tensors[0].shape[0] if has_rows else 1,
        has_rows=has_rows,
        axes=_memory_order(tensors[0]) if len(tensors) == 1 and has_rows else None,
    )


def _check_leaves(named: Sequence[tuple[KeyPath, Tensor]]) -> None:
    """Refuse leaves that are not floating or complex tensors on one device."""
    for path, x in named:
        where = _name(path)
        if not isinstance(x, Tensor):
            raise TypeError(f"{where} is a {type(x).__name__}; wanted a tensor (torch.as_tensor makes one).")
        if not (x.is_floating_point() or x.is_complex()):
            raise TypeError(f"{where} has dtype {x.dtype}; wanted a floating or complex tensor, as y0.float() gives.")
        if x.device != named[0][1].device:
            raise ValueError(f"{where} is on {x.device}, the first leaf on {named[0][1].device}; wanted one device.")


def _check_rows(named: Sequence[tuple[KeyPath, Tensor]]) -> None:
    """Refuse leaves without a common leading axis."""
    for path, x in named:
        where = _name(path)
        if x.dim() == 0:
            raise ValueError(f"{where} has no axis; per_sample=True requires a leading batch axis on every leaf of y0.")
        if x.shape[0] != named[0][1].shape[0]:
            raise ValueError(
                f"{where} has {x.shape[0]} rows, the first leaf {named[0][1].shape[0]}; per_sample=True requires the "
                "same leading batch axis on every leaf of y0."
            )


def _name(path: KeyPath) -> str:
    return "y0" + "".join(str(key) for key in path)


def _packed_dtype(dtype: torch.dtype) -> torch.dtype:
    """Return the dtype in which a leaf is packed: half precision is too coarse for sums of steps."""
    return torch.float32 if dtype in (torch.float16, torch.bfloat16) else dtype


def _share_rows(tensors: list[Tensor]) -> bool:
    return all(x.dim() >= 2 and x.shape[0] == tensors[0].shape[0] for x in tensors)


def _memory_order(x: Tensor) -> tuple[int, ...] | None:
    """Return the axes from the slowest to the fastest, rows first; None for row-major tensors."""
    axes = (0, *sorted(range(1, x.dim()), key=lambda axis: -x.stride(axis)))
    plain = tuple(range(x.dim()))
    return axes if axes != plain and x.permute(axes).is_contiguous() else None
