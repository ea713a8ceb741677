"""Scaled error norms: the size of an error relative to the tolerances, one ratio for each clock.

Errors are reduced here; whether states are finite is checked in the engines.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal, TypeAlias

import torch
from jaxtyping import Float
from torch import Tensor

from neuralode.core.layout import Layout
from neuralode.core.registry import pick
from neuralode.core.types import PyTree, Tolerance

# A function of the pytree of scaled errors that returns one number, or one for each row.
Reduction: TypeAlias = Callable[[PyTree], Tensor]


@dataclass(frozen=True)
class Norm:
    """The norm of an error, scaled by the tolerances.

    Each element of the error is divided by ``atol + rtol * max(|y|, |y1|)``. The scaled errors are reduced over each
    leaf (on a shared clock over its rows as well), then by the maximum over leaves. Complex errors count by modulus.

    Parameters
    ----------
    layout : Layout
        How the state is packed.
    rtol, atol : float or Tensor[rows, features]
        Tolerances, packed as the state. Tensors [1, features] apply to all rows.
    per_sample : bool
        Return one ratio for each row, rather than one for all.
    reduction : {"rms", "max"} or callable, default="rms"
        The root mean square, the maximum, or a function of the pytree of scaled errors that returns one number (one
        for each row with ``per_sample``).
    leaves : tuple of int, default=None
        Indices of the leaves that count; all if None. A callable ``reduction`` and a single leaf ignore it.
    """

    layout: Layout
    rtol: float | Tensor
    atol: float | Tensor
    per_sample: bool
    reduction: Literal["rms", "max"] | Reduction = "rms"
    leaves: tuple[int, ...] | None = None

    def __call__(self, error: Tensor | tuple[Tensor, Tensor], y: Tensor, y1: Tensor) -> Float[Tensor, "*clocks"]:
        """Return the ratio of an error to the tolerances of a step from y to y1; at most 1 is within tolerance.

        A pair of estimates, the second of lower order, is combined by `corrected`.
        """
        largest = y.abs() if y1 is y else torch.maximum(y.abs(), y1.abs())
        scale = largest.mul_(self.rtol).add_(self.atol)
        if isinstance(error, tuple):
            high, low = error
            return corrected(self._size(high / scale), self._size(low / scale))
        return self._size(error / scale)

    def _size(self, scaled: Tensor) -> Tensor:
        """Reduce scaled errors over all leaves: one number for each clock."""
        if callable(self.reduction):
            return self.reduction(self.layout.unpack(scaled)).to(torch.float64)
        layout = self.layout
        if len(layout.leaves) == 1:
            return self._reduce(scaled)
        counted = layout.leaves if self.leaves is None else [layout.leaves[i] for i in self.leaves]
        sizes = [self._reduce(scaled[:, leaf.start : leaf.stop]) for leaf in counted if leaf.width]
        return torch.stack(sizes).amax(0) if sizes else self._reduce(scaled[:, :0])

    def _reduce(self, scaled: Tensor) -> Tensor:
        """Reduce the columns of one leaf."""
        count = scaled.shape[1] if self.per_sample else scaled.numel()
        axis = 1 if self.per_sample else None
        if count == 0:
            return scaled.new_zeros(scaled.shape[:1] if self.per_sample else (), dtype=torch.float64)
        if self.reduction == "max":
            return torch.linalg.vector_norm(scaled, torch.inf, axis)
        return torch.linalg.vector_norm(scaled, 2, axis) / count**0.5

    def take(self, rows: Tensor) -> Norm:
        """Return the norm of some rows, with tolerances that differ by row gathered."""
        if not any(isinstance(x, Tensor) and x.shape[0] > 1 for x in (self.rtol, self.atol)):
            return self
        rtol, atol = (
            x.index_select(0, rows) if isinstance(x, Tensor) and x.shape[0] > 1 else x for x in (self.rtol, self.atol)
        )
        return replace(self, rtol=rtol, atol=atol)


def corrected(high: Tensor, low: Tensor) -> Tensor:
    """Return the error estimate of DOP853, ``high² / √(high² + low² / 100)``, from estimates of two orders.

    For short steps the estimate of lower order is much larger, and the result is of a higher order than either
    estimate. For steps outside the asymptotic regime the result is about ``high`` (Hairer, Nørsett & Wanner I, II.10).

    Examples
    --------
    >>> corrected(torch.tensor([3.0, 0.0]), torch.tensor([40.0, 0.0]))
    tensor([1.8000, 0.0000], dtype=torch.float64)
    """
    high, low = high.to(torch.float64), low.to(torch.float64)
    total = high * high + low * low / 100
    return torch.where(total == 0, total, high * high / total.sqrt())


def check_reduction(reduction: Literal["rms", "max"] | Reduction) -> Literal["rms", "max"] | Reduction:
    """Return the reduction; refuse unknown names."""
    return reduction if callable(reduction) else pick("norm", reduction, table={"rms": "rms", "max": "max"}, kind=())


def check_tolerances(rtol: Tolerance, atol: Tolerance, layout: Layout) -> tuple[float | Tensor, float | Tensor]:
    """Return packed tolerances; refuse negative ones, and warn of an rtol that the dtype of the state cannot resolve.

    Raises
    ------
    ValueError
        If a tolerance is negative, not finite, or does not broadcast against the state, or if both are 0.
    """
    packed, bounds = [], []
    for name, value in (("rtol", rtol), ("atol", atol)):
        try:
            tolerance = layout.broadcast(value)
        except (TypeError, ValueError, RuntimeError) as error:
            raise ValueError(
                f"{name}={value!r} does not broadcast against y0; wanted a number, a tensor that broadcasts against "
                "each leaf, or a pytree of these like y0."
            ) from error
        extremes = _extremes(tolerance)
        if isinstance(value, bool) or not all(math.isfinite(x) and x >= 0 for x in extremes):
            raise ValueError(f"{name}={value!r}; wanted finite tolerances that are not negative.")
        packed.append(tolerance)
        bounds.append(extremes)
    if max(*bounds[0], *bounds[1]) == 0 and layout.rows and layout.features:
        raise ValueError("rtol and atol are both 0; wanted at least one above 0.")
    least, finest = bounds[0][0], 10 * torch.finfo(layout.dtype).eps
    if 0 < least < finest:
        warnings.warn(
            f"rtol={least:.1e} is below 10 eps of {layout.dtype} ({finest:.1e}): rounding will decide the steps. "
            "Use a float64 state for such tolerances.",
            stacklevel=3,
        )
    return packed[0], packed[1]


def _extremes(tolerance: float | Tensor) -> tuple[float, float]:
    """Return the smallest and the largest tolerance; zeros for an empty state."""
    if not isinstance(tolerance, Tensor):
        return tolerance, tolerance
    if not tolerance.numel():
        return 0.0, 0.0
    least, largest = tolerance.aminmax()
    return float(least), float(largest)
