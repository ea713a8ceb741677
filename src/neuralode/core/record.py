"""What a solve keeps of the steps it took, and for whom."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from torch import Tensor

from neuralode.core.clock import Flag, Number


@dataclass(frozen=True)
class Plan:
    """What must be kept while the solve goes by.

    ``inside``: some output times lie strictly between the ends. ``dense``: every step's interpolation coefficients.
    ``steps``: every step's new state is an output. ``replay``: the state before every ``every``-th step, for a
    gradient. ``save``: keep this function of the state at the output times, instead of the state. ``slopes``: how fast
    event functions change where they are zero, for the gradient of those times.
    """

    inside: bool = False
    dense: bool = False
    steps: bool = False
    replay: bool = False
    every: int = 1
    save: Callable[..., Any] | None = None
    slopes: bool = False


class StepOutputs(NamedTuple):
    """Output times that fall on one step: which outputs, and of which of its rows.

    On a shared clock of all of them (``rows`` is None), at these ``thetas`` between 0 and 1.
    """

    outputs: Any  # slice or Tensor
    rows: Tensor | None
    thetas: tuple[float, ...] = ()


class AcceptedStep(NamedTuple):
    """One step that was accepted on all its clocks, or on those that ``accept`` marks."""

    t: Number
    h: Number  # signed; 0 where it was not accepted
    reaches_end: Flag  # h = end − t
    accept: Any  # the clocks that accepted it; None on a shared one
    # what follows is there if the plan wants it
    y: Any = None
    method_state: Any = None  # beside y, of a method with memory
    y1: Any = None
    coefficients: Any = None
    inner: Any = None  # the states at its reads, on a shared clock
    step_outputs: StepOutputs | None = None
    piece: Any = None  # its place, or places by row, among the pieces of the dense output
    stop: Any = None  # the place, or places by row, of its new state among the outputs, with save="steps"
    # where steps have to end at stated times
    past_stop: Flag = False  # a stop has been passed: t does not move with the start of the solve
    ends_at_stop: Flag = False  # t + h is a stop
    edges: tuple[Number, Flag, Flag] | None = None  # t + h, and whether f jumps where it begins, where it ends


class Occurrence(NamedTuple):
    """An event function that was found to be zero: of the whole state, or of some rows."""

    event: int  # which event
    terminal: bool
    rows: Tensor | None
    t: Number
    y: Tensor
    slope: Number = None  # how fast the event function changes there along the solution


class StepBatch(NamedTuple):
    """Steps taken by the same rows (``None``: all of them), and the time and state that they end in."""

    rows: Tensor | None
    steps: list[AcceptedStep]
    end: Tensor | None = None
    t: Number = None
    occurrences: tuple[Occurrence, ...] = ()


@dataclass
class Record:
    """The chunks of a solve, in order, and where every row ended.

    ``status``, ``accepted`` … are per clock: plain numbers on a shared one.
    """

    step_batches: list[StepBatch] = field(default_factory=list)
    y: Any = None
    t: Any = None
    h: Any = None
    status: Any = None
    attempts: Any = 0
    accepted: Any = 0
    calls: int = 0  # of f, whole batches
    cost: Any = 0  # evaluations of f in attempts, per clock
    occurrences: list[Occurrence] = field(default_factory=list)
    started: int = 1  # evaluations of each row before its first attempt

    def add(self, step_batch: StepBatch, plan: Plan) -> None:
        """Keep of a chunk what the plan wants: of the states, those before every k-th step of the same rows."""
        past: list[AcceptedStep] = []
        if self.step_batches and self.step_batches[-1].rows is step_batch.rows:
            past = self.step_batches.pop().steps
        for step in step_batch.steps:
            spare = plan.replay and len(past) % plan.every == 0
            past.append(
                step._replace(
                    y=step.y if spare else None,
                    method_state=step.method_state if spare else None,
                    y1=step.y1 if plan.steps else None,
                    inner=None,
                    coefficients=step.coefficients if plan.dense else None,
                )
            )
        self.step_batches.append(StepBatch(step_batch.rows, past, step_batch.end, step_batch.t))


def number_places(step_batches: list[StepBatch], rows: int, device: torch.device) -> list[StepBatch]:
    """Give every accepted step its place in the dense output and among the outputs of ``save="steps"``.

    On a shared clock places count steps. Per sample, pieces count accepted (step, row) pairs in the order they came,
    and stops count each row's own steps.
    """
    piece, stop = 0, 1
    own = torch.ones(rows, dtype=torch.int64, device=device)
    numbered = []
    for step_batch in step_batches:
        steps = []
        for step in step_batch.steps:
            if step.accept is None:
                steps.append(step._replace(piece=piece, stop=stop))
                piece, stop = piece + 1, stop + 1
            else:
                local = step.accept.nonzero()[:, 0]
                total = local if step_batch.rows is None else step_batch.rows[local]
                pieces = torch.arange(piece, piece + len(local), device=device)
                steps.append(step._replace(piece=pieces, stop=own[total]))
                own[total] += 1
                piece += len(local)
        numbered.append(step_batch._replace(steps=steps))
    return numbered


def constant_clocks(step_batches: list[StepBatch]) -> list[StepBatch]:
    """The same steps at times and of lengths that are constants: transforms follow also how steps were chosen."""

    def constant(x: Number) -> Number:
        return x.detach() if isinstance(x, Tensor) else x

    return [
        step_batch._replace(steps=[step._replace(t=constant(step.t), h=constant(step.h)) for step in step_batch.steps])
        for step_batch in step_batches
    ]
