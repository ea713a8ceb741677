"""How large an error is against what is tolerated: one number a clock. Every reduction over states is made here."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

import torch
from jaxtyping import Float
from torch import Tensor

from neuralode.core.layout import Layout
from neuralode.core.registry import pick

Reduction: TypeAlias = Callable[[Any], Tensor]


@dataclass(frozen=True)
class Norm:
    """The scaled size of an error.

    Each number of ``error`` is divided by ``atol + rtol · max(|y|, |y1|)`` and what results is reduced: over each leaf,
    and over the rows as well on a shared clock; the leaves by the largest.

    Parameters
    ----------
    layout : Layout
        How the state is packed.
    rtol, atol : float or Tensor[rows, features]
        Tolerances, packed as the state.
    per_sample : bool
        One ratio for each row, or one for all.
    reduction : {"rms", "max"} or callable
        The root of the mean square, the largest, or a function of the pytree of scaled errors that returns one number
        (one a row with ``per_sample``). Complex errors count once, by their modulus.
    leaves : tuple of int, optional
        The leaves that count, by position; all unless given.
    """

    layout: Layout
    rtol: Any
    atol: Any
    per_sample: bool
    reduction: str | Reduction = "rms"
    leaves: tuple[int, ...] | None = None

    def __call__(self, error: Tensor | tuple[Tensor, Tensor], y: Tensor, y1: Tensor) -> Float[Tensor, "*clocks"]:
        """The ratio: at most 1 means tolerated.

        Two estimates of one error, the second of a lower order, have a ratio each, of which the first is `corrected` by
        the second.
        """
        largest = y.abs() if y1 is y else torch.maximum(y.abs(), y1.abs())
        scale = largest.mul_(self.rtol).add_(self.atol)
        if isinstance(error, tuple):
            high, low = error
            return corrected(self._size(high / scale), self._size(low / scale))
        return self._size(error / scale)

    def _size(self, scaled: Tensor) -> Tensor:
        """One number a clock, over all leaves."""
        if callable(self.reduction):
            return self.reduction(self.layout.unpack(scaled)).to(torch.float64)
        layout = self.layout
        if len(layout.leaves) == 1:
            return self._reduce(scaled)
        counted = layout.leaves if self.leaves is None else [layout.leaves[i] for i in self.leaves]
        sizes = [self._reduce(scaled[:, leaf.start : leaf.stop]) for leaf in counted if leaf.width]
        return torch.stack(sizes).amax(0) if sizes else self._reduce(scaled[:, :0])

    def _reduce(self, scaled: Tensor) -> Tensor:
        count = scaled.shape[1] if self.per_sample else scaled.numel()
        axis = 1 if self.per_sample else None
        if count == 0:
            return scaled.new_zeros(scaled.shape[:1] if self.per_sample else (), dtype=torch.float64)
        if self.reduction == "max":
            return torch.linalg.vector_norm(scaled, torch.inf, axis)
        return torch.linalg.vector_norm(scaled, 2, axis) / count**0.5

    def take(self, rows: Tensor) -> Norm:
        """The norm of some rows: tolerances that differ by row are gathered along."""
        if not any(isinstance(x, Tensor) and x.shape[0] > 1 for x in (self.rtol, self.atol)):
            return self
        rtol, atol = (
            x.index_select(0, rows) if isinstance(x, Tensor) and x.shape[0] > 1 else x for x in (self.rtol, self.atol)
        )
        return replace(self, rtol=rtol, atol=atol)


def corrected(high: Tensor, low: Tensor) -> Tensor:
    """What DOP853 takes for the error of its step: ``high² / √(high² + low² / 100)``, of its estimates of two orders.

    Of a short step the low estimate is the larger one by far, and this is of a higher order than either; of a step too
    long for orders to show it is about the high estimate (Hairer, Nørsett & Wanner I, II.10).

    Examples
    --------
    >>> corrected(torch.tensor([3.0, 0.0]), torch.tensor([40.0, 0.0]))
    tensor([1.8000, 0.0000], dtype=torch.float64)
    """
    high, low = high.to(torch.float64), low.to(torch.float64)
    total = high * high + low * low / 100
    return torch.where(total == 0, total, high * high / total.sqrt())


def check_reduction(reduction: Any) -> Any:
    """Refuse what is neither a known name nor a callable."""
    return reduction if callable(reduction) else pick("norm", reduction, {"rms": "rms", "max": "max"}, ())


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
