"""The user's ``f`` as a function of packed rows."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import torch
from jaxtyping import Shaped
from torch import Tensor
from torch.utils._pytree import tree_flatten, tree_map

from neuralode.core.jacobians import Linearised, jacobian
from neuralode.core.layout import Layout
from neuralode.core.separable import Separable


@dataclass(frozen=True)
class Field:
    """The user's ``f`` seen from inside: unpacks rows, calls ``f(t, y, *args)``, packs the answer.

    Wrapping f in one before calling `solve` chooses the precision in which f works.

    Parameters
    ----------
    f : callable
        ``f(t, y, *args)`` returning dy/dt with the structure of y.
    dtype : torch.dtype, optional
        Floating dtype in which f is given t and the floating leaves of y; its answer is cast to the state's.
        By default each leaf keeps its own dtype.

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
    # set at the door
    layout: Layout | None = None
    args: tuple = ()
    args_dims: tuple = ()
    guarded: bool = True
    coupled: bool = False  # rows depend on each other
    bounds: tuple[Any, Any] | None = None  # f is asked at times within these only

    def __call__(self, t: Tensor, y: Shaped[Tensor, "rows features"]) -> Shaped[Tensor, "rows features"]:
        """Evaluate on packed rows; t is 0-d or one a row."""
        return self.evaluate(t, y)

    @cached_property
    def evaluate(self) -> Callable[[Tensor, Tensor], Tensor]:
        """The evaluation as one plain function, with every lookup done: it is called more than anything else."""
        assert self.layout is not None, "a Field is called by solve"
        return self._asking(self.f, self.layout, self.layout)

    @cached_property
    def halves(self) -> tuple[Callable[[Tensor, Tensor, Tensor], Tensor], Callable[[Tensor, Tensor, Tensor], Tensor]]:
        """Of a pair (q, p), packed apart: the slope of q and that of p, each a function of (t, q, p).

        Of a `Separable` each asks for its own function; of any other f it is a part of the whole.
        """
        assert self.layout is not None
        if isinstance(self.f, Separable):  # what `separable` says, where it tells the type
            of_q, of_p = self.layout.halves
            velocity, force = self._asking(self.f.velocity, of_p, of_q), self._asking(self.f.force, of_q, of_p)
            return lambda t, q, p: velocity(t, p), lambda t, q, p: force(t, q)
        whole, width = self.evaluate, self.layout.features // 2
        return (
            lambda t, q, p: whole(t, torch.cat((q, p), 1))[:, :width],
            lambda t, q, p: whole(t, torch.cat((q, p), 1))[:, width:],
        )

    def _asking(self, f: Callable[..., Any], given: Layout, wanted: Layout) -> Callable[[Tensor, Tensor], Tensor]:
        """A function of the user as one of packed rows: what it is given lies in one layout, its answer in another."""
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
        """Whether f says that each half of its slope depends on the other half of a pair alone."""
        return isinstance(self.f, Separable)

    @property
    def time_dtype(self) -> torch.dtype:
        """The real dtype in which f is given t."""
        assert self.layout is not None
        if self.dtype is not None:
            return self.dtype
        leaves = self.layout.leaves
        return leaves[0].dtype.to_real() if len(leaves) == 1 else self.layout.dtype.to_real()

    def take(self, rows: Tensor) -> Field:
        """The field of some rows: args are gathered along their row dimension."""
        args = tuple(_take(arg, dims, rows) for arg, dims in zip(self.args, self.args_dims, strict=True))
        return replace(self, args=args)

    def within(self, t0: Any, t1: Any, begins: Any, ends: Any) -> Field:
        """The field of one step, from t0 to t1, which is asked strictly after t0 or before t1 where f jumps there."""
        assert self.layout is not None
        device = self.layout.device
        t0, t1 = (torch.as_tensor(x, dtype=torch.float64, device=device) for x in (t0, t1))
        begins, ends = (torch.as_tensor(x, device=device) for x in (begins, ends))
        first, last = t0.to(self.time_dtype), t1.to(self.time_dtype)
        after, before = torch.nextafter(first, last), torch.nextafter(last, first)
        forward = t1 >= t0
        infinite = torch.where(forward, torch.inf, -torch.inf).to(first.dtype)
        one, other = torch.where(begins, after, -infinite), torch.where(ends, before, infinite)
        return replace(self, bounds=(torch.minimum(one, other), torch.maximum(one, other)))

    def jacobian(self, t: Tensor, y: Tensor) -> Tensor:
        """∂f/∂y, without a graph: [rows, F, F], or [1, rows · F, rows · F] where rows depend on each other."""
        return jacobian(self._plainly, t, y, self.coupled)

    def linearised(self, t: Tensor, y: Tensor) -> Linearised:
        """F around (t, y), for products with its Jacobian, without a graph."""
        return Linearised(self._plainly, t, y)

    @cached_property
    def _plainly(self) -> Callable[[Tensor, Tensor], Tensor]:
        """The evaluation without a guard against writing, which cannot look into a transformed tensor."""
        return replace(self, guarded=False).evaluate

    def check(self, answer: Any) -> None:
        """Refuse an answer of f that is not shaped and typed as the state."""
        layout = self.layout
        assert layout is not None
        leaves, spec = tree_flatten(answer)
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
