"""Samples in rows, and the further arguments of a field that has one row for each sample."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor


class Rows(NamedTuple):
    """Samples of any batch shape as rows, with arguments to match.

    Attributes
    ----------
    batch : torch.Size
        The shape of the batch.
    x : Tensor[rows, *event]
        The samples.
    args : tuple
        The arguments; those with rows have one for each of x.
    """

    batch: torch.Size
    x: Tensor
    args: tuple


def dims_of_args(args_dims: Any, count: int) -> tuple[int | None, ...]:
    """Return for each of ``count`` arguments whether it has rows (0) or is the same for all samples (None).

    Raises
    ------
    ValueError
        If ``args_dims`` has another length or other values.

    Examples
    --------
    >>> dims_of_args(0, 2), dims_of_args((0, None), 2)
    ((0, 0), (0, None))
    """
    dims = (args_dims,) * count if args_dims is None or isinstance(args_dims, int) else tuple(args_dims)
    if len(dims) != count or any(dim not in (0, None) for dim in dims):
        raise ValueError(f"args_dims={args_dims!r} for {count} args; wanted 0 or None for each.")
    return dims


def args_with_rows(args: tuple, dims: tuple[int | None, ...]) -> list[Tensor | None]:
    """Return the arguments that have rows, and None in place of the others.

    Raises
    ------
    ValueError
        If an argument that should have rows is not a tensor with an axis.
    """
    for place, (arg, dim) in enumerate(zip(args, dims, strict=True)):
        if dim is not None and not (isinstance(arg, Tensor) and arg.dim()):
            raise ValueError(
                f"args[{place}] is a {type(arg).__name__}; wanted a tensor with a row for each sample, or "
                "args_dims=None for what all samples share."
            )
    return [arg if dim is not None else None for arg, dim in zip(args, dims, strict=True)]


def flatten_batch(x: Tensor, event: torch.Size, *, args: tuple, dims: tuple[int | None, ...]) -> Rows:
    """Flatten a batch of samples, and repeat the rows of the arguments to match.

    Parameters
    ----------
    x : Tensor[*batch, *event]
        Samples. A single one (no batch) is repeated for the rows of the arguments.
    event : torch.Size
        The shape of one sample.
    args : tuple
        Further arguments of the field; rows belong to the last axis of the batch.
    dims : tuple
        Which of them have rows, as `dims_of_args` returns it.

    Raises
    ------
    TypeError
        If x is not a floating tensor.
    ValueError
        If its last axes are not those of a sample, or an argument has another number of rows.
    """
    if not isinstance(x, Tensor):
        raise TypeError(f"x is a {type(x).__name__}; wanted a tensor of samples [batch, {_axes(event)}].")
    if x.shape[x.dim() - len(event) :] != event or x.dim() < len(event):
        raise ValueError(f"x has shape {list(x.shape)}; wanted samples [{_axes(event)}] as its last axes.")
    if not x.is_floating_point():
        raise TypeError(f"x has dtype {x.dtype}; wanted floating samples, as x.float() gives.")
    batch = x.shape[: x.dim() - len(event)]
    with_rows = args_with_rows(args, dims)
    if not batch and (count := next((len(arg) for arg in with_rows if arg is not None), None)) is not None:
        batch = torch.Size((count,))
    flat_args = []
    for place, (arg, row) in enumerate(zip(args, with_rows, strict=True)):
        if row is not None and len(row) != batch[-1]:
            raise ValueError(
                f"args[{place}] has {len(row)} rows for x of shape {list(x.shape)}; wanted a row for each of the "
                f"{batch[-1]} samples along the last axis of their batch, or args_dims=None for what all share."
            )
        flat_args.append(
            arg if row is None else row.expand(*batch[:-1], *row.shape).reshape(batch.numel(), *row.shape[1:])
        )
    return Rows(batch, x.expand(*batch, *event).reshape(batch.numel(), *event), tuple(flat_args))


def _axes(shape: Sequence[int]) -> str:
    return ", ".join(map(str, shape))
