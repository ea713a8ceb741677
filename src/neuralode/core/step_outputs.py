"""Assign output times to the steps that contain them, and interpolate the states there."""

from __future__ import annotations

from bisect import bisect_right
from typing import NamedTuple

import torch
from torch import Tensor

from neuralode.core.clock import Number, column, per_row
from neuralode.core.dense_output import horner
from neuralode.core.problem import Problem
from neuralode.core.record import AcceptedStep, StepBatch, StepOutputs


class OutputTimes(NamedTuple):
    """The inner output times of a shared clock."""

    ahead: tuple[float, ...] = ()  # times multiplied by the direction, increasing
    first: int = 0  # the index of the first of them among all outputs
    direction: float = 1.0

    @classmethod
    def of(cls, problem: Problem) -> OutputTimes:
        """Return the inner output times of a problem; none where every row has a clock."""
        if isinstance(problem.times, Tensor):
            return cls()
        ahead = tuple(t * problem.direction for t in problem.times[problem.inner])
        return cls(ahead, problem.inner.start, problem.direction)

    def within(self, t: float, t1: float, h: float) -> StepOutputs | None:
        """Return the outputs after t, up to and including t1 = t + h."""
        low, high = bisect_right(self.ahead, t * self.direction), bisect_right(self.ahead, t1 * self.direction)
        if high == low:
            return None
        thetas = tuple((time * self.direction - t) / h for time in self.ahead[low:high])
        return StepOutputs(slice(self.first + low, self.first + high), None, thetas)


def assign_outputs(batch: StepBatch, problem: Problem) -> StepBatch:
    """Assign the output times of each row, up to the time that the batch reached, to the steps of the batch.

    A time belongs to the last attempt that began before it: a rejected attempt begins where the next one does.
    """
    if not batch.steps:
        return batch
    assert isinstance(problem.times, Tensor), "a clock for each row"
    times = problem.times if batch.rows is None else problem.times[batch.rows]
    begins = torch.stack([per_row(step.t) for step in batch.steps]) * problem.direction
    ahead, reached = times * problem.direction, per_row(batch.t) * problem.direction
    # The end itself is the final state, not an interpolated one.
    inside = (ahead > begins[0][:, None]) & (ahead <= reached[:, None]) & (times != times[:, -1:])
    rows, outputs = inside.nonzero().unbind(1)
    index = (begins[:, rows] < ahead[rows, outputs]).sum(0) - 1
    order = index.argsort(stable=True)
    counts = torch.bincount(index, minlength=len(batch.steps)).tolist()
    pairs = zip(rows[order].split(counts), outputs[order].split(counts), strict=True)
    steps = [
        step._replace(step_outputs=StepOutputs(columns, row) if len(row) else None)
        for step, (row, columns) in zip(batch.steps, pairs, strict=True)
    ]
    return batch._replace(steps=steps)


def interpolate_outputs(step: AcceptedStep, coefficients: Tensor, *, t: Number, h: Number, times: Tensor) -> Tensor:
    """Return the states at the output times within a step that begins at ``t`` and has the signed size ``h``.

    ``times`` holds all output times: [outputs], or [rows, outputs] for the rows of this step. The result is
    [times, rows, features] on a shared clock, otherwise [times, features] with one row for each time.
    """
    assert step.step_outputs is not None
    outputs, rows, _ = step.step_outputs
    if rows is None:
        theta = ((times[outputs] - t) / h).to(coefficients.dtype)
        return horner(coefficients[:, None], theta[:, None, None])
    theta = (times[rows, outputs] - per_row(t)[rows]) / per_row(h)[rows]
    return horner(coefficients[:, rows], column(theta, coefficients))
