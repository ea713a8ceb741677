"""Dense output: evaluating the interpolants of many steps at many times in one go."""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float64, Shaped
from torch import Tensor

from neuralode.core.clock import column
from neuralode.core.layout import Layout
from neuralode.core.record import AcceptedStep, StepBatch, StepOutputs


def horner(coefficients: Shaped[Tensor, "coefficients ..."], theta: Tensor) -> Tensor:
    """Σ C[j] θ^j, with θ shaped to broadcast against C[0]."""
    *lower, total = coefficients.unbind()
    for coefficient in reversed(lower):
        total = torch.addcmul(coefficient, total, theta)
    return total


def interpolate_outputs(step: AcceptedStep, coefficients: Tensor, t: Any, h: Any, times: Tensor) -> Tensor:
    """The states at the output times that fall on one step, which begins at ``t`` and is ``h`` long.

    ``times`` are all output times: [outputs], or [rows, outputs] for the rows of this step. Returns [reads, rows,
    features] on a shared clock, [reads, features] where each read is of one row.
    """
    assert step.step_outputs is not None
    outputs, rows, _ = step.step_outputs
    if rows is None:
        theta = ((times[outputs] - t) / h).to(coefficients.dtype)
        return horner(coefficients[:, None], theta[:, None, None])
    theta = (times[rows, outputs] - t[rows]) / h[rows]
    return horner(coefficients[:, rows], column(theta, coefficients))


def outputs_within(
    output_times: list[float], first_output: int, direction: float, t: float, t1: float, h: float
) -> StepOutputs | None:
    """The outputs of a shared clock after t, up to and with t1 = t + h.

    ``output_times`` lie in the direction of integration; the first of them belongs to output ``first_output``.
    """
    low, high = bisect_right(output_times, t * direction), bisect_right(output_times, t1 * direction)
    if high == low:
        return None
    thetas = tuple((mark * direction - t) / h for mark in output_times[low:high])
    return StepOutputs(slice(first_output + low, first_output + high), None, thetas)


def find_step_outputs(step_batch: StepBatch, times: Tensor, direction: float, reached: Tensor) -> StepBatch:
    """Which output times of a per-sample chunk, which ``reached`` these times, fall on which of its steps.

    Times are matched to the last attempt that began before them: a rejected attempt begins where the next one does.
    """
    if not step_batch.steps:
        return step_batch
    own = times if step_batch.rows is None else times[step_batch.rows]
    begun = torch.stack([step.t for step in step_batch.steps]) * direction
    target = own * direction
    # the end itself is landed on, not read
    inside = (target > begun[0][:, None]) & (target <= (reached * direction)[:, None]) & (own != own[:, -1:])
    rows, outputs = inside.nonzero().unbind(1)
    place = (begun[:, rows] < target[rows, outputs]).sum(0) - 1
    order = place.argsort(stable=True)
    counts = torch.bincount(place, minlength=len(step_batch.steps)).tolist()
    pairs = zip(rows[order].split(counts), outputs[order].split(counts), strict=True)
    steps = [
        step._replace(step_outputs=StepOutputs(which, row) if len(row) else None)
        for step, (row, which) in zip(step_batch.steps, pairs, strict=True)
    ]
    return step_batch._replace(steps=steps)


def _evaluate(coefficients: Tensor, theta: Tensor, trailing: int) -> Tensor:
    """Horner within the pieces; NaN beyond the last, where a solve that failed says nothing, and without a gradient."""
    beyond = (theta > 1 + 1e-6)[(...,) + (None,) * trailing].to(coefficients.device)
    theta = theta[(...,) + (None,) * trailing].to(coefficients)
    return horner(coefficients, torch.where(beyond, 0, theta)).masked_fill(beyond, torch.nan)


@dataclass(frozen=True)
class DenseOutput:
    """The pieces of a solution, to be evaluated anywhere.

    On a shared clock piece n spans ``t[n]`` to ``t[n] + h[n]`` for all rows: ``coefficients[n, degree + 1, rows,
    features]``. Per sample ``row`` says whose each piece is: ``coefficients[n, degree + 1, features]``.
    """

    layout: Layout
    coefficients: Tensor
    t: Float64[Tensor, " pieces"]
    h: Float64[Tensor, " pieces"]
    direction: float
    row: Tensor | None = None

    def __call__(self, times: Float64[Tensor, "*queries"]) -> Tensor:
        """Packed states [queries, rows, features]; per sample ``times`` may be [rows, queries]."""
        return self._shared(times) if self.row is None else self._per_sample(times)

    def _shared(self, times: Tensor) -> Tensor:
        start = self.t.detach() * self.direction
        place = (torch.searchsorted(start, times.detach() * self.direction, right=True) - 1).clamp(min=0)
        theta = (times - self.t[place]) / self.h[place]
        place = place.to(self.coefficients.device)
        chosen = self.coefficients[place].movedim(1, 0)
        return _evaluate(chosen, theta, 2)

    def _per_sample(self, times: Tensor) -> Tensor:
        assert self.row is not None
        rows = self.layout.rows
        times = times.to(self.t.device)
        own = times if times.dim() == 2 else times.expand(rows, -1)
        order = self.row.argsort(stable=True)  # by row, and in time within it
        counts = torch.bincount(self.row, minlength=rows)
        offset = counts.cumsum(0) - counts
        table = self.t.new_full((rows, int(counts.max()) if rows else 0), torch.inf)
        table[self.row[order], torch.arange(len(order), device=order.device) - offset[self.row[order]]] = (
            self.t.detach()[order] * self.direction
        )
        within = torch.searchsorted(table, (own.detach() * self.direction).contiguous(), right=True) - 1
        within = torch.minimum(within.clamp(min=0), (counts - 1).clamp(min=0)[:, None])
        place = order[(offset[:, None] + within).T]  # [queries, rows]
        theta = (own.T - self.t[place]) / self.h[place]
        chosen = self.coefficients[place].movedim(2, 0)
        return _evaluate(chosen, theta, 1)

    def then(self, *others: DenseOutput) -> DenseOutput:
        """The pieces of all, where each begins at the end of the one before."""
        parts = (self, *others)
        degree = max(part.coefficients.shape[1] for part in parts)
        rows = [part.row for part in parts if part.row is not None]
        return DenseOutput(
            self.layout,
            torch.cat([_padded(part.coefficients, degree) for part in parts]),
            torch.cat([part.t for part in parts]),
            torch.cat([part.h for part in parts]),
            parts[-1].direction,
            torch.cat(rows) if len(rows) == len(parts) else None,
        )


def _padded(coefficients: Tensor, degree: int) -> Tensor:
    """With zeros for the powers that a constant piece does not have."""
    missing = list(coefficients.shape)
    missing[1] = degree - missing[1]
    return torch.cat((coefficients, coefficients.new_zeros(missing)), 1)
