"""The initial value problem: field, packed initial state and output times, checked once."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch
from jaxtyping import Float64, Shaped
from torch import Tensor

from neuralode.core.clock import Number
from neuralode.core.field import Field
from neuralode.core.layout import Layout, lay_out
from neuralode.core.times import Times, check_times, read_times
from neuralode.core.types import Axes, PyTree, UserFunction


@dataclass(frozen=True)
class Problem:
    """An initial value problem on packed rows.

    Parameters
    ----------
    field : Field
        f as a function of packed rows.
    y0 : Tensor[rows, features]
        Initial state; differentiable.
    t : Tensor[outputs] or Tensor[rows, outputs]
        Output times in float64, both ends included; differentiable.
    times : list of float or Tensor[rows, outputs]
        The same times as constants: Python floats on a shared clock, a tensor otherwise.
    direction : {1.0, -1.0}
        Direction of integration.
    per_sample : bool
        Whether every row has a clock.
    f0 : Tensor[rows, features], default=None
        f(t0, y0), if it has been evaluated.
    captured : tuple of Tensor, default=None
        The differentiable tensors that f, ``save`` and event functions use, including args; None before the search.
    strict : bool, default=True
        Whether a pullback raises `GradientError` if f uses a differentiable tensor that is not among ``captured``.
    """

    field: Field
    y0: Shaped[Tensor, "rows features"]
    t: Float64[Tensor, " outputs"] | Float64[Tensor, "rows outputs"]
    times: list[float] | Tensor
    direction: float
    per_sample: bool
    f0: Tensor | None = None
    captured: tuple[Tensor, ...] | None = None
    strict: bool = True

    @property
    def layout(self) -> Layout:
        """How the state is packed."""
        assert self.field.layout is not None
        return self.field.layout

    @property
    def inputs(self) -> tuple[Tensor, ...]:
        """The tensors that gradients flow to: y0, t and the captured tensors."""
        # Views: an enclosing solve notices tensors only when a torch function uses them.
        return (self.y0, self.t, *(x.view_as(x) for x in self.captured or ()))

    def initial_slope(self) -> Tensor:
        """Return f(t0, y0); evaluate it unless ``f0`` is set."""
        if self.f0 is not None:
            return self.f0
        t = self.t[..., 0].to(device=self.y0.device, dtype=self.field.time_dtype)
        return self.field(t, self.y0)

    @property
    def start(self) -> Number:
        """The time at which each clock starts."""
        return self.times[:, 0] if isinstance(self.times, Tensor) else self.times[0]

    @property
    def end(self) -> Number:
        """The time at which each clock ends."""
        return self.times[:, -1] if isinstance(self.times, Tensor) else self.times[-1]

    @property
    def outputs(self) -> int:
        """The number of output times."""
        return self.t.shape[-1]

    @cached_property
    def inner(self) -> slice:
        """The outputs strictly between the ends, on a shared clock."""
        assert isinstance(self.times, list)
        start, end = self.times[0], self.times[-1]
        if start == end:
            return slice(len(self.times), len(self.times))
        return slice(self.times.count(start), len(self.times) - self.times.count(end))

    @property
    def has_inner_outputs(self) -> bool:
        """Whether some output time lies strictly between the ends."""
        if isinstance(self.times, Tensor):
            return bool(((self.times != self.times[:, :1]) & (self.times != self.times[:, -1:])).any())
        return self.inner.start < self.inner.stop

    def at_start(self) -> Tensor:
        """Return which outputs are y0 itself, in the shape of ``t``."""
        times = self.t.detach()
        mask = times == times[..., :1]
        mask[..., 0] = True
        return mask.to(self.y0.device)

    def at_end(self) -> Tensor:
        """Return which outputs are the final state, in the shape of ``t``."""
        times = self.t.detach()
        return ((times == times[..., -1:]) & (times != times[..., :1])).to(self.y0.device)


def make_problem(
    f: UserFunction,
    y0: PyTree,
    t: Times,
    *,
    args: tuple = (),
    args_dims: Axes = None,
    per_sample: bool = False,
    endless: bool = False,
) -> Problem:
    """Check and pack the user's f, y0, t and args; the last time of an ``endless`` problem may be infinite.

    Raises
    ------
    TypeError, ValueError
        For arguments that do not describe a problem, in a sentence that names the argument.
    """
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
    # Views distinguish the packed y0 and t from the caller's, which f may also use.
    packed, times = (x.view_as(x) if x.requires_grad else x for x in (packed, times))
    guarded = not (packed.is_inference() or torch.is_inference_mode_enabled())
    field = Field(f=field.f, dtype=field.dtype, layout=layout, args=args, args_dims=tuple(args_dims), guarded=guarded)
    host, direction = check_times(times, per_sample, endless)
    return Problem(field=field, y0=packed, t=times, times=host, direction=direction, per_sample=per_sample)
