"""The outputs of a solve: buffers that are filled while steps are taken."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch.utils._pytree import TreeSpec, tree_flatten

from neuralode.core.clock import per_row
from neuralode.core.problem import Problem
from neuralode.core.record import Plan, StepBatch, StepOutputs
from neuralode.core.step_outputs import interpolate_outputs
from neuralode.core.types import PyTree


class OutputIndex(NamedTuple):
    """Which outputs of a problem, and of which rows: all rows on a shared clock, else one row for each output."""

    outputs: slice | Tensor
    rows: Tensor | None = None

    @classmethod
    def of(cls, batch: StepBatch, within: StepOutputs) -> OutputIndex:
        """Return the outputs within a step, with rows counted among all rows."""
        if within.rows is None or batch.rows is None:
            return cls(within.outputs, within.rows)
        return cls(within.outputs, batch.rows[within.rows])

    @property
    def place(self) -> tuple[slice | Tensor, ...]:
        """The index into a leaf [outputs, …] or [outputs, rows, …]."""
        return (self.outputs,) if self.rows is None else (self.outputs, self.rows)

    def times(self, t: Tensor) -> Tensor:
        """Select from output times [outputs] or [rows, outputs]."""
        return t[self.outputs] if self.rows is None else t[self.rows, self.outputs]


class SavedLeaves(NamedTuple):
    """The outputs of some states: the states themselves, or the leaves of what ``save`` returned for them."""

    leaves: list[Tensor]
    spec: TreeSpec | None = None


def save_states(problem: Problem, plan: Plan, *, t: Tensor, y: Tensor, rows: Tensor | None) -> SavedLeaves:
    """Return the outputs of packed states.

    On a shared clock ``t`` is [n] and ``y`` [n, rows, features]. Otherwise ``y`` is [n, features], with one row
    for each output.
    """
    if plan.save is None:
        return SavedLeaves([y])
    layout, field = problem.layout, problem.field
    if problem.per_sample:
        field = field if rows is None else field.take(rows)
        return _leaves_of(plan.save(t.to(field.time_dtype), layout.unpack(y), *field.args), len(t))
    saved = [
        _leaves_of(plan.save(time.to(field.time_dtype), layout.unpack(state), *field.args))
        for time, state in zip(t, y, strict=True)
    ]
    return SavedLeaves([torch.stack(parts) for parts in zip(*(x.leaves for x in saved), strict=True)], saved[0].spec)


def _leaves_of(saved: PyTree, rows: int | None = None) -> SavedLeaves:
    """Check and flatten what the user's function returned."""
    leaves, spec = tree_flatten(saved)
    for leaf in leaves or [None]:
        if not isinstance(leaf, Tensor):
            raise TypeError(f"save(t, y) returned a {type(leaf).__name__}; wanted tensors, or a pytree of them.")
        if rows is not None and leaf.shape[:1] != (rows,):
            raise ValueError(
                f"save(t, y) returned shape {list(leaf.shape)} for {rows} rows; per_sample=True requires a leading "
                "axis with one entry for each row."
            )
    return SavedLeaves(leaves, spec)


class Outputs:
    """One buffer for each saved leaf: [outputs, …] on a shared clock, else [outputs, rows, …].

    NaN until written; 0 for integers and booleans.
    """

    def __init__(self, problem: Problem, plan: Plan) -> None:
        self.problem, self.plan = problem, plan
        self.buffers: list[Tensor] | None = None
        self.spec: TreeSpec | None = None

    def write_start(self, y: Tensor) -> None:
        """Write the outputs that are y0 itself."""
        problem = self.problem
        if problem.per_sample:
            self._write_rows(problem.at_start(), y)
        else:
            self._write_all(slice(0, problem.inner.start), y)

    def write_end(self, y: Tensor, succeeded: bool | Tensor) -> None:
        """Write the outputs that are the final state, of clocks that succeeded."""
        problem = self.problem
        if isinstance(succeeded, Tensor):
            self._write_rows(problem.at_end() & succeeded[:, None], y)
        elif succeeded:
            self._write_all(slice(problem.inner.stop, problem.outputs), y)

    def write_batch(self, batch: StepBatch) -> None:
        """Write the outputs within the steps of a batch."""
        for step in batch.steps:
            if step.step_outputs is None:
                continue
            y = step.inner
            if y is None:
                times = per_row(self.problem.times) if batch.rows is None else per_row(self.problem.times)[batch.rows]
                y = interpolate_outputs(step, step.coefficients, t=step.t, h=step.h, times=times)
            self._write(OutputIndex.of(batch, step.step_outputs), y)

    def _write_all(self, outputs: slice, y: Tensor) -> None:
        self._write(OutputIndex(outputs), y.expand(outputs.stop - outputs.start, *y.shape))

    def _write_rows(self, chosen: Tensor, y: Tensor) -> None:
        rows, outputs = chosen.nonzero().unbind(1)
        self._write(OutputIndex(outputs, rows), y[rows])

    def _write(self, index: OutputIndex, y: Tensor) -> None:
        if not len(y) and (index.rows is None or self.buffers is not None):
            return
        saved = SavedLeaves([y])
        if self.plan.save is not None:
            t = index.times(self.problem.t.detach().to(self.problem.y0.device))
            saved = save_states(self.problem, self.plan, t=t, y=y, rows=index.rows)
            self.spec = saved.spec
        if self.buffers is None:
            lead = (self.problem.outputs,) if index.rows is None else (self.problem.outputs, self.problem.layout.rows)
            self.buffers = [_blank(x, (*lead, *x.shape[1:])) for x in saved.leaves]
        for buffer, x in zip(self.buffers, saved.leaves, strict=True):
            buffer[index.place] = x


def _blank(like: Tensor, shape: tuple[int, ...]) -> Tensor:
    empty = torch.nan if like.is_floating_point() or like.is_complex() else 0
    return torch.full(shape, empty, dtype=like.dtype, device=like.device)
