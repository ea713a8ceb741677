"""Ensembles: solve an f that is written for one member for many parameters or initial states at once."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn
from torch.utils._pytree import TreeSpec, tree_flatten, tree_flatten_with_path, tree_map

from neuralode.autodiff.captured import modules_of
from neuralode.core.field import Field
from neuralode.core.solution import Solution
from neuralode.core.times import Times
from neuralode.core.types import Axes, PyTree, UserFunction
from neuralode.solver.solve import solve

Axis: TypeAlias = int | None  # None: shared by all members


def solve_ensemble(
    f: UserFunction,
    y0: PyTree,
    t: Times,
    *,
    args: tuple = (),
    args_dims: Axes = 0,
    y0_dims: Axes = None,
    per_sample: bool = True,
    **options: Any,  # those of `solve`
) -> Solution:
    """Solve dy/dt = f(t, y, *args) for every member of an ensemble.

    f is written for one member; `torch.func.vmap` evaluates it for all members.

    Parameters
    ----------
    f : callable
        ``f(t, y, *args)`` for one member: t is 0-d, y and args are those of the member. It must not draw random
        numbers.
    y0 : pytree of Tensor
        Initial state of one member, from which all start, or one with a member axis (see ``y0_dims``).
    t : (t0, t1), Tensor[T] or Tensor[members, T]
        As in `solve`; different times of members need ``per_sample``.
    args : tuple, default=()
        Further arguments of f, pytrees; for example the parameters that `torch.func.stack_module_state` stacks.
    args_dims : int, None or tuple of these, default=0
        The member axis of each of ``args``, for all tensors in it; None: shared by all members. A pytree like the
        argument gives the axis of each of its tensors.
    y0_dims : int, None or pytree of these, default=None
        The same for y0.
    per_sample : bool, default=True
        Give every member its own steps, so that the result is that of solving it alone. Otherwise all members share
        their steps.
    **options
        Options of `solve`. Event and save functions are called as in `solve`, with all members at once.

    Returns
    -------
    Solution
        As from `solve`: leaves of ``ys`` are [T, members, ...], with a status and statistics of each member.

    Raises
    ------
    TypeError, ValueError
        If no argument has a member axis, or their lengths differ; and as in `solve`.

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
    pairs = zip(args, args_dims, strict=True)
    arguments = [_members_first(f"args[{i}]", arg, dims) for i, (arg, dims) in enumerate(pairs)]
    start = _members_first("y0", y0, y0_dims)
    states = start.expanded(_count_members([start, *arguments]))
    dims = tuple(argument.dims for argument in arguments)
    members = Members(field.f, (0 if per_sample else None, 0, *dims))
    args = tuple(argument.tree for argument in arguments)
    return solve(replace(field, f=members), states, t, args=args, args_dims=dims, per_sample=per_sample, **options)


class Members(nn.Module):
    """f for all members, by `torch.vmap`; a module that registers the modules of f as its own.

    Parameters
    ----------
    f : callable
        f of one member.
    dims : tuple
        The member axes of (t, y, *args), as ``in_dims`` of `torch.vmap`.
    """

    def __init__(self, f: UserFunction, dims: tuple) -> None:
        super().__init__()
        self.f = f
        self.used_modules = nn.ModuleList(module for module in modules_of(f) if module is not f)
        self.dims = dims

    def forward(self, t: Tensor, y: PyTree, *args: PyTree) -> PyTree:
        """Return the slopes of all members."""
        try:
            return torch.vmap(self.f, self.dims)(t, y, *args)
        except RuntimeError as error:
            if "random" not in str(error):
                raise
            raise ValueError(
                "f draws random numbers (dropout in training?), which an ensemble does not allow: f would not be a "
                "function of (t, y, args). Draw them before the solve and pass them in args."
            ) from error


@dataclass(frozen=True)
class _Argument:
    """An argument of all members, with their axis in front."""

    leaf_names: list[str]  # for messages
    leaves: list[PyTree]  # with the member axis, if they have one, in front
    axes: list[Axis]  # the member axis that the user gave for each leaf
    spec: TreeSpec

    @property
    def tree(self) -> PyTree:
        """The argument."""
        return self.spec.unflatten(self.leaves)

    @property
    def dims(self) -> Axes:
        """The member axes as ``in_dims`` of `torch.vmap`: 0 or None for each leaf, or None."""
        if all(axis is None for axis in self.axes):
            return None
        return self.spec.unflatten([None if axis is None else 0 for axis in self.axes])

    def expanded(self, members: int) -> PyTree:
        """Return the argument with a member axis in front of every tensor."""
        leaves = [
            x if axis is not None or not isinstance(x, Tensor) else x.expand(members, *x.shape)
            for x, axis in zip(self.leaves, self.axes, strict=True)
        ]
        return self.spec.unflatten(leaves)


def _members_first(name: str, tree: PyTree, dims: Axes) -> _Argument:
    """Move the member axes of an argument to the front."""
    paths, spec = tree_flatten_with_path(tree)
    names = [name + "".join(str(key) for key in path) for path, _ in paths]
    leaves = [x for _, x in paths]
    axes = _leaf_axes(name, tree, dims=dims, count=len(leaves))
    if isinstance(dims, int):  # Python numbers among tensors are shared
        axes = [axis if isinstance(x, Tensor) else None for x, axis in zip(leaves, axes, strict=True)]
    for leaf_name, x, axis in zip(names, leaves, axes, strict=True):
        if axis is not None and not (isinstance(x, Tensor) and -x.dim() <= axis < x.dim()):
            came = f"shape {list(x.shape)}" if isinstance(x, Tensor) else f"a {type(x).__name__}"
            raise ValueError(
                f"{leaf_name} is {came}; its dims give axis {axis} as the member axis. Wanted a tensor with that axis, "
                "or None for an argument that all members share."
            )
    leaves = [x if axis in (None, 0) else x.movedim(axis, 0) for x, axis in zip(leaves, axes, strict=True)]
    return _Argument(leaf_names=names, leaves=leaves, axes=axes, spec=spec)


def _leaf_axes(name: str, tree: PyTree, *, dims: Axes, count: int) -> list[Axis]:
    """Return the member axis of each of ``count`` leaves."""
    if dims is None or isinstance(dims, int):
        return [dims] * count
    axes, spec = tree_flatten(dims, is_leaf=lambda x: x is None)
    tree_spec = tree_flatten(tree_map(lambda _: 0, tree))[1]
    if spec != tree_spec or not all(axis is None or isinstance(axis, int) for axis in axes):
        which = "y0_dims" if name == "y0" else f"args_dims for {name}"
        raise ValueError(f"{which} is {dims!r}; wanted an axis, None, or a pytree of these like {name}.")
    return axes


def _count_members(arguments: list[_Argument]) -> int:
    """Return the number of members, which all arguments must agree on."""
    sizes = [
        (name, axis, len(x))
        for argument in arguments
        for name, axis, x in zip(argument.leaf_names, argument.axes, argument.leaves, strict=True)
        if axis is not None
    ]
    if not sizes:
        raise ValueError(
            "no argument has a member axis: wanted args with one (args_dims=0), or y0 with one (y0_dims=0)."
        )
    name, axis, members = sizes[0]
    for other_name, other_axis, size in sizes[1:]:
        if size != members:
            raise ValueError(
                f"{name} has {members} members along axis {axis}, {other_name} has {size} along axis {other_axis}; "
                "wanted the same number in both (args_dims, y0_dims: None for arguments that all members share)."
            )
    return members
