"""The user's f as a function of packed rows."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property

import torch
from jaxtyping import Shaped
from torch import Tensor
from torch.utils._pytree import tree_flatten, tree_map

from neuralode.core.clock import Number
from neuralode.core.jacobians import Linearised, jacobian
from neuralode.core.layout import Layout
from neuralode.core.record import StepEdges
from neuralode.core.separable import Separable
from neuralode.core.types import Axes, PyTree, UserFunction


@dataclass(frozen=True)
class Field:
    """The user's f as a function of packed rows: unpack, call ``f(t, y, *args)``, pack.

    Wrap f in a Field before a solve to choose the precision in which f is evaluated.

    Parameters
    ----------
    f : callable
        ``f(t, y, *args)`` returning dy/dt with the structure of y.
    dtype : torch.dtype, default=None
        Floating dtype in which f receives t and the floating leaves of y. Its result is cast to the dtype of the state.
        If None, each leaf keeps its dtype.

    Examples
    --------
    >>> import torch, neuralode as node
    >>> net = torch.nn.Linear(2, 2).to(torch.bfloat16)
    >>> field = node.Field(lambda t, y: net(y), dtype=torch.bfloat16)
    >>> node.solve(field, torch.ones(3, 2), (0.0, 1.0), rtol=1e-2, atol=1e-2).y1.dtype
    torch.float32
    """

    f: UserFunction
    dtype: torch.dtype | None = None
    # The remaining fields are set by `make_problem`.
    layout: Layout | None = None
    args: tuple = ()
    args_dims: tuple = ()
    guarded: bool = True
    coupled: bool = False  # rows depend on each other
    bounds: tuple[Tensor, Tensor] | None = None  # times of evaluation are clamped to these

    def __call__(self, t: Tensor, y: Shaped[Tensor, "rows features"]) -> Shaped[Tensor, "rows features"]:
        """Evaluate on packed rows; t is 0-d or [rows]."""
        return self.evaluate(t, y)

    @cached_property
    def evaluate(self) -> Callable[[Tensor, Tensor], Tensor]:
        """The evaluation as a plain function, with all attributes looked up: the innermost call of a solve."""
        assert self.layout is not None, "set by make_problem"
        return self._packed_function(self.f, argument=self.layout, result=self.layout)

    @cached_property
    def halves(self) -> tuple[Callable[[Tensor, Tensor, Tensor], Tensor], Callable[[Tensor, Tensor, Tensor], Tensor]]:
        """The slopes of q and of p as functions of (t, q, p), for a pair packed in two halves.

        A `Separable` evaluates one half. Any other f is evaluated whole, and one half of its slope is returned.
        """
        assert self.layout is not None
        if isinstance(self.f, Separable):  # narrower for the type checker than `separable`
            q_layout, p_layout = self.layout.halves
            velocity = self._packed_function(self.f.velocity, argument=p_layout, result=q_layout)
            force = self._packed_function(self.f.force, argument=q_layout, result=p_layout)
            return lambda t, q, p: velocity(t, p), lambda t, q, p: force(t, q)
        slope, width = self.evaluate, self.layout.features // 2
        return (
            lambda t, q, p: slope(t, torch.cat((q, p), 1))[:, :width],
            lambda t, q, p: slope(t, torch.cat((q, p), 1))[:, width:],
        )

    def _packed_function(
        self, f: UserFunction, *, argument: Layout, result: Layout
    ) -> Callable[[Tensor, Tensor], Tensor]:
        """Return a function of the user as a function of packed rows, with the layouts of its argument and result."""
        args, dtype, bounds = self.args, self.dtype, self.bounds
        pack, unpack, time_dtype, guarded = result.pack, argument.unpack, self.time_dtype, self.guarded
        direct = argument.plain and result.plain and dtype is None

        def evaluate(t: Tensor, y: Tensor) -> Tensor:
            if t.dtype is not time_dtype:
                t = t.to(time_dtype)
            if bounds is not None:
                t = t + (t.clamp(*bounds) - t).detach()
            before = (y._version, t._version) if guarded else None
            slope = f(t, y if direct else unpack(y, dtype), *args)
            if guarded and (y._version, t._version) != before:
                raise ValueError("f writes into its arguments; wanted a new tensor: y + 1, not y.add_(1) or y[0] = 1.")
            return slope if direct and slope.dtype is y.dtype else pack(slope)

        return evaluate

    @property
    def separable(self) -> bool:
        """Whether f is a `Separable`: each half of its slope depends only on the other half of the pair."""
        return isinstance(self.f, Separable)

    @property
    def time_dtype(self) -> torch.dtype:
        """The real dtype in which f receives t."""
        assert self.layout is not None
        if self.dtype is not None:
            return self.dtype
        leaves = self.layout.leaves
        return leaves[0].dtype.to_real() if len(leaves) == 1 else self.layout.dtype.to_real()

    def take(self, rows: Tensor) -> Field:
        """Return the field of some rows, with args gathered along their row axes."""
        args = tuple(_take(arg, dims, rows) for arg, dims in zip(self.args, self.args_dims, strict=True))
        return replace(self, args=args)

    def within(self, t: Number, edges: StepEdges) -> Field:
        """Return the field of one step from t, with evaluations clamped strictly inside of ends where f jumps."""
        assert self.layout is not None
        device = self.layout.device
        t0, t1 = (torch.as_tensor(x, dtype=torch.float64, device=device) for x in (t, edges.t1))
        at_start, at_end = (torch.as_tensor(x, device=device) for x in (edges.jump_before, edges.jump_after))
        first, last = t0.to(self.time_dtype), t1.to(self.time_dtype)
        after, before = torch.nextafter(first, last), torch.nextafter(last, first)
        forward = t1 >= t0
        infinite = torch.where(forward, torch.inf, -torch.inf).to(first.dtype)
        low, high = torch.where(at_start, after, -infinite), torch.where(at_end, before, infinite)
        return replace(self, bounds=(torch.minimum(low, high), torch.maximum(low, high)))

    def jacobian(self, t: Tensor, y: Tensor) -> Tensor:
        """Return ∂f/∂y without a graph: [rows, F, F], or [1, rows · F, rows · F] where rows depend on each other."""
        return jacobian(self._unguarded, t, y, coupled=self.coupled)

    def linearised(self, t: Tensor, y: Tensor) -> Linearised:
        """Return f linearised at (t, y), for products with its Jacobian, without a graph."""
        return Linearised(self._unguarded, t, y)

    @cached_property
    def _unguarded(self) -> Callable[[Tensor, Tensor], Tensor]:
        """The evaluation without the guard against writing, which fails on transformed tensors."""
        return replace(self, guarded=False).evaluate

    def check(self, slope: PyTree) -> None:
        """Refuse a result of f that does not have the structure, shapes, device and dtypes of the state."""
        layout = self.layout
        assert layout is not None
        single = isinstance(slope, Tensor) and layout.spec.is_leaf()
        leaves, spec = ([slope], layout.spec) if single else tree_flatten(slope)
        if spec != layout.spec or not all(isinstance(x, Tensor) for x in leaves):
            raise TypeError(f"f returned {_describe(slope)}; wanted the structure of y0, with a tensor for each leaf.")
        for x, leaf in zip(leaves, layout.leaves, strict=True):
            shape = (layout.rows, *leaf.shape) if layout.has_rows else tuple(leaf.shape)
            if tuple(x.shape) != shape:
                hint = " (t has shape [B] under per_sample=True: write t[:, None])" if x.dim() > len(shape) else ""
                raise ValueError(f"f returned shape {tuple(x.shape)}; wanted {shape}, the shape of y{hint}.")
            if x.device != layout.device:
                raise ValueError(f"f returned a tensor on {x.device}; wanted {layout.device}, where y0 is.")
            if x.dtype != leaf.dtype and not self._may_narrow(x.dtype, leaf.dtype):
                raise TypeError(
                    f"f returned {x.dtype} for a state of {leaf.dtype}; wanted the same dtype. A narrower float is "
                    "accepted under torch.autocast, and from Field(f, dtype=...)."
                )

    def _may_narrow(self, dtype: torch.dtype, leaf_dtype: torch.dtype) -> bool:
        """Return whether f may return this dtype for a leaf of another."""
        narrower = dtype.is_floating_point and leaf_dtype.is_floating_point and dtype.itemsize <= leaf_dtype.itemsize
        autocast = self.layout is not None and torch.is_autocast_enabled(self.layout.device.type)
        return (self.dtype is not None and dtype == self.dtype) or (narrower and autocast)


def _take(arg: PyTree, dims: Axes, rows: Tensor) -> PyTree:
    """Gather rows along the row axes of an argument."""
    if dims is None:
        return arg
    if isinstance(dims, int):
        return tree_map(lambda x: x.index_select(dims, rows) if isinstance(x, Tensor) else x, arg)
    leaves, spec = tree_flatten(arg)
    taken = [x if dim is None else x.index_select(dim, rows) for x, dim in zip(leaves, _leaves_of(dims), strict=True)]
    return spec.unflatten(taken)


def _leaves_of(dims: Axes) -> list[int | None]:
    return tree_flatten(dims, is_leaf=lambda x: x is None)[0]


def _describe(slope: PyTree) -> str:
    return f"a {type(slope).__name__}" if not isinstance(slope, (tuple, list, dict)) else repr(tree_map(type, slope))
