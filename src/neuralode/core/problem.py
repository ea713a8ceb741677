"""What is to be solved: the field, the packed state, the times. Checked once, here."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import torch
from jaxtyping import Float64, Shaped
from torch import Tensor

from neuralode.core.field import Field
from neuralode.core.layout import Layout, lay_out
from neuralode.core.times import check_times, read_times


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


def make_problem(
    f: Any, y0: Any, t: Any, args: Any, args_dims: Any, per_sample: bool, endless: bool = False
) -> Problem:
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
    host, direction = check_times(times, per_sample, endless)
    return Problem(field, packed, times, host, direction, per_sample)
