"""What is to be solved: the field, the packed state, the times. Checked once, here."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import pairwise
from typing import Any

import torch
from jaxtyping import Float64, Shaped
from torch import Tensor
from torch.utils._pytree import tree_flatten, tree_map

from neuralode.jacobians import Linearised, jacobian
from neuralode.layout import Layout, lay_out
from neuralode.separable import Separable


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


@dataclass(frozen=True)
class Problem:
    """A field, a packed state and its times.

    ``t`` is differentiable. On a shared clock ``times`` holds the same as Python floats; per sample it is ``t``
    without its history, one row a sample.
    """

    field: Field
    y0: Shaped[Tensor, "rows features"]
    t: Float64[Tensor, " outputs"] | Float64[Tensor, "rows outputs"]
    times: list[float] | Tensor
    direction: float
    per_sample: bool

    @property
    def layout(self) -> Layout:
        """How the state is packed."""
        assert self.field.layout is not None
        return self.field.layout

    @property
    def start(self) -> Any:
        """Where each clock starts."""
        return self.times[:, 0] if isinstance(self.times, Tensor) else self.times[0]

    @property
    def end(self) -> Any:
        """Where each clock is to arrive."""
        return self.times[:, -1] if isinstance(self.times, Tensor) else self.times[-1]

    @property
    def outputs(self) -> int:
        """How many output times."""
        return self.t.shape[-1]

    @cached_property
    def inner(self) -> slice:
        """On a shared clock: the outputs strictly between the ends, which lie between those at either end."""
        assert isinstance(self.times, list)
        start, end = self.times[0], self.times[-1]
        if start == end:
            return slice(len(self.times), len(self.times))
        return slice(self.times.count(start), len(self.times) - self.times.count(end))

    @property
    def has_inner_outputs(self) -> bool:
        """Whether some output time lies strictly between its ends."""
        if isinstance(self.times, Tensor):
            return bool(((self.times != self.times[:, :1]) & (self.times != self.times[:, -1:])).any())
        return self.inner.start < self.inner.stop

    def at_start(self) -> Tensor:
        """Which outputs are y0 itself, of the shape of ``t``."""
        times = self.t.detach()
        mask = times == times[..., :1]
        mask[..., 0] = True
        return mask.to(self.y0.device)

    def at_end(self) -> Tensor:
        """Which outputs are the final state, of the shape of ``t``."""
        times = self.t.detach()
        return ((times == times[..., -1:]) & (times != times[..., :1])).to(self.y0.device)


def pose(f: Any, y0: Any, t: Any, args: Any, args_dims: Any, per_sample: bool, endless: bool = False) -> Problem:
    """Check what the user gave and pack it; an ``endless`` problem may have an infinite last time."""
    field = f if isinstance(f, Field) else Field(f)
    if not callable(field.f):
        raise TypeError(f"f is a {type(field.f).__name__}; wanted a callable f(t, y, *args).")
    if field.dtype is not None and not field.dtype.is_floating_point:
        raise TypeError(f"Field(dtype={field.dtype}); wanted a floating dtype such as torch.bfloat16.")
    if not isinstance(args, tuple):
        raise TypeError(f"args is a {type(args).__name__}; wanted a tuple: args=(theta,) gives f(t, y, theta).")
    layout = lay_out(y0, per_sample)
    times = read_times(t, layout, per_sample)
    if args_dims is None or isinstance(args_dims, int):
        args_dims = (args_dims,) * len(args)
    if len(args_dims) != len(args):
        raise ValueError(f"args_dims has {len(args_dims)} entries, args has {len(args)}; wanted one each.")
    packed = layout.pack(y0)
    # the caller's own y0 and t may also be used by f: what is packed must be told from them
    packed, times = (x.view_as(x) if x.requires_grad else x for x in (packed, times))
    guarded = not (packed.is_inference() or torch.is_inference_mode_enabled())
    field = replace(field, layout=layout, args=args, args_dims=tuple(args_dims), guarded=guarded)
    host, direction = _check_times(times, per_sample, endless)
    return Problem(field, packed, times, host, direction, per_sample)


def read_times(t: Any, layout: Layout, per_sample: bool) -> Tensor:
    """``t`` as a float64 tensor [outputs], or [rows, outputs] per sample; its history is kept."""
    if not isinstance(t, Tensor):
        t = _stack_times(t)
    if not t.is_floating_point():
        raise TypeError(f"t has dtype {t.dtype}; wanted floating times, as t.double() gives.")
    if t.dim() not in ((1, 2) if per_sample else (1,)):
        wanted = "[T] or [B, T]" if per_sample else "[T] (times of each row's own need per_sample=True)"
        raise ValueError(f"t has shape {list(t.shape)}; wanted {wanted}.")
    if t.dim() == 2 and t.shape[0] != layout.rows:
        raise ValueError(f"t has {t.shape[0]} rows, y0 has {layout.rows}; wanted one row of times for each row of y0.")
    if t.shape[-1] == 0:
        raise ValueError("t is empty; wanted at least one time.")
    t = t.to(torch.float64)
    if per_sample:
        t = t.to(layout.device)
        return t if t.dim() == 2 else t.expand(layout.rows, -1)
    return t


def _stack_times(t: Any) -> Tensor:
    if not isinstance(t, Sequence) or len(t) < 1:
        raise TypeError(f"t is a {type(t).__name__}; wanted (t0, t1) or a tensor of output times.")
    parts = []
    for x in t:
        if isinstance(x, Tensor):
            if not x.is_floating_point() or x.dim():
                raise TypeError(f"t holds a tensor of {x.dtype}, shape {list(x.shape)}; wanted floating 0-d times.")
            parts.append(x.to(torch.float64))
        elif isinstance(x, (int, float)):
            parts.append(torch.tensor(float(x), dtype=torch.float64))
        else:
            raise TypeError(f"t holds a {type(x).__name__}; wanted numbers or 0-d tensors.")
    device = next((x.device for x in parts if x.device.type != "cpu"), torch.device("cpu"))
    return torch.stack([x.to(device) for x in parts])


def _check_times(t: Tensor, per_sample: bool, endless: bool) -> tuple[list[float] | Tensor, float]:
    """Finite and monotone; returns the times without history and the direction of integration."""
    fixed = t.detach()
    host = fixed.tolist()
    rows = host if per_sample else [host]
    spans = [row[-1] - row[0] for row in rows]
    direction = -1.0 if any(span < 0 for span in spans) else 1.0
    for index, row in enumerate(rows):
        place = f" in row {index}" if per_sample else ""
        if not all(map(math.isfinite, row[:-1] if endless and not math.isnan(row[-1]) else row)):
            hint = " (a last time may be infinite where a terminal event ends the solve)" if math.isinf(row[-1]) else ""
            raise ValueError(f"t holds a time that is not finite{place}: {_short(row)}{hint}.")
        if any((b - a) * direction < 0 for a, b in pairwise(row)):
            raise ValueError(
                f"t is not monotone{place}: {_short(row)}; wanted times that only increase or only decrease"
                f"{', the same way in every row' if per_sample else ''}."
            )
    return (fixed if per_sample else host), direction


def _short(row: list[float]) -> str:
    return str(row) if len(row) <= 6 else f"[{row[0]}, {row[1]}, … {row[-1]}]"


def check_tolerances(rtol: Any, atol: Any, layout: Layout) -> tuple[Any, Any]:
    """Tolerances as numbers or columns; refuses negative ones, warns of what the state cannot resolve."""
    columns, least = [], []
    for name, value in (("rtol", rtol), ("atol", atol)):
        try:
            column = layout.broadcast(value)
        except (TypeError, ValueError, RuntimeError) as error:
            raise ValueError(
                f"{name}={value!r} does not broadcast against y0; wanted a number, a tensor that broadcasts against "
                "each leaf, or a pytree of these like y0."
            ) from error
        extremes = [float(x) for x in column.aminmax()] if isinstance(column, Tensor) and column.numel() else [column]
        extremes = [0.0] if isinstance(extremes[0], Tensor) else extremes
        if isinstance(value, bool) or not all(math.isfinite(x) and x >= 0 for x in extremes):
            raise ValueError(f"{name}={value!r}; wanted finite tolerances that are not negative.")
        columns.append(column)
        least.append(extremes)
    if max(*least[0], *least[1]) == 0 and layout.rows and layout.features:
        raise ValueError("rtol and atol are both 0; wanted at least one above 0.")
    finest = 10 * torch.finfo(layout.dtype).eps
    if 0 < least[0][0] < finest:
        warnings.warn(
            f"rtol={least[0][0]:.1e} is below 10 eps of {layout.dtype} ({finest:.1e}): rounding will decide the steps. "
            "Use a float64 state for such tolerances.",
            stacklevel=3,
        )
    return columns[0], columns[1]
