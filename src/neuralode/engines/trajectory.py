"""The trajectory of step-wise engines: a record of accepted steps, whose derivatives are those of the steps."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from neuralode.core.outputs import Outputs
from neuralode.core.problem import Problem
from neuralode.core.record import Record, number_places
from neuralode.core.status import GradientError
from neuralode.engines.base import SolveConfig, TrajectoryData
from neuralode.engines.pullback import pull_back, pull_back_with_graph
from neuralode.engines.retake import accepted_rows, rerun


@dataclass(frozen=True)
class RecordedTrajectory(TrajectoryData):
    """A `Trajectory` that keeps its accepted steps."""

    @classmethod
    def of(cls, record: Record, outputs: Outputs, config: SolveConfig) -> RecordedTrajectory:
        """Make the trajectory of a finished solve loop."""
        problem, plan = outputs.problem, outputs.plan
        if plan.dense or plan.save_steps:
            record.step_batches = number_places(record.step_batches, problem.layout.rows, problem.layout.device)
        leaves = (_step_states(problem, record),) if plan.save_steps else tuple(outputs.buffers or ())
        if plan.dense:
            leaves = (*leaves, _coefficients(problem, record))
        return cls(problem=problem, config=config, plan=plan, record=record, leaves=leaves, spec=outputs.spec)

    def pullback(self, cotangents: Sequence[Tensor | None]) -> list[Tensor | None]:
        """Return the cotangents of y0, t and the captured tensors: one recorded step at a time, backwards."""
        self._require("pullback", kept=self.plan.keeps_states, wanted="pullback=True")
        return pull_back(self, cotangents)

    def pullback_with_graph(self, cotangents: Sequence[Tensor | None]) -> list[Tensor | None]:
        """Return the same with a graph."""
        self._require("pullback_with_graph", kept=self.plan.keeps_states, wanted="pullback=True")
        return pull_back_with_graph(self, cotangents)

    def rerun(self) -> list[Tensor]:
        """Return the leaves with a graph: the recorded steps, taken again."""
        self._require("rerun", kept=self.plan.keeps_steps, wanted="keep_states=True")
        return rerun(self)

    def _require(self, member: str, *, kept: bool, wanted: str) -> None:
        """Refuse derivatives of steps that were not kept: without them all cotangents of f would be lost."""
        if not kept:
            raise GradientError(
                f"gradient {self.config.gradient.name!r} calls Trajectory.{member} of a solve that kept no steps; "
                f"wanted {wanted} in the Plan that its `plan` returns."
            )


def _step_states(problem: Problem, record: Record) -> Tensor:
    """Return y0 and the state after every accepted step: [steps + 1, rows, features]; rows may have fewer."""
    y0 = problem.y0.detach()
    if not problem.per_sample:
        return torch.stack([y0, *(step.y1 for _, step in record.steps)])
    count = int(record.accepted.max()) if isinstance(record.accepted, Tensor) and len(y0) else 0
    states = y0.expand(count + 1, *y0.shape).clone()
    for batch, step in record.steps:
        states[step.stop, accepted_rows(batch, step)] = step.y1[step.accept]
    return states


def _coefficients(problem: Problem, record: Record) -> Tensor:
    """Return the coefficients of all pieces: [pieces, degree + 1, rows, features], without rows for per-row clocks."""
    parts = [
        step.coefficients[None] if step.accept is None else step.coefficients[:, step.accept].transpose(0, 1)
        for _, step in record.steps
    ]
    if parts:
        return torch.cat(parts)
    y0 = problem.y0.detach()
    return y0.new_zeros((0, 2, *y0.shape[1 if problem.per_sample else 0 :]))
