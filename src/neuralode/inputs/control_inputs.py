"""Control inputs: known functions of time, given by values at some times, that f evaluates at any time."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

from neuralode.core.registry import pick
from neuralode.inputs.interpolation import Interpolation
from neuralode.inputs.splines import SPLINES, Spline


def interpolate(
    times: Tensor | Sequence[float],
    values: Tensor,
    kind: Literal["linear", "cubic", "step"] = "linear",
    *,
    rows: bool = False,
    stops: bool = True,
) -> Interpolation:
    """Interpolate ``values`` at ``times``, for use inside f: a control input, a forcing term, a data path.

    `solve` finds the interpolations that f uses, however f holds them, and ends its steps where they jump or have a
    kink. Outside its times an interpolation keeps its first or last value.

    Parameters
    ----------
    times : Tensor[T], Tensor[rows, T] or sequence of float
        Strictly increasing, at least two. Kept in float64; constants that receive no gradient.
    values : Tensor[T, ...] or Tensor[rows, T, ...]
        Floating or complex, in the dtype that f expects. Gradients flow to them.
    kind : {"linear", "cubic", "step"}, default="linear"
        "linear": piecewise linear. "cubic": the natural cubic spline, with two continuous derivatives and a second
        derivative of zero at both ends (de Boor, *A Practical Guide to Splines*, 1978, chapter IV); its coefficients
        are computed once, here. "step": each value holds from its time on.
    rows : bool, default=False
        Each row of the state has its own values; the first axis of ``values`` is the rows. Implied by ``times`` with
        two axes.
    stops : bool, default=True
        Let `solve` end its steps where the interpolation jumps or has a kink: at all times of "step" and "linear", at
        both ends of "cubic". Without, the solver finds these places by rejecting steps, which costs less where times
        lie much closer together than the tolerance requires.

    Returns
    -------
    Interpolation
        ``u(t)`` is the value at t, ``u.derivative(t)`` the derivative.

    Raises
    ------
    TypeError, ValueError
        If times do not increase or require a gradient, values are not finite, or shapes do not match.

    Examples
    --------
    A capacitor behind a resistor, whose voltage is switched on at 1 and off at 2:

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
    spline = pick("kind", kind, table=SPLINES, kind=Spline)
    _check_values(values)
    knots = _knots(times, values)
    rows = rows or knots.dim() == 2
    _check_shapes(knots, values, rows)
    _check_increasing(knots)
    _check_finite(values.detach(), rows)
    knots = knots.expand(values.shape[: 1 + rows])
    return Interpolation(times=knots, coefficients=spline.fit(knots, values), spline=spline, stops=stops)


def _check_values(values: Tensor) -> None:
    if not isinstance(values, Tensor):
        raise TypeError(f"values is a {type(values).__name__}; wanted a tensor (torch.as_tensor makes one).")
    if not (values.is_floating_point() or values.is_complex()):
        raise TypeError(f"values has dtype {values.dtype}; wanted floating or complex values, as values.float() gives.")


def _knots(times: Tensor | Sequence[float], values: Tensor) -> Tensor:
    """Return times as a constant float64 tensor on the device of the values, [T] or [rows, T]."""
    if not isinstance(times, Tensor):
        times = torch.as_tensor(times, dtype=torch.float64)
    if not times.is_floating_point():
        raise TypeError(f"times has dtype {times.dtype}; wanted floating times, as times.double() gives.")
    if times.requires_grad:
        raise ValueError(
            "times requires a gradient, but no gradient flows to the times of an interpolation (they are constants at "
            "which steps end); wanted times.detach()."
        )
    if times.dim() not in (1, 2):
        raise ValueError(f"times has shape {list(times.shape)}; wanted [T], or [rows, T] for times of each row.")
    if times.shape[-1] < 2:
        raise ValueError(f"times has {times.shape[-1]} entries; wanted at least two, with a value for each.")
    return times.to(device=values.device, dtype=torch.float64)


def _check_shapes(times: Tensor, values: Tensor, rows: bool) -> None:
    """Refuse values that do not have one entry for each time, row by row where there are rows."""
    count, shape = times.shape[-1], values.shape[: 1 + rows]
    own_times = times.dim() == 2
    if len(shape) == 1 + rows and shape[-1] == count and not (own_times and shape[0] != len(times)):
        return
    leading = f"{len(times) if own_times else 'rows'}, " if rows else ""
    hint = "" if rows or values.dim() < 2 else " (rows=True if each row has its own values)"
    raise ValueError(
        f"values has shape {list(values.shape)} for times {list(times.shape)}; wanted [{leading}{count}, ...], one "
        f"value for each time{hint}."
    )


def _check_increasing(times: Tensor) -> None:
    if not bool(times.isfinite().all()):
        raise ValueError(f"times holds {times[~times.isfinite()][0].item()}; wanted finite times.")
    falls = times.diff(dim=-1) <= 0
    if bool(falls.any()):
        *row, index = falls.nonzero()[0].tolist()
        before, after = times[(*row, index)].item(), times[(*row, index + 1)].item()
        raise ValueError(
            f"times goes from {before!r} to {after!r} at index {index}{_of_row(row)}; wanted strictly increasing times."
        )


def _check_finite(values: Tensor, rows: bool) -> None:
    broken = ~values.isfinite().flatten(1 + rows).all(-1) if values.dim() > 1 + rows else ~values.isfinite()
    if bool(broken.any()):
        *row, index = broken.nonzero()[0].tolist()
        raise ValueError(
            f"values holds a number that is not finite at index {index}{_of_row(row)}, one of {int(broken.sum())} such "
            "places; wanted finite values: leave out the times without a measurement, or fill them."
        )


def _of_row(row: list[int]) -> str:
    return f" of row {row[0]}" if row else ""
