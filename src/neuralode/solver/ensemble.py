"""Ensembles: one equation, written for one member, solved for many parameters or initial states at once."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_flatten, tree_flatten_with_path, tree_map

from neuralode.autodiff.captured import modules_of
from neuralode.core.field import Field
from neuralode.core.solution import Solution
from neuralode.solver.solve import solve


def solve_ensemble(
    f: Callable[..., Any],
    y0: Any,
    t: Any,
    *,
    args: tuple = (),
    args_dims: Any = 0,
    y0_dims: Any = None,
    per_sample: bool = True,
    **options: Any,
) -> Solution:
    """Solve dy/dt = f(t, y, *args) for every member of an ensemble, each with its own steps.

    f is written for one member and evaluated for all of them by `torch.func.vmap`.

    Parameters
    ----------
    f : callable
        ``f(t, y, *args)`` for one member: t is 0-d, y and args are those of the member. It draws no random numbers.
    y0 : pytree of Tensor
        Initial state; that of one member, which all begin with, or with an axis of members (see ``y0_dims``).
    t : (t0, t1), Tensor[T] or Tensor[members, T]
        As in `solve`; times of each member's own need ``per_sample``.
    args : tuple
        Further arguments of f, pytrees (parameters that `torch.func.stack_module_state` stacks, say).
    args_dims : int, None, or tuple of these
        The axis of members of each of ``args``, of all tensors in it; None: shared by all members. A pytree like the
        argument, or a dict for one, says it of each of its tensors.
    y0_dims : int, None or pytree of these
        The same of y0.
    per_sample : bool
        Give every member its own steps: the answer is that of solving it alone. Without, all share one step.
    **options
        Of `solve`. Event and save functions see what f sees in `solve`: all members at once.

    Returns
    -------
    Solution
        As of `solve`: leaves of ``ys`` are [T, members, ...], with a status and statistics for each member.

    Raises
    ------
    TypeError, ValueError
        Where members cannot be counted, or what has an axis of them disagrees; and as `solve`.

    Examples
    --------
    The Lorenz system for three Rayleigh numbers:

    >>> import torch, neuralode as node
    >>> def lorenz(t, y, rho):
    ...     return torch.stack((10 * (y[1] - y[0]), y[0] * (rho - y[2]) - y[1], y[0] * y[1] - 8 / 3 * y[2]))
    >>> rho = torch.tensor([0.5, 10.0, 28.0], requires_grad=True)
    >>> sol = node.solve_ensemble(lorenz, torch.ones(3), (0.0, 1.0), args=(rho,))
    >>> sol.ys.shape, sol.stats.accepted.shape
    (torch.Size([2, 3, 3]), torch.Size([3]))

    An ensemble of networks:

    >>> nets = [torch.nn.Linear(2, 2) for _ in range(5)]
    >>> params, _ = torch.func.stack_module_state(nets)
    >>> def field(t, y, params):
    ...     return torch.func.functional_call(nets[0], params, (y,))
    >>> node.solve_ensemble(field, torch.ones(2), (0.0, 1.0), args=(params,)).y1.shape
    torch.Size([5, 2])
    """
    field = f if isinstance(f, Field) else Field(f)
    if not callable(field.f):
        raise TypeError(f"f is a {type(field.f).__name__}; wanted a callable f(t, y, *args) for one member.")
    if not isinstance(args, tuple):
        raise TypeError(f"args is a {type(args).__name__}; wanted a tuple: args=(theta,) gives f(t, y, theta).")
    if args_dims is None or isinstance(args_dims, int):
        args_dims = (args_dims,) * len(args)
    if not isinstance(args_dims, tuple) or len(args_dims) != len(args):
        raise ValueError(f"args_dims={args_dims!r} for {len(args)} args; wanted a tuple with one entry for each.")
    parts = [_Part(f"args[{i}]", arg, dims) for i, (arg, dims) in enumerate(zip(args, args_dims, strict=True))]
    start = _Part("y0", y0, y0_dims)
    members = _count([start, *parts])
    states = start.led_by(members)
    every = Members(field.f, (0 if per_sample else None, 0, *(part.dims for part in parts)))
    return solve(
        replace(field, f=every), states, t, args=tuple(part.first for part in parts),
        args_dims=tuple(part.dims for part in parts), per_sample=per_sample, **options,
    )  # fmt: skip


class Members(nn.Module):
    """f of every member: what `solve` is given. A module, so that those that f uses are found in it.

    Parameters
    ----------
    f : callable
        Of one member.
    dims : tuple
        Where the axis of members is, as ``in_dims`` of `torch.vmap`.
    """

    def __init__(self, f: Callable[..., Any], dims: tuple) -> None:
        super().__init__()
        self.f = f
        self.held = nn.ModuleList(module for module in modules_of(f) if module is not f)
        self.dims = dims

    def forward(self, t: Tensor, y: Any, *args: Any) -> Any:
        """The slopes of all members."""
        try:
            return torch.vmap(self.f, self.dims)(t, y, *args)
        except RuntimeError as error:
            if "random" not in str(error):
                raise
            raise ValueError(
                "f draws random numbers (dropout in training?), which an ensemble cannot: its members would not be "
                "functions of (t, y, args). Draw them before the solve and pass them in args."
            ) from error


class _Part:
    """Something with an axis of members, or without: moved to the front, with dims that say of every tensor."""

    def __init__(self, name: str, tree: Any, dims: Any) -> None:
        self.name = name
        named, spec = tree_flatten_with_path(tree)
        self.names = [name + "".join(str(key) for key in path) for path, _ in named]
        leaves = [x for _, x in named]
        spread = _spread(name, dims, tree, len(leaves))
        for place, (x, dim) in enumerate(zip(leaves, spread, strict=True)):
            if dim is not None and (not isinstance(x, Tensor) or not -x.dim() <= dim < x.dim()):
                if not isinstance(x, Tensor) and isinstance(dims, int):
                    spread[place] = None  # a number among tensors is shared
                    continue
                came = f"shape {list(x.shape)}" if isinstance(x, Tensor) else f"a {type(x).__name__}"
                raise ValueError(
                    f"{self.names[place]} is {came}; its dims say that axis {dim} is that of members. Wanted a tensor "
                    "with that axis, or None for what all members share."
                )
        self.moved = [x if dim in (None, 0) else x.movedim(dim, 0) for x, dim in zip(leaves, spread, strict=True)]
        self.spread = [None if dim is None else 0 for dim in spread]
        self.given = spread
        self.spec = spec
        self.first = spec.unflatten(self.moved)
        self.dims = None if all(dim is None for dim in self.spread) else spec.unflatten(self.spread)

    def sizes(self) -> list[tuple[str, int, int]]:
        """Name, axis and size of what has an axis of members."""
        triples = zip(self.names, self.given, self.moved, strict=True)
        return [(name, dim, len(x)) for name, dim, x in triples if dim is not None]

    def led_by(self, members: int) -> Any:
        """With an axis of members in front of every tensor."""
        whole = [
            x if dim == 0 or not isinstance(x, Tensor) else x.expand(members, *x.shape)
            for x, dim in zip(self.moved, self.spread, strict=True)
        ]
        return self.spec.unflatten(whole)


def _spread(name: str, dims: Any, tree: Any, count: int) -> list[int | None]:
    """The axis of every leaf."""
    if dims is None or isinstance(dims, int):
        return [dims] * count
    leaves, spec = tree_flatten(dims, is_leaf=lambda x: x is None)
    wanted = tree_flatten(tree_map(lambda _: 0, tree))[1]
    if spec != wanted or not all(dim is None or isinstance(dim, int) for dim in leaves):
        which = "y0_dims" if name == "y0" else f"args_dims for {name}"
        raise ValueError(f"{which} is {dims!r}; wanted an axis, None, or a pytree of these like {name}.")
    return leaves


def _count(parts: list[_Part]) -> int:
    """How many members there are."""
    sizes = [size for part in parts for size in part.sizes()]
    if not sizes:
        raise ValueError(
            "nothing has an axis of members: wanted args with one (args_dims=0), or y0 with one (y0_dims=0)."
        )
    name, dim, members = sizes[0]
    for other, axis, size in sizes[1:]:
        if size != members:
            raise ValueError(
                f"{name} has {members} members along axis {dim}, {other} has {size} along axis {axis}; wanted as many "
                "in both (args_dims, y0_dims: None for what all members share)."
            )
    return members
