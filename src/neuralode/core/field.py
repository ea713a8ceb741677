"""The user's f as a function of packed rows."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import torch
from jaxtyping import Shaped
from torch import Tensor
from torch.utils._pytree import tree_flatten, tree_map

from neuralode.core.clock import Number
from neuralode.core.jacobians import Linearised, jacobian
from neuralode.core.layout import Layout
from neuralode.core.record import StepEdges
from neuralode.core.separable import Separable


@dataclass(frozen=True)
class Field:
    """The user's f as a function of packed rows: unpack, call ``f(t, y, *args)``, pack.

    Wrap f in a Field before a solve to choose the precision in which f is evaluated.

    Parameters
    ----------
    f : callable
        ``f(t, y, *args)`` returning dy/dt with the structure of y.
    dtype : torch.dtype, default=None
        Floating dtype in which f receives t and the floating leaves of y; its result is cast to that of the state. If
        None, each leaf keeps its dtype.

    Examples
    --------
    >>> import torch, neuralode as node
    >>> net = torch.nn.Linear(2, 2).to(torch.bfloat16)
    >>> field = node.Field(lambda t, y: net(y), dtype=torch.bfloat16)
    >>> node.solve(field, torch.ones(3, 2), (0.0, 1.0), rtol=1e-2, atol=1e-2).y1.dtype
    torch.float32
    """

    f: Callable[..., Any]
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
        """The evaluation as a plain function with all lookups done: the innermost call of a solve."""
        assert self.layout is not None, "a Field is called by solve"
        return self._packed_function(self.f, self.layout, self.layout)

    @cached_property
    def halves(self) -> tuple[Callable[[Tensor, Tensor, Tensor], Tensor], Callable[[Tensor, Tensor, Tensor], Tensor]]:
        """The slopes of q and of p as functions of (t, q, p), for a pair packed in two halves.

        A `Separable` is evaluated half by half; of any other f each is a part of the whole slope.
        """
        assert self.layout is not None
        if isinstance(self.f, Separable):  # narrower for the type checker than `separable`
            of_q, of_p = self.layout.halves
            velocity, force = (
                self._packed_function(self.f.velocity, of_p, of_q),
                self._packed_function(self.f.force, of_q, of_p),
            )
            return lambda t, q, p: velocity(t, p), lambda t, q, p: force(t, q)
        whole, width = self.evaluate, self.layout.features // 2
        return (
            lambda t, q, p: whole(t, torch.cat((q, p), 1))[:, :width],
            lambda t, q, p: whole(t, torch.cat((q, p), 1))[:, width:],
        )

    def _packed_function(
        self, f: Callable[..., Any], given: Layout, wanted: Layout
    ) -> Callable[[Tensor, Tensor], Tensor]:
        """Return a function of the user as one of packed rows, in the layouts of its argument and its result."""
        args, dtype = self.args, self.dtype
        pack, unpack, time_dtype, guarded = wanted.pack, given.unpack, self.time_dtype, self.guarded
        direct = given.plain and wanted.plain and dtype is None
        bounds = self.bounds

        def evaluate(t: Tensor, y: Tensor) -> Tensor:
            if t.dtype is not time_dtype:
                t = t.to(time_dtype)
            if bounds is not None:
                t = t + (t.clamp(*bounds) - t).detach()
            before = (y._version, t._version) if guarded else None
            answer = f(t, y if direct else unpack(y, dtype), *args)
            if guarded and (y._version, t._version) != before:
                raise ValueError("f writes into its arguments; wanted a new tensor: y + 1, not y.add_(1) or y[0] = 1.")
            return answer if direct and answer.dtype is y.dtype else pack(answer)

        return evaluate

    @property
    def separable(self) -> bool:
        """Whether f declares that each half of its slope depends on the other half of the pair only."""
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
        """Return the field of some rows: args are gathered along their row dimensions."""
        args = tuple(_take(arg, dims, rows) for arg, dims in zip(self.args, self.args_dims, strict=True))
        return replace(self, args=args)

    def within(self, t: Number, edges: StepEdges) -> Field:
        """Return the field of one step from t: f is evaluated strictly between its ends where it jumps there."""
        assert self.layout is not None
        device = self.layout.device
        t0, t1 = (torch.as_tensor(x, dtype=torch.float64, device=device) for x in (t, edges.t1))
        begins, ends = (torch.as_tensor(x, device=device) for x in (edges.jump_before, edges.jump_after))
        first, last = t0.to(self.time_dtype), t1.to(self.time_dtype)
        after, before = torch.nextafter(first, last), torch.nextafter(last, first)
        forward = t1 >= t0
        infinite = torch.where(forward, torch.inf, -torch.inf).to(first.dtype)
        one, other = torch.where(begins, after, -infinite), torch.where(ends, before, infinite)
        return replace(self, bounds=(torch.minimum(one, other), torch.maximum(one, other)))

    def jacobian(self, t: Tensor, y: Tensor) -> Tensor:
        """Return ∂f/∂y without a graph: [rows, F, F], or [1, rows · F, rows · F] where rows depend on each other."""
        return jacobian(self._unguarded, t, y, self.coupled)

    def linearised(self, t: Tensor, y: Tensor) -> Linearised:
        """Return f linearised at (t, y), for products with its Jacobian, without a graph."""
        return Linearised(self._unguarded, t, y)

    @cached_property
    def _unguarded(self) -> Callable[[Tensor, Tensor], Tensor]:
        """The evaluation without the guard against writing, which fails on transformed tensors."""
        return replace(self, guarded=False).evaluate

    def check(self, answer: Any) -> None:
        """Refuse a result of f that does not have the structure, shapes, device and dtypes of the state."""
        layout = self.layout
        assert layout is not None
        leaves, spec = ([answer], layout.spec) if _is_single(answer, layout) else tree_flatten(answer)
        if spec != layout.spec or not all(isinstance(x, Tensor) for x in leaves):
            raise TypeError(f"f returned {_describe(answer)}; wanted the structure of y0, with a tensor for each leaf.")
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
                    "taken under torch.autocast or from Field(f, dtype=...)."
                )

    def _may_narrow(self, got: torch.dtype, own: torch.dtype) -> bool:
        narrower = got.is_floating_point and own.is_floating_point and got.itemsize <= own.itemsize
        asked = self.dtype is not None and got == self.dtype
        autocast = self.layout is not None and torch.is_autocast_enabled(self.layout.device.type)
        return asked or (narrower and autocast)


def _is_single(answer: Any, layout: Layout) -> bool:
    return isinstance(answer, Tensor) and layout.spec.is_leaf()


def _take(arg: Any, dims: Any, rows: Tensor) -> Any:
    if dims is None:
        return arg
    if isinstance(dims, int):
        return tree_map(lambda x: x.index_select(dims, rows) if isinstance(x, Tensor) else x, arg)
    leaves, spec = tree_flatten(arg)
    taken = [x if dim is None else x.index_select(dim, rows) for x, dim in zip(leaves, _leaves_of(dims), strict=True)]
    return spec.unflatten(taken)


def _leaves_of(dims: Any) -> list:
    return tree_flatten(dims, is_leaf=lambda x: x is None)[0]


def _describe(answer: Any) -> str:
    return f"a {type(answer).__name__}" if not isinstance(answer, (tuple, list, dict)) else repr(tree_map(type, answer))
