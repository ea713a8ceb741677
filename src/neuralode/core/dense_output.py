"""Dense output: the interpolants of all steps, evaluated at any time."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float64, Shaped
from torch import Tensor

from neuralode.core.layout import Layout


def horner(coefficients: Shaped[Tensor, "coefficients ..."], theta: Tensor) -> Tensor:
    """Return Σ C[j] θ^j, with θ shaped to broadcast against C[0]."""
    *lower, total = coefficients.unbind()
    for coefficient in reversed(lower):
        total = torch.addcmul(coefficient, total, theta)
    return total


def _evaluate(coefficients: Tensor, theta: Tensor, trailing: int) -> Tensor:
    """Return the interpolants at θ; NaN without a gradient beyond the last piece of a failed solve."""
    beyond = (theta > 1 + 1e-6)[(...,) + (None,) * trailing].to(coefficients.device)
    theta = theta[(...,) + (None,) * trailing].to(coefficients)
    return horner(coefficients, torch.where(beyond, 0, theta)).masked_fill(beyond, torch.nan)


@dataclass(frozen=True)
class DenseOutput:
    """A piecewise polynomial solution.

    Parameters
    ----------
    layout : Layout
        How states are packed.
    coefficients : Tensor[pieces, degree + 1, rows, features] or Tensor[pieces, degree + 1, features]
        Coefficients of θ⁰, θ¹, … on each piece: for all rows on a shared clock, for one row otherwise.
    t, h : Tensor[pieces]
        Piece n spans ``t[n]`` to ``t[n] + h[n]``.
    direction : {1.0, -1.0}
        Direction of integration.
    row : LongTensor[pieces], default=None
        The row of each piece, where every row has a clock.
    """

    layout: Layout
    coefficients: Tensor
    t: Float64[Tensor, " pieces"]
    h: Float64[Tensor, " pieces"]
    direction: float
    row: Tensor | None = None

    def __call__(self, times: Float64[Tensor, "*queries"]) -> Tensor:
        """Return packed states [queries, rows, features]; ``times`` may be [rows, queries] with per-row clocks."""
        return self._shared(times) if self.row is None else self._per_sample(times)

    def _shared(self, times: Tensor) -> Tensor:
        """Evaluate all rows at the same times."""
        start = self.t.detach() * self.direction
        place = (torch.searchsorted(start, times.detach() * self.direction, right=True) - 1).clamp(min=0)
        theta = (times - self.t[place]) / self.h[place]
        place = place.to(self.coefficients.device)
        chosen = self.coefficients[place].movedim(1, 0)
        return _evaluate(chosen, theta, 2)

    def _per_sample(self, times: Tensor) -> Tensor:
        """Evaluate each row on its own pieces."""
        assert self.row is not None
        rows = self.layout.rows
        times = times.to(self.t.device)
        times = times if times.dim() == 2 else times.expand(rows, -1)
        order = self.row.argsort(stable=True)  # by row, and in time within it
        counts = torch.bincount(self.row, minlength=rows)
        offset = counts.cumsum(0) - counts
        table = self.t.new_full((rows, int(counts.max()) if rows else 0), torch.inf)
        table[self.row[order], torch.arange(len(order), device=order.device) - offset[self.row[order]]] = (
            self.t.detach()[order] * self.direction
        )
        within = torch.searchsorted(table, (times.detach() * self.direction).contiguous(), right=True) - 1
        within = torch.minimum(within.clamp(min=0), (counts - 1).clamp(min=0)[:, None])
        place = order[(offset[:, None] + within).T]  # [queries, rows]
        theta = (times.T - self.t[place]) / self.h[place]
        chosen = self.coefficients[place].movedim(2, 0)
        return _evaluate(chosen, theta, 1)

    def then(self, *others: DenseOutput) -> DenseOutput:
        """Concatenate solutions, each of which begins at the end of the one before."""
        parts = (self, *others)
        degree = max(part.coefficients.shape[1] for part in parts)
        rows = [part.row for part in parts if part.row is not None]
        return DenseOutput(
            layout=self.layout,
            coefficients=torch.cat([_padded(part.coefficients, degree) for part in parts]),
            t=torch.cat([part.t for part in parts]),
            h=torch.cat([part.h for part in parts]),
            direction=parts[-1].direction,
            row=torch.cat(rows) if len(rows) == len(parts) else None,
        )


def _padded(coefficients: Tensor, degree: int) -> Tensor:
    """Pad coefficients with zeros up to a degree."""
    missing = list(coefficients.shape)
    missing[1] = degree - missing[1]
    return torch.cat((coefficients, coefficients.new_zeros(missing)), 1)
