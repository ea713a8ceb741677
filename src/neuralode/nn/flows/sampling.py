"""Sample a flow on a grid of times: a known number of steps of an explicit method, without waiting for the device.

No step depends on a computed value, so the whole solve can be compiled, or captured in a CUDA graph.
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
# Models", 2022, table 1: from the highest to the lowest, with equal distances between their RHO-th roots.
SIGMA_MAX, SIGMA_MIN, RHO = 80.0, 0.002, 7.0


class Sampled(NamedTuple):
    """Samples, and the cost of drawing them.

    Attributes
    ----------
    x : Tensor[batch, *event]
        The samples.
    evaluations : int
        Evaluations of the field for each row.
    calls : int
        Calls of the field, each for the whole batch. With adaptive steps it also counts the calls that check the field.
    grid : tuple of float, or Tensor[times]
        The times at which steps end; with adaptive steps the two ends.
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
    """Move samples of the base along a field to the data, in known steps.

    Parameters
    ----------
    field : Module or callable
        ``field(t, x, *args) -> dx/dt``, with a 0-d t.
    x0 : Tensor[batch, *event]
        Samples of the base, at t = 0.
    args : tuple, default=()
        Further arguments of the field.
    grid : {"uniform", "edm", "adaptive"}, sequence of float, or Tensor[times], default="uniform"
        The times at which steps end. "uniform" takes equal steps from 0 to 1. "edm" places them as Karras et al. 2022
        do, denser at low noise. A sequence or tensor holds all times from the first to the last; a tensor stays on its
        device, its values are not read, and gradients flow to it. "adaptive" chooses steps by the tolerances, with
        `neuralode.solve`.
    steps : int, default=50
        The number of steps of the grids "uniform" and "edm".
    method : str, Tableau or method, default=None
        An explicit one-step method of `neuralode.methods`; None is "euler", or "tsit5" with adaptive steps.
    dtype : torch.dtype, default=None
        The dtype in which the field receives x, t and the floating tensors of ``args``; None is that of x0. The state
        is accumulated in at least float32.
    rtol : float, default=1e-5
        The relative tolerance of adaptive steps.
    atol : float, default=1e-5
        The absolute tolerance of adaptive steps.
    differentiable : bool, default=False
        Whether gradients flow through the steps; if not, no activations are kept.

    Returns
    -------
    Sampled
        The samples in the dtype of x0, and the counts of evaluations.

    Raises
    ------
    TypeError
        If x0 is not a floating tensor.
    ValueError
        If the grid or the method is not supported, or the field changes the shape of x.

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
    field_dtype = x0.dtype if dtype is None else dtype
    x = x0.to(torch.promote_types(x0.dtype, torch.float32))
    f = _in_precision(field, tuple(_cast(arg, field_dtype) for arg in args), field_dtype=field_dtype, dtype=x.dtype)
    with torch.set_grad_enabled(differentiable and torch.is_grad_enabled()):
        times = grid_times(grid, steps, x.device)
        if isinstance(grid, str) and grid == ADAPTIVE:
            solution = solve(f, x, times, method="tsit5" if method is None else method, rtol=rtol, atol=atol)
            evaluations = int(solution.stats.evaluations.max()) if len(x) else 0
            calls = solution.stats.calls
            return Sampled(solution.y1.to(x0.dtype), evaluations=evaluations, calls=calls, grid=times)
        stepper = find_method("euler" if method is None else method)
        x = integrate_grid(f, x, steps_between(times), method=stepper)
    calls = (len(times) - 1) * stepper.evaluations_per_step
    return Sampled(x.to(x0.dtype), evaluations=calls, calls=calls, grid=times)


def grid_times(
    grid: str | Sequence[float] | Tensor, steps: int = 50, device: torch.device | str | None = None
) -> Times:
    """Return the times of a grid.

    Parameters
    ----------
    grid : {"uniform", "edm", "adaptive"}, sequence of float, or Tensor[times]
        The grid, as in `sample`.
    steps : int, default=50
        The number of steps of the grids "uniform" and "edm".
    device : torch.device or str, default=None
        Where a tensor is moved to; None leaves it.

    Returns
    -------
    tuple of float, or Tensor[times]
        The times.

    Raises
    ------
    ValueError
        If the grid is unknown, has fewer than two times, or its times are not finite and strictly monotone.

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
        return pick("grid", grid, GRIDS, kind=())(steps)
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
    """Return the times of noise levels: σ = (1 − t) / t on a straight path, so that t = 1 / (1 + σ).

    The first time is moved to 0 and the last to 1, so that the first step also covers all levels above the highest, and
    the last step all levels below the lowest.
    """
    high, low = SIGMA_MAX ** (1 / RHO), SIGMA_MIN ** (1 / RHO)
    inner = [(high + n / max(1, steps - 1) * (low - high)) ** RHO for n in range(1, steps)]
    return (0.0, *(1 / (1 + sigma) for sigma in inner), 1.0)


def _ends(steps: int) -> tuple[float, ...]:
    return 0.0, 1.0


GRIDS: dict[str, Callable[[int], tuple[float, ...]]] = {"uniform": _uniform, "edm": _edm, ADAPTIVE: _ends}


def _in_precision(field: Callable[..., Tensor], args: tuple, *, field_dtype: torch.dtype, dtype: torch.dtype) -> Field:
    """Return the field as a function of states in ``dtype`` that evaluates in ``field_dtype``."""

    def evaluate(t: Tensor, x: Tensor) -> Tensor:
        slope = field(t, x, *args)
        if slope.shape != x.shape:
            raise ValueError(f"field gave shape {list(slope.shape)}; wanted that of x, {list(x.shape)}.")
        return slope

    if field_dtype == dtype:
        return evaluate
    return lambda t, x: evaluate(t.to(field_dtype), x.to(field_dtype)).to(dtype)


def _cast(arg: Any, dtype: torch.dtype) -> Any:
    return arg.to(dtype) if isinstance(arg, Tensor) and arg.is_floating_point() else arg
