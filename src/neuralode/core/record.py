"""The record of a solve: the plan of what to keep, the accepted steps, and where each row ended."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor

from neuralode.core.clock import Flag, Number
from neuralode.core.types import UserFunction


@dataclass(frozen=True)
class Plan:
    """What an engine keeps while it integrates, for outputs and for gradients.

    Parameters
    ----------
    inner_outputs : bool, default=False
        Some output times lie strictly between the ends.
    dense : bool, default=False
        Keep the interpolation coefficients of every accepted step.
    save_steps : bool, default=False
        Every accepted step is an output.
    save : callable, default=None
        Keep ``save(t, y, *args)`` at the output times instead of the state.
    pullback : bool, default=False
        The trajectory must give cotangents of its inputs (`Trajectory.pullback`). Step-wise engines then keep states
        as with ``keep_states``.
    keep_states : bool, default=False
        Keep the state before every ``keep_every``-th recorded step; the count restarts for each set of rows.
    keep_every : int, default=1
        The number of recorded steps for each kept state.
    memory : {"step", "stage"}, default="step"
        Whether a pullback keeps the activations of one step or of one evaluation of f.
    event_slopes : bool, default=False
        Compute the time derivative of event functions at their zeros.
    on_batch : callable, default=None
        Receives every batch of accepted steps; the batches are then not recorded.
    """

    inner_outputs: bool = False
    dense: bool = False
    save_steps: bool = False
    save: UserFunction | None = None
    pullback: bool = False
    keep_states: bool = False
    keep_every: int = 1
    memory: Literal["step", "stage"] = "step"
    event_slopes: bool = False
    on_batch: Callable[[StepBatch], None] | None = None

    @property
    def keeps_states(self) -> bool:
        """Whether states before steps are kept: for themselves, or for the pullback that needs them."""
        return self.keep_states or self.pullback

    @property
    def keeps_steps(self) -> bool:
        """Whether accepted steps are recorded."""
        return self.keeps_states or self.save_steps or self.dense


class StepOutputs(NamedTuple):
    """The output times within one step: which outputs, and of which rows.

    On a shared clock ``rows`` is None (all rows) and ``thetas`` holds the positions within the step, from 0 to 1.
    """

    outputs: slice | Tensor
    rows: Tensor | None
    thetas: tuple[float, ...] = ()


class StepEdges(NamedTuple):
    """The end of a step, and whether f is discontinuous at its two ends."""

    t1: Number
    jump_before: Flag
    jump_after: Flag


class AcceptedStep(NamedTuple):
    """One recorded step: on a shared clock an accepted one; per row any attempt, which the rows in ``accept`` took.

    Fields from ``y`` on are None unless the plan keeps them; they are `Any` because only code that planned for them
    reads them.
    """

    t: Number
    h: Number  # signed; 0 for rows that did not accept
    reaches_end: Flag  # h = end − t
    accept: Tensor | None  # [rows]; None on a shared clock
    y: Any = None  # [rows, features]: the state before the step
    method_state: Any = None  # of a method with memory, before the step
    y1: Any = None  # [rows, features]: the state after the step
    coefficients: Any = None  # [degree + 1, rows, features]
    inner: Any = None  # states at its output times, on a shared clock
    step_outputs: StepOutputs | None = None
    piece: Any = None  # its index, or indices by row, among the pieces of the dense output
    stop: Any = None  # the index, or indices by row, of its new state among the outputs of save="steps"
    past_stop: Flag = False  # a stop was passed before, so t does not depend on the start of the solve
    ends_at_stop: Flag = False  # t + h is a stop
    edges: StepEdges | None = None


class Occurrence(NamedTuple):
    """A zero of an event function: of the whole state, or of some rows."""

    event: int  # index of the event function
    terminal: bool
    rows: Tensor | None
    t: Number
    y: Tensor
    slope: Number | None = None  # time derivative of the event function along the solution


class StepBatch(NamedTuple):
    """Steps of the same rows (None: all rows), and the time and state after them."""

    rows: Tensor | None
    steps: list[AcceptedStep]
    end: Tensor
    t: Number
    occurrences: tuple[Occurrence, ...] = ()


@dataclass
class Record:
    """The recorded steps of a solve, in order, and where every row ended.

    ``t``, ``h``, ``status``, ``attempts``, ``accepted`` and ``evaluations`` are clock numbers: Python numbers on a
    shared clock, tensors [rows] otherwise.
    """

    y: Tensor  # [rows, features]
    t: Number
    h: Number
    status: int | Tensor
    attempts: int | Tensor = 0
    accepted: int | Tensor = 0
    evaluations: Number = 0  # of f in attempts
    calls: int = 0  # of f, each for all rows at once
    started: int = 1  # evaluations of each row before its first attempt
    step_batches: list[StepBatch] = field(default_factory=list)
    occurrences: list[Occurrence] = field(default_factory=list)

    def add(self, batch: StepBatch, plan: Plan) -> None:
        """Record the parts of a batch that the plan keeps; states before every ``keep_every``-th step only."""
        past: list[AcceptedStep] = []
        if self.step_batches and self.step_batches[-1].rows is batch.rows:
            past = self.step_batches.pop().steps
        for step in batch.steps:
            keep = plan.keeps_states and len(past) % plan.keep_every == 0
            past.append(
                step._replace(
                    y=step.y if keep else None,
                    method_state=step.method_state if keep else None,
                    y1=step.y1 if plan.save_steps else None,
                    inner=None,
                    coefficients=step.coefficients if plan.dense else None,
                )
            )
        self.step_batches.append(batch._replace(steps=past, occurrences=()))

    @property
    def steps(self) -> list[tuple[StepBatch, AcceptedStep]]:
        """Every recorded step with its batch, in order."""
        return [(batch, step) for batch in self.step_batches for step in batch.steps]


class CallCount:
    """A count of calls of f that grows while derivatives are taken."""

    def __init__(self) -> None:
        self.value = 0

    def add(self, calls: int) -> None:
        """Count some calls."""
        self.value += calls


def number_places(step_batches: list[StepBatch], rows: int, device: torch.device) -> list[StepBatch]:
    """Number the pieces of the dense output (``piece``) and the outputs of ``save="steps"`` (``stop``).

    On a shared clock both count steps. Per row, pieces count accepted (step, row) pairs in order of time, and stops
    count the steps of each row.
    """
    piece, stop = 0, 1
    row_stops = torch.ones(rows, dtype=torch.int64, device=device)
    numbered = []
    for step_batch in step_batches:
        steps = []
        for step in step_batch.steps:
            if step.accept is None:
                steps.append(step._replace(piece=piece, stop=stop))
                piece, stop = piece + 1, stop + 1
            else:
                rows_in_batch = step.accept.nonzero()[:, 0]
                accepted = rows_in_batch if step_batch.rows is None else step_batch.rows[rows_in_batch]
                pieces = torch.arange(piece, piece + len(accepted), device=device)
                steps.append(step._replace(piece=pieces, stop=row_stops[accepted]))
                row_stops[accepted] += 1
                piece += len(accepted)
        numbered.append(step_batch._replace(steps=steps))
    return numbered


def constant_clocks(step_batches: list[StepBatch]) -> list[StepBatch]:
    """Detach times and step sizes: transforms would differentiate the choice of steps as well."""

    def constant(x: Number) -> Number:
        return x.detach() if isinstance(x, Tensor) else x

    return [
        step_batch._replace(steps=[step._replace(t=constant(step.t), h=constant(step.h)) for step in step_batch.steps])
        for step_batch in step_batches
    ]
