"""Control inputs: a path through given values, which f asks for at any time, and which tells `solve` where it breaks.

A path that is not smooth costs a solver its order, and many rejected steps, unless steps end where it breaks. So a path
that is asked notes it with whoever is listening, and `solve` listens while it evaluates f for the first time.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import torch
from jaxtyping import Float64, Shaped
from torch import Tensor
from torch._C._functorch import get_unwrapped, is_batchedtensor, is_functorch_wrapped_tensor
from torch.autograd.forward_ad import unpack_dual
from torch.utils._pytree import GetAttrKey, register_pytree_node

from neuralode.core.registry import pick
from neuralode.inputs.queries import note
from neuralode.inputs.splines import SPLINES, Spline

Break = tuple[Tensor, Tensor]  # times, and whether f jumps at each: [S], or [rows, S]


def interpolate(
    times: Any,
    values: Tensor,
    kind: Literal["linear", "cubic", "step"] = "linear",
    *,
    rows: bool = False,
    stops: bool = True,
) -> Interpolation:
    """A path through ``values`` at ``times``, to be used inside of f: a control input, a forcing, a data path.

    `solve` finds out that f uses it, however f holds it, and makes its steps end where the path jumps or bends. Outside
    of its times a path stays at its first or last value.

    Parameters
    ----------
    times : Tensor[T] or Tensor[rows, T], or sequence of float
        Increasing, at least two. Kept in float64; constants, to which no gradient flows.
    values : Tensor[T, ...] or Tensor[rows, T, ...]
        Floating or complex, in the dtype in which f is to meet them. Gradients flow to them.
    kind : {"linear", "cubic", "step"}
        "linear": straight from value to value. "cubic": the natural cubic spline, with two continuous derivatives, the
        second zero at both ends (de Boor, *A Practical Guide to Splines*, 1978, chapter IV); solved here, once. "step":
        each value holds from its own time on.
    rows : bool
        Each row of the state has a path of its own: ``values`` leads with the rows. It is so too where ``times`` has
        two axes.
    stops : bool
        Let `solve` end its steps where the path jumps or bends: at the times of "step" and "linear"; of "cubic" at both
        ends only. Without, it finds them by rejecting steps, which costs less where times lie much closer than the
        tolerance asks for.

    Returns
    -------
    Interpolation
        ``u(t)`` is the value at t, ``u.derivative(t)`` its slope.

    Raises
    ------
    TypeError, ValueError
        For times that do not increase or have a gradient, values that are not finite, and shapes that do not fit.

    Examples
    --------
    A capacitor behind a resistor; the voltage is switched on at 1 and off at 2:

    >>> import torch, neuralode as node
    >>> u = node.interpolate([0.0, 1.0, 2.0], torch.tensor([0.0, 1.0, 0.0], dtype=torch.float64), "step")
    >>> sol = node.solve(lambda t, y: u(t) - y, torch.zeros(1).double(), (0.0, 2.0), rtol=1e-10, atol=1e-10)
    >>> round(sol.y1.item(), 8)  # 1 - exp(-1)
    0.63212056

    A controlled differential equation, dz = g(z) dx(t):

    >>> x = node.interpolate([0.0, 0.5, 1.0], torch.tensor([[0.0, 1.0], [1.0, 3.0], [2.0, 0.0]]), "cubic")
    >>> g = torch.nn.Linear(4, 4 * 2)
    >>> node.solve(lambda t, z: g(z).view(4, 2) @ x.derivative(t), torch.zeros(4), (0.0, 1.0)).y1.shape
    torch.Size([4])
    """
    spline = pick("kind", kind, SPLINES, Spline)
    knots, values = _check(times, values, rows)
    return Interpolation(knots, spline.through(knots, values), spline, stops)


@dataclass(frozen=True, eq=False)
class Interpolation:
    """A path, as `interpolate` makes it: a polynomial between each time and the next.

    It is a pytree. In ``args`` of `solve` gradients flow to it, and with ``args_dims=0`` the paths of rows go where
    their rows go. In `solve_ensemble` each member can have its own.

    Attributes
    ----------
    times : Tensor[T] or Tensor[rows, T]
        Where the polynomials meet.
    coefficients : Tensor[pieces, degree + 1, ...] or Tensor[rows, pieces, degree + 1, ...]
        Of the powers of the time since a piece began.
    spline : Spline
        What kind of path it is.
    stops : bool
        Whether `solve` ends its steps where it breaks.

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
    key: Any = field(default_factory=object, repr=False)  # tells whose copy a copy is
    _read: dict[torch.dtype, list[float]] = field(default_factory=dict, repr=False)

    def __call__(self, t: Any) -> Tensor:
        """The value at t.

        Parameters
        ----------
        t : float or Tensor
            A time, or any shape of times. Where each row has its own path: a time for all, [rows] or [rows, Q].

        Returns
        -------
        Tensor
            The shape of t, then that of one value. At a time for all rows [rows, ...].
        """
        note(self, "value")
        pieces, since, _ = self._at(t)
        return _polynomial(pieces, *(since,) * self.spline.degree)

    def derivative(self, t: Any) -> Tensor:
        """The slope at t, shaped as the value; zero outside of the times, and at a time that of what follows.

        Raises
        ------
        ValueError
            For a path in steps.
        """
        if not self.spline.degree:
            raise ValueError("a path of kind 'step' has no derivative; wanted kind 'linear' or 'cubic'.")
        note(self, "slope")
        pieces, since, outside = self._at(t)
        # Σ j c[j] s^(j-1) = c[1] + 2 s (c[2] + 3/2 s (c[3] + …))
        slope = _polynomial(pieces[1:], *(since * ((power + 1) / power) for power in range(1, self.spline.degree)))
        return slope.masked_fill(torch.as_tensor(outside, device=slope.device), 0) if outside is not False else slope

    def to(self, device: Any = None, dtype: torch.dtype | None = None) -> Interpolation:
        """The same path on another device, or with values of another dtype."""
        return replace(self, times=self.times.to(device), coefficients=self.coefficients.to(device, dtype))

    def _at(self, t: Any) -> tuple[Sequence[Tensor], Any, Any]:
        """The coefficients of the pieces at t, the time since they began, and whether it is outside of all times.

        The last two are numbers where t is one, or can be read as one: that costs a fraction (see `core.clock`).
        """
        if isinstance(t, Tensor) and not _is_number(t):
            return self._at_times(t)
        dtype, t = (t.dtype, t.item()) if isinstance(t, Tensor) else (torch.float64, float(t))
        if (knots := self._numbers(dtype)) is None:
            return self._at_times(torch.as_tensor(t, dtype=dtype, device=self.times.device))
        exact = self._numbers(torch.float64) or knots
        place = bisect_right(knots, t, 1, len(knots) - (self.spline.degree > 0)) - 1
        since = min(max(t, exact[0]), exact[-1]) - exact[place]
        own = self.times.dim() - 1
        return self.coefficients.select(own, place).unbind(own), since, not knots[0] <= t <= knots[-1]

    def _numbers(self, dtype: torch.dtype) -> list[float] | None:
        """The times as numbers in this precision; none where rows have their own, or a transform hides them."""
        times = None if torch.compiler.is_compiling() else bare(self.times)
        if times is None or (times.dim() == 2 and times.stride(0) and len(times) > 1):
            return None
        if dtype not in self._read:
            self._read[dtype] = (times if times.dim() == 1 else times[0]).to(dtype).tolist()
        return self._read[dtype]

    def _at_times(self, t: Tensor) -> tuple[Sequence[Tensor], Any, Any]:
        """The same at a tensor of times."""
        times, coefficients, own = self.times, self.coefficients, self.times.dim() == 2
        t = self._of_rows(t) if own else t
        # compared in the precision of t, so that a time is on the same side of a knot as the solver has it
        edges = (times[..., 1:-1] if self.spline.degree else times[..., 1:]).to(t.dtype)
        asked = t.detach().reshape(len(times), -1) if own else t.detach().reshape(-1)
        if hidden(times) or hidden(t):  # searchsorted would complain of how torch.vmap lays them out
            found = (edges.unsqueeze(-2) <= asked.unsqueeze(-1)).sum(-1)
        else:
            found = torch.searchsorted(edges.contiguous(), asked.contiguous(), right=True)
        shape, width = t.shape, coefficients.shape[1 + own :]
        if own:
            first = torch.arange(len(times), device=t.device)[:, None] * coefficients.shape[1]
            coefficients, flat = coefficients.flatten(0, 1), (found + first).reshape(-1)
        else:
            flat = found.reshape(-1)
        pieces = coefficients.index_select(0, flat).reshape(*shape, *width).unbind(t.dim())
        if not self.spline.degree:
            return pieces, 0.0, False
        begin = (times.gather(1, found) if own else times.index_select(0, flat)).reshape(shape)
        low, high = times[..., 0], times[..., -1]
        if own and t.dim() == 2:
            low, high = low[:, None], high[:, None]
        since = (t.to(torch.float64).clamp(low, high) - begin).to(coefficients.dtype)
        outside = (t < low.to(t.dtype)) | (t > high.to(t.dtype))
        wide = (..., *(None,) * (len(width) - 1))  # an axis for each of a value
        return pieces, since[wide], outside[wide]

    def _of_rows(self, t: Tensor) -> Tensor:
        rows = len(self.times)
        if t.dim() == 0:
            return t.expand(rows)
        if t.dim() > 2 or len(t) != rows:
            raise ValueError(
                f"a path of {rows} rows was asked at t of shape {list(t.shape)}; wanted a time for all, [{rows}] or "
                f"[{rows}, Q]. Where a solve asks for some rows only, pass the path in args, with args_dims=0."
            )
        return t

    def breaks(self, uses: set[str]) -> Break:
        """Where what f asked of it ("value", "slope") jumps or bends: times, and at which of them it jumps."""
        times = self.times.detach()
        if times.dim() == 2 and bool((times == times[:1]).all()):
            times = times[0]
        where, jumps = self.spline.breaks(times.shape[-1], uses)
        return times[..., where], torch.tensor(jumps, dtype=torch.bool, device=times.device).expand_as(
            times[..., where]
        )


def _named_leaves(u: Interpolation) -> tuple[list[tuple[Any, Any]], Any]:
    return [(GetAttrKey(name), getattr(u, name)) for name in ("times", "coefficients")], (u.spline, u.stops, u.key)


register_pytree_node(
    Interpolation,
    lambda u: ([u.times, u.coefficients], (u.spline, u.stops, u.key)),
    lambda leaves, context: Interpolation(*leaves, *context),
    flatten_with_keys_fn=_named_leaves,
)


def _is_number(t: Tensor) -> bool:
    """Whether a tensor is nothing but a number that the host can read without waiting for a device."""
    return (
        t.dim() == 0
        and t.device.type == "cpu"
        and not t.requires_grad
        and not torch.compiler.is_compiling()
        and not hidden(t)
        and unpack_dual(t).tangent is None
    )


def hidden(x: Tensor) -> bool:
    """Whether torch.func is at work on a tensor, so that not everything can be done with it."""
    return not torch.compiler.is_compiling() and is_functorch_wrapped_tensor(x)


def bare(x: Tensor) -> Tensor | None:
    """What torch.func is at work on, to read numbers from; none where there are many of it, as under `torch.vmap`."""
    while hidden(x):
        if is_batchedtensor(x):
            return None
        x = get_unwrapped(x)
    return x


def _polynomial(pieces: Sequence[Tensor], *ratios: Any) -> Tensor:
    """pieces[0] + ratios[0] · (pieces[1] + ratios[1] · (pieces[2] + …))."""
    *lower, total = pieces
    if not lower:
        return total.clone()  # a view of what is kept: f may write into its own
    for piece, ratio in zip(reversed(lower), reversed(ratios), strict=True):
        number = isinstance(ratio, float)
        total = torch.add(piece, total, alpha=ratio) if number else torch.addcmul(piece, total, ratio)
    return total


def _check(times: Any, values: Any, rows: bool) -> tuple[Tensor, Tensor]:
    """Times in float64, one row each where values have rows, and the values."""
    if not isinstance(values, Tensor):
        raise TypeError(f"values is a {type(values).__name__}; wanted a tensor (torch.as_tensor makes one).")
    if not (values.is_floating_point() or values.is_complex()):
        raise TypeError(f"values has dtype {values.dtype}; wanted floating or complex values, as values.float() gives.")
    if not isinstance(times, Tensor):
        times = torch.as_tensor(times, dtype=torch.float64)
    if not times.is_floating_point():
        raise TypeError(f"times has dtype {times.dtype}; wanted floating times, as times.double() gives.")
    if times.requires_grad:
        raise ValueError(
            "times has a gradient, and none flows to the times of a path (steps end there, as constants); wanted "
            "times.detach()."
        )
    if times.dim() not in (1, 2):
        raise ValueError(f"times has shape {list(times.shape)}; wanted [T], or [rows, T] for a path of each row.")
    times = times.to(device=values.device, dtype=torch.float64)
    rows = rows or times.dim() == 2
    if times.shape[-1] < 2:
        raise ValueError(f"times has {times.shape[-1]} entries; wanted at least two, with a value for each.")
    lead = values.shape[: 1 + rows]
    if len(lead) < 1 + rows or lead[-1] != times.shape[-1] or (times.dim() == 2 and lead[0] != len(times)):
        wanted = f"[{len(times) if times.dim() == 2 else 'rows'}, " * rows + "["[rows:] + f"{times.shape[-1]}, ...]"
        hint = "" if rows or values.dim() < 2 else " (rows=True if each row has a path of its own)"
        raise ValueError(
            f"values has shape {list(values.shape)} for times {list(times.shape)}; wanted {wanted}, one value for each "
            f"time{hint}."
        )
    _check_numbers(times, values.detach(), rows)
    return times.expand(lead), values


def _check_numbers(times: Tensor, values: Tensor, rows: bool) -> None:
    """Refuse times that do not increase and numbers that are none."""
    if not bool(times.isfinite().all()):
        raise ValueError(f"times holds {times[~times.isfinite()][0].item()}; wanted finite times.")
    falls = times.diff(dim=-1) <= 0
    if bool(falls.any()):
        *row, place = falls.nonzero()[0].tolist()
        before, after = times[(*row, place)].item(), times[(*row, place + 1)].item()
        raise ValueError(
            f"times goes from {before!r} to {after!r} at place {place}{f' of row {row[0]}' if row else ''}; wanted "
            "times that strictly increase."
        )
    broken = ~values.isfinite().flatten(1 + rows).all(-1) if values.dim() > 1 + rows else ~values.isfinite()
    if bool(broken.any()):
        *row, place = broken.nonzero()[0].tolist()
        raise ValueError(
            f"values holds a number that is not finite at place {place}{f' of row {row[0]}' if row else ''}, of "
            f"{int(broken.sum())} such places; wanted finite values: leave out the times at which nothing was seen, or "
            "fill them."
        )
