"""Sampling a flow on a grid of times: so many steps of an explicit method, and nothing that waits for the host.

No step depends on a number that was computed on the device, so the whole of it can be compiled, or recorded and played
back.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any, NamedTuple, TypeAlias

import torch
from jaxtyping import Float
from torch import Tensor

from neuralode.core.registry import pick
from neuralode.engines.grid import integrate_grid, steps_between
from neuralode.methods import find_method
from neuralode.solver.solve import solve

Field: TypeAlias = Callable[[Tensor, Tensor], Tensor]
Times: TypeAlias = tuple[float, ...] | Tensor

ADAPTIVE = "adaptive"

# The noise levels of Karras, Aittala, Aila & Laine, "Elucidating the Design Space of Diffusion-Based Generative
# Models", 2022, table 1: from the highest to the lowest, equally far apart in their RHO-th roots.
SIGMA_MAX, SIGMA_MIN, RHO = 80.0, 0.002, 7.0


class Sampled(NamedTuple):
    """Samples, and what they took.

    Attributes
    ----------
    x : Tensor[batch, *event]
        The samples.
    evaluations : int
        Evaluations of the field that each row took part in.
    calls : int
        Calls of the field, each of a whole batch; more than the evaluations where `neuralode.solve` checked the field.
    grid : tuple of float, or Tensor[times]
        The times from step to step; where steps adapt, the two ends.
    """

    x: Tensor
    evaluations: int
    calls: int
    grid: Times


def sample(
    field: Callable[..., Tensor],
    x0: Float[Tensor, "batch *event"],
    *,
    args: tuple = (),
    grid: str | Sequence[float] | Tensor = "uniform",
    steps: int = 50,
    method: Any = None,
    dtype: torch.dtype | None = None,
    rtol: float = 1e-5,
    atol: float = 1e-5,
    differentiable: bool = False,
) -> Sampled:
    """Carry samples of the base along a field to the data, in steps that are known beforehand.

    Parameters
    ----------
    field : Module or callable
        ``field(t, x, *args) -> dx/dt``, with t of no axes.
    x0 : Tensor[batch, *event]
        Samples of the base, at t = 0.
    args : tuple
        Of the field.
    grid : {"uniform", "edm", "adaptive"}, sequence of float, or Tensor[times]
        Where steps end: in equal steps from 0 to 1; as Karras et al. 2022 have it, crowded where noise is little; or
        at these times, from the first to the last. "adaptive" adapts them to the tolerances, by `neuralode.solve`.
        A tensor stays where it is: what it holds is not looked at, and gradients may flow to it.
    steps : int, default 50
        Of the grids "uniform" and "edm"; others have their own.
    method : str, Tableau or method, optional
        Any of `neuralode.methods`: "euler" unless given, or "tsit5" where steps adapt.
    dtype : torch.dtype, optional
        What the field is given x, t and the floating point tensors of ``args`` in; that of x0 unless given. Steps add
        up in at least float32 all the same.
    rtol, atol : float
        As in `neuralode.solve`, where steps adapt.
    differentiable : bool
        Whether gradients flow back through the steps; else nothing of them is kept.

    Returns
    -------
    Sampled
        The samples in the dtype of x0, and the count of evaluations.

    Raises
    ------
    ValueError
        For a grid that is none, or a field that changes the shape of x.

    Examples
    --------
    >>> drawn = sample(lambda t, x: x, torch.ones(3, 1, 2, 2), steps=50)
    >>> drawn.x.shape, drawn.evaluations, round(drawn.x.max().item(), 2)  # (1 + 1/50)^50
    (torch.Size([3, 1, 2, 2]), 50, 2.69)
    >>> round(sample(lambda t, x: x, torch.ones(1, 1), grid="adaptive").x.item(), 4)
    2.7183
    """
    if not isinstance(x0, Tensor) or not x0.is_floating_point():
        raise TypeError(f"x0 is a {getattr(x0, 'dtype', type(x0).__name__)}; wanted a floating point tensor.")
    seen = x0.dtype if dtype is None else dtype
    x = x0.to(torch.promote_types(x0.dtype, torch.float32))
    f = _seeing(field, tuple(_cast(arg, seen) for arg in args), seen, x.dtype)
    with torch.set_grad_enabled(differentiable and torch.is_grad_enabled()):
        times = grid_times(grid, steps, x.device)
        if isinstance(grid, str) and grid == ADAPTIVE:
            found = solve(f, x, times, method="tsit5" if method is None else method, rtol=rtol, atol=atol)
            evaluations = int(found.stats.evaluations.max()) if len(x) else 0
            return Sampled(found.y1.to(x0.dtype), evaluations, found.stats.calls, times)
        stepper: Any = find_method("euler" if method is None else method)
        x = integrate_grid(f, x, steps_between(times), method=stepper)
    calls = (len(times) - 1) * stepper.evaluations_per_step
    return Sampled(x.to(x0.dtype), calls, calls, times)


def grid_times(
    grid: str | Sequence[float] | Tensor, steps: int = 50, device: torch.device | str | None = None
) -> Times:
    """The times of a grid: those of a name in so many steps, or those given; a tensor is moved to the device.

    Examples
    --------
    >>> grid_times("uniform", 4)
    (0.0, 0.25, 0.5, 0.75, 1.0)
    >>> [round(t, 3) for t in grid_times("edm", 4)]
    [0.0, 0.093, 0.68, 0.998, 1.0]
    """
    if isinstance(grid, str):
        if grid != ADAPTIVE and (isinstance(steps, bool) or not isinstance(steps, int) or steps < 1):
            raise ValueError(f"steps={steps!r}; wanted a whole number of at least 1.")
        return pick("grid", grid, GRIDS, ())(steps)
    if isinstance(grid, Tensor):
        if grid.dim() != 1 or len(grid) < 2 or not grid.is_floating_point():
            raise ValueError(f"grid has shape {list(grid.shape)} and {grid.dtype}; wanted two or more times, floating.")
        return grid.to(device)
    times = tuple(map(float, grid))
    spans = [end - start for start, end in pairwise(times)]
    if not spans or not all(map(math.isfinite, times)) or not (min(spans) > 0 or max(spans) < 0):
        raise ValueError(f"grid={times!r}; wanted two or more finite times that rise, or fall, from each to the next.")
    return times


def _uniform(steps: int) -> tuple[float, ...]:
    return tuple(n / steps for n in range(steps + 1))


def _edm(steps: int) -> tuple[float, ...]:
    """By noise levels: on a straight path noise stands to data as σ = (1 − t) / t, so that t = 1 / (1 + σ).

    The first time is put to 0 and the last to 1: what lies before the highest level belongs to the first step, and what
    lies behind the lowest is the last one.
    """
    high, low = SIGMA_MAX ** (1 / RHO), SIGMA_MIN ** (1 / RHO)
    inner = [(high + n / max(1, steps - 1) * (low - high)) ** RHO for n in range(1, steps)]
    return (0.0, *(1 / (1 + sigma) for sigma in inner), 1.0)


def _ends(steps: int) -> tuple[float, ...]:
    return 0.0, 1.0


GRIDS: dict[str, Callable[[int], tuple[float, ...]]] = {"uniform": _uniform, "edm": _edm, ADAPTIVE: _ends}


def _seeing(field: Callable[..., Tensor], args: tuple, seen: torch.dtype, held: torch.dtype) -> Field:
    """The field as the method calls it: what it sees in one dtype, what it answers in another."""

    def checked(t: Tensor, x: Tensor) -> Tensor:
        slope = field(t, x, *args)
        if slope.shape != x.shape:
            raise ValueError(f"field gave shape {list(slope.shape)}; wanted that of x, {list(x.shape)}.")
        return slope

    if seen == held:
        return checked
    return lambda t, x: checked(t.to(seen), x.to(seen)).to(held)


def _cast(arg: Any, dtype: torch.dtype) -> Any:
    return arg.to(dtype) if isinstance(arg, Tensor) and arg.is_floating_point() else arg
