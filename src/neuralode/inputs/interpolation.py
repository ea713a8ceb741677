"""Piecewise polynomials of time, which record their evaluations so that `solve` can end steps where they break.

A right-hand side that is not smooth costs a method its order, and many rejected steps, unless steps end at its
breakpoints. `solve` therefore records which interpolations f evaluates, when it evaluates f for the first time.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import torch
from jaxtyping import Bool, Float64, Shaped
from torch import Tensor
from torch.utils._pytree import GetAttrKey, register_pytree_node

from neuralode.inputs.interpolation_queries import Quantity, record_query
from neuralode.inputs.splines import Spline
from neuralode.inputs.transformed_tensors import is_host_number, is_wrapped, unwrapped


class Breakpoints(NamedTuple):
    """The times at which a control input breaks, and whether f is discontinuous at each."""

    times: Float64[Tensor, " times"] | Float64[Tensor, "rows times"]
    jumps: Bool[Tensor, " times"] | Bool[Tensor, "rows times"]


@dataclass(frozen=True, eq=False)
class Interpolation:
    """A piecewise polynomial of time, made by `interpolate`.

    It is a pytree: in ``args`` of `solve` gradients flow to it, and with ``args_dims=0`` the interpolations of finished
    rows leave the batch with their rows. In `solve_ensemble` each member can have its own.

    Attributes
    ----------
    times : Tensor[T] or Tensor[rows, T]
        The knots, in float64.
    coefficients : Tensor[pieces, degree + 1, ...] or Tensor[rows, pieces, degree + 1, ...]
        Coefficients of the powers of the time since the piece began, in ascending order.
    spline : Spline
        The kind of piecewise polynomial.
    stops : bool, default=True
        Whether `solve` ends its steps at the breakpoints.

    Examples
    --------
    >>> import torch, neuralode as node
    >>> u = node.interpolate([0.0, 1.0, 3.0], torch.tensor([0.0, 2.0, 6.0]))
    >>> u(0.5).item(), u.derivative(0.5).item(), u(9.0).item()
    (1.0, 2.0, 6.0)
    """

    times: Float64[Tensor, " times"] | Float64[Tensor, "rows times"]
    coefficients: Shaped[Tensor, "pieces degree *value"] | Shaped[Tensor, "rows pieces degree *value"]
    spline: Spline
    stops: bool = True
    key: object = field(default_factory=object, repr=False)  # shared by all copies
    _float_times: dict[torch.dtype, list[float]] = field(default_factory=dict, repr=False)

    def __call__(self, t: float | Tensor) -> Tensor:
        """Return the value at t.

        Parameters
        ----------
        t : float or Tensor
            A time, or times of any shape. If each row has its own values: one time for all rows, [rows] or [rows, Q].

        Returns
        -------
        Tensor
            The shape of t followed by that of one value; [rows, ...] at one time for all rows.
        """
        record_query(self, "value")
        at = self._pieces(t)
        return _polynomial(at.coefficients, *(at.since,) * self.spline.degree)

    def derivative(self, t: float | Tensor) -> Tensor:
        """Return the time derivative at t, shaped like the value.

        It is zero outside the times; at a knot it is the derivative to the right.

        Raises
        ------
        ValueError
            For kind "step".
        """
        if not self.spline.degree:
            raise ValueError("an interpolation of kind 'step' has no derivative; wanted kind 'linear' or 'cubic'.")
        record_query(self, "derivative")
        at = self._pieces(t)
        # Σ j c[j] s^(j-1) = c[1] + 2 s (c[2] + 3/2 s (c[3] + …))
        ratios = (at.since * ((power + 1) / power) for power in range(1, self.spline.degree))
        slope = _polynomial(at.coefficients[1:], *ratios)
        if at.outside is False:
            return slope
        return slope.masked_fill(torch.as_tensor(at.outside, device=slope.device), 0)

    def to(self, device: torch.device | str | None = None, dtype: torch.dtype | None = None) -> Interpolation:
        """Return the interpolation on another device, or with values of another dtype."""
        return replace(self, times=self.times.to(device), coefficients=self.coefficients.to(device, dtype))

    def breakpoints(self, used: Collection[Quantity]) -> Breakpoints:
        """Return the breakpoints of an f that uses the value, the derivative or both."""
        times = self.times.detach()
        if times.dim() == 2 and bool((times == times[:1]).all()):
            times = times[0]
        which, jumps = self.spline.breakpoints(times.shape[-1], used)
        times = times[..., which]
        return Breakpoints(times, torch.tensor(jumps, dtype=torch.bool, device=times.device).expand_as(times))

    def _pieces(self, t: float | Tensor) -> _Pieces:
        """Return the pieces at t; at a single time by numbers on the host, which cost a fraction of tensors."""
        if isinstance(t, Tensor) and not is_host_number(t):
            return self._pieces_at_times(t)
        dtype, t = (t.dtype, t.item()) if isinstance(t, Tensor) else (torch.float64, float(t))
        if (knots := self._knots(dtype)) is None:
            return self._pieces_at_times(torch.as_tensor(t, dtype=dtype, device=self.times.device))
        exact = self._knots(torch.float64) or knots
        index = bisect_right(knots, t, lo=1, hi=len(knots) - (self.spline.degree > 0)) - 1
        since = min(max(t, exact[0]), exact[-1]) - exact[index]
        axis = self.times.dim() - 1
        return _Pieces(self.coefficients.select(axis, index).unbind(axis), since, not knots[0] <= t <= knots[-1])

    def _knots(self, dtype: torch.dtype) -> list[float] | None:
        """Return the times rounded to ``dtype``; None if rows differ or a transform hides the numbers."""
        times = None if torch.compiler.is_compiling() else unwrapped(self.times)
        if times is None or (times.dim() == 2 and times.stride(0) and len(times) > 1):
            return None
        if dtype not in self._float_times:
            self._float_times[dtype] = (times if times.dim() == 1 else times[0]).to(dtype).tolist()
        return self._float_times[dtype]

    def _pieces_at_times(self, t: Tensor) -> _Pieces:
        times, coefficients, by_row = self.times, self.coefficients, self.times.dim() == 2
        t = self._row_times(t) if by_row else t
        index = self._piece_index(t)
        shape, value_shape = t.shape, coefficients.shape[1 + by_row :]
        if by_row:
            first = torch.arange(len(times), device=t.device)[:, None] * coefficients.shape[1]
            coefficients, flat = coefficients.flatten(0, 1), (index + first).reshape(-1)
        else:
            flat = index.reshape(-1)
        pieces = coefficients.index_select(0, flat).reshape(*shape, *value_shape).unbind(t.dim())
        if not self.spline.degree:
            return _Pieces(pieces, 0.0, False)
        begin = (times.gather(1, index) if by_row else times.index_select(0, flat)).reshape(shape)
        low, high = times[..., 0], times[..., -1]
        if by_row and t.dim() == 2:
            low, high = low[:, None], high[:, None]
        since = (t.to(torch.float64).clamp(low, high) - begin).to(coefficients.dtype)
        outside = (t < low.to(t.dtype)) | (t > high.to(t.dtype))
        expand = (..., *(None,) * (len(value_shape) - 1))  # an axis for each axis of a value
        return _Pieces(pieces, since[expand], outside[expand])

    def _piece_index(self, t: Tensor) -> Tensor:
        """Return the index of the piece at each time: [times], or [rows, times] if each row has its own."""
        by_row = self.times.dim() == 2
        # Compare in the dtype of t, so that a time lies on the same side of a knot as for the solver.
        edges = (self.times[..., 1:-1] if self.spline.degree else self.times[..., 1:]).to(t.dtype)
        at = t.detach().reshape(len(self.times), -1) if by_row else t.detach().reshape(-1)
        if is_wrapped(self.times) or is_wrapped(t):  # searchsorted warns of the memory layout under torch.vmap
            return (edges.unsqueeze(-2) <= at.unsqueeze(-1)).sum(-1)
        return torch.searchsorted(edges.contiguous(), at.contiguous(), right=True)

    def _row_times(self, t: Tensor) -> Tensor:
        rows = len(self.times)
        if t.dim() == 0:
            return t.expand(rows)
        if t.dim() > 2 or len(t) != rows:
            raise ValueError(
                f"an interpolation of {rows} rows was evaluated at t of shape {list(t.shape)}; wanted one time for all "
                f"rows, [{rows}] or [{rows}, Q]. If a solve evaluates some rows only, pass the interpolation in args, "
                "with args_dims=0."
            )
        return t


class _Pieces(NamedTuple):
    """The polynomials at some times."""

    coefficients: Sequence[Tensor]  # of ascending powers
    since: float | Tensor  # the time since the piece began
    outside: bool | Tensor  # whether the time is before the first knot or after the last


def _polynomial(coefficients: Sequence[Tensor], *ratios: float | Tensor) -> Tensor:
    """Return c[0] + ratios[0] · (c[1] + ratios[1] · (c[2] + …))."""
    *lower, total = coefficients
    if not lower:
        return total.clone()  # not a view of the stored coefficients, so that f may write into it
    for coefficient, ratio in zip(reversed(lower), reversed(ratios), strict=True):
        if isinstance(ratio, Tensor):
            total = torch.addcmul(coefficient, total, ratio)
        else:
            total = torch.add(coefficient, total, alpha=ratio)
    return total


_LEAVES = ("times", "coefficients")
_Context = tuple[Spline, bool, object]


def _flatten(u: Interpolation) -> tuple[list[Tensor], _Context]:
    return [u.times, u.coefficients], (u.spline, u.stops, u.key)


def _flatten_with_keys(u: Interpolation) -> tuple[list[Any], _Context]:
    leaves, context = _flatten(u)
    return [(GetAttrKey(name), leaf) for name, leaf in zip(_LEAVES, leaves, strict=True)], context


register_pytree_node(
    Interpolation,
    _flatten,
    lambda leaves, context: Interpolation(*leaves, *context),
    flatten_with_keys_fn=_flatten_with_keys,
)
