"""The outputs of a solve while it goes by: buffers that steps write into, whatever is saved of the state."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import TreeSpec, tree_flatten

from neuralode.core.dense_output import interpolate_outputs
from neuralode.core.problem import Problem
from neuralode.core.record import Plan, StepBatch, StepOutputs


def save_state(problem: Problem, plan: Plan, t: Tensor, y: Tensor, rows: Tensor | None) -> tuple[list[Tensor], Any]:
    """What is kept of packed states: themselves, or the leaves of the user's function of them.

    Shared clock: ``t [n]`` and ``y [n, rows, features]``. Per sample: ``t [n]`` and ``y [n, features]``, each of one
    row.
    """
    if plan.save is None:
        return [y], None
    layout, field = problem.layout, problem.field
    if problem.per_sample:
        field = field if rows is None else field.take(rows)
        return _tensors(plan.save(t.to(field.time_dtype), layout.unpack(y), *field.args), len(t))
    kept = [
        _tensors(plan.save(s.to(field.time_dtype), layout.unpack(x), *field.args)) for s, x in zip(t, y, strict=True)
    ]
    return [torch.stack(parts) for parts in zip(*(leaves for leaves, _ in kept), strict=True)], kept[0][1]


def _tensors(saved: Any, rows: int | None = None) -> tuple[list[Tensor], TreeSpec]:
    """The leaves of what the user's function returned, if they can be kept."""
    leaves, spec = tree_flatten(saved)
    for leaf in leaves or [None]:
        if not isinstance(leaf, Tensor):
            raise TypeError(f"save(t, y) returned a {type(leaf).__name__}; wanted tensors, or a pytree of them.")
        if rows is not None and leaf.shape[:1] != (rows,):
            raise ValueError(
                f"save(t, y) returned shape {list(leaf.shape)} for {rows} rows; per_sample=True wants a leading axis "
                "of one entry a row."
            )
    return leaves, spec


class Outputs:
    """One buffer a kept leaf: [outputs, …] on a shared clock, [outputs, rows, …] per sample; NaN until written."""

    def __init__(self, problem: Problem, plan: Plan) -> None:
        self.problem, self.plan = problem, plan
        self.buffers: list[Tensor] | None = None
        self.spec: TreeSpec | None = None

    def start(self, y: Tensor) -> None:
        """Write the outputs that are y0 itself."""
        problem = self.problem
        self._at(problem.at_start() if problem.per_sample else slice(0, problem.inner.start), y)

    def end(self, y: Tensor, reached_end: Any) -> None:
        """Write the outputs that are the final state of clocks that arrived."""
        problem = self.problem
        if problem.per_sample:
            self._at(problem.at_end() & reached_end[:, None], y)
        elif reached_end:
            self._at(slice(problem.inner.stop, problem.outputs), y)

    def read(self, step_batch: StepBatch) -> None:
        """Write what falls on the steps of a chunk."""
        times: Any = self.problem.times if step_batch.rows is None else self.problem.times[step_batch.rows]
        for step in step_batch.steps:
            if step.step_outputs is not None:
                y = (
                    step.inner
                    if step.inner is not None
                    else interpolate_outputs(step, step.coefficients, step.t, step.h, times)
                )
                self._write(*global_place(step_batch, step.step_outputs), y)

    def _at(self, outputs: Any, y: Tensor) -> None:
        if isinstance(outputs, slice):
            count = outputs.stop - outputs.start
            self._write(outputs, None, y.expand(count, *y.shape))
        else:
            rows, outputs = outputs.nonzero().unbind(1)
            self._write(outputs, rows, y[rows])

    def _write(self, outputs: Any, rows: Tensor | None, y: Tensor) -> None:
        if not len(y) and (rows is None or self.buffers is not None):
            return
        if self.plan.save is None:
            kept = [y]
        else:
            kept, self.spec = save_state(self.problem, self.plan, self._times(outputs, rows), y, rows)
        if self.buffers is None:
            lead = (self.problem.outputs,) if rows is None else (self.problem.outputs, self.problem.layout.rows)
            self.buffers = [_blank(x, (*lead, *x.shape[1:])) for x in kept]
        for buffer, x in zip(self.buffers, kept, strict=True):
            buffer[outputs if rows is None else (outputs, rows)] = x

    def _times(self, outputs: Any, rows: Tensor | None) -> Tensor:
        times = self.problem.t.detach().to(self.problem.y0.device)
        return times[outputs] if rows is None else times[rows, outputs]


def global_place(step_batch: StepBatch, step_outputs: StepOutputs) -> tuple[slice | Tensor, Tensor | None]:
    """Outputs and rows of the whole problem that the reads of a step stand for."""
    if step_outputs.rows is None or step_batch.rows is None:
        return step_outputs.outputs, step_outputs.rows
    return step_outputs.outputs, step_batch.rows[step_outputs.rows]


def _blank(like: Tensor, shape: tuple[int, ...]) -> Tensor:
    hollow = torch.nan if like.is_floating_point() or like.is_complex() else 0
    return torch.full(shape, hollow, dtype=like.dtype, device=like.device)
