"""Locate the zeros of event functions within an accepted step, and end the step at a terminal one."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from neuralode.controllers.base import StepProposal
from neuralode.core.clock import EPS, Flag, Number, negate, per_row, some, where
from neuralode.core.dense_output import horner
from neuralode.core.record import Occurrence
from neuralode.engines.base import SolveContext, SolverState
from neuralode.methods.base import Step, StepStart

HALVINGS = 100  # iterations of the root search at most; far fewer are needed
CORRECTIONS = 8  # corrections of the size of a step that ends at a zero, at most
RESOLUTION = 4 * EPS  # relative to t


class LocatedEvents(NamedTuple):
    """An accepted step with its events."""

    step: Step
    proposal: StepProposal
    ended: Flag  # clocks that a terminal event ends
    values: tuple[Number, ...]  # of the event functions at the end of the step
    occurrences: tuple[Occurrence, ...] = ()


class Crossing(NamedTuple):
    """Whether an event function changes sign within the step, and at which θ."""

    crossed: Flag
    theta: Number


class TerminalEvent(NamedTuple):
    """The clocks that end within the step, and the first terminal event of each."""

    ended: Flag
    theta: Number
    event: Number  # its index


def locate_events(
    context: SolveContext,
    state: SolverState,
    start: StepStart,
    *,
    step: Step,
    proposal: StepProposal,
    accept: Flag,
) -> LocatedEvents:
    """Look for zeros on an accepted step; take the step again to end at a terminal event."""
    events, before = context.config.events, state.event_values
    values = _values(context, state, t=proposal.t1, y=step.y1, accept=accept)
    none = accept & negate(accept)
    if not any(some(accept & e.crosses(a, b)) for e, a, b in zip(events, before, values, strict=True)):
        return LocatedEvents(step, proposal, none, values=values)
    accept = accept & _finite(step.y1, accept)
    interior = StepInterior(context, state, start, step=step)
    crossings = interior.crossings(accept, before, values)
    terminal = _first_terminal(context, crossings, none)
    occurrences: list[Occurrence] = []
    interpolants = 1
    if some(terminal.ended):
        step, h, slopes = _end_step_at(context, state, start, step=step, interior=interior, terminal=terminal)
        start, ended = start._replace(h=h), terminal.ended
        t1 = where(ended & ((state.t + h - proposal.t1) * h < 0), state.t + h, proposal.t1)
        proposal = proposal._replace(h=h, t1=t1, reaches_end=proposal.reaches_end | ended)
        for n in range(len(events)):
            on = ended & (terminal.event == n)
            occurrences += _occurrences(
                Occurrence(event=n, terminal=True, rows=None, t=proposal.t1, y=step.y1, slope=slopes), on
            )
        if not all(event.terminal for event in events):
            # The step is shorter now: look again for the events that do not end it.
            interior, interpolants = StepInterior(context, state, start, step=step), 2
            values_at_end = _values(context, state, t=proposal.t1, y=step.y1, accept=accept)
            again = interior.crossings(accept, before, values_at_end)
            crossings = [_crossing_of_shortened(old, new, terminal) for old, new in zip(crossings, again, strict=True)]
    for n, (event, crossing) in enumerate(zip(events, crossings, strict=True)):
        if not event.terminal and some(crossing.crossed):
            t = state.t + crossing.theta * start.h
            # Strictly before the end of the solve, so that its derivative by the end is its own.
            t = where(proposal.reaches_end & ((t - proposal.t1) * start.h >= 0), _next(proposal.t1, state.t), t)
            slope = interior.slope(n, crossing.theta) if context.plan.event_slopes else None
            found = Occurrence(event=n, terminal=False, rows=None, t=t, y=interior.state(crossing.theta), slope=slope)
            occurrences += _occurrences(found, crossing.crossed)
    extra = interpolants * context.config.method.dense_evaluations
    step = step._replace(evaluations=step.evaluations + extra, calls=step.calls + extra)
    return LocatedEvents(step, proposal, terminal.ended, values=values, occurrences=tuple(occurrences))


def _values(context: SolveContext, state: SolverState, *, t: Number, y: Tensor, accept: Flag) -> tuple[Number, ...]:
    """Return the event functions at the end of a step; clocks that reject it keep their values."""
    return tuple(
        where(accept, event.value(context.field, t, y), before)
        for event, before in zip(context.config.events, state.event_values, strict=True)
    )


def _first_terminal(context: SolveContext, crossings: list[Crossing], none: Flag) -> TerminalEvent:
    ended, earliest, which = none, crossings[0].theta * 0 + 2, crossings[0].theta * 0 - 1
    for n, (event, (crossed, theta)) in enumerate(zip(context.config.events, crossings, strict=True)):
        sooner = crossed & (theta < earliest) & event.terminal
        ended, earliest = ended | sooner, where(sooner, theta, earliest)
        which = where(sooner, which * 0 + n, which)
    return TerminalEvent(ended, earliest, which)


def _crossing_of_shortened(old: Crossing, new: Crossing, terminal: TerminalEvent) -> Crossing:
    """Keep a zero that lay before the new end of the step though it is not found again."""
    earlier = old.crossed & (old.theta <= terminal.theta)
    return Crossing(
        where(terminal.ended, new.crossed | earlier, new.crossed), where(new.crossed, new.theta, new.theta * 0 + 1)
    )


def _finite(y: Tensor, like: Flag) -> Flag:
    """Return whether the state of each clock is finite: fixed steps are accepted even if it is not."""
    return y.isfinite().all(1) if isinstance(like, Tensor) else bool(y.isfinite().all())


def _next(t: Number, towards: Number) -> Number:
    if isinstance(t, Tensor):
        return torch.nextafter(t, per_row(towards))
    assert not isinstance(towards, Tensor), "one kind of clock"
    return math.nextafter(t, towards)


def _occurrences(found: Occurrence, on: Flag) -> list[Occurrence]:
    """Return an occurrence on these clocks, if there are any."""
    if not isinstance(on, Tensor):
        return [found] if on else []
    rows = on.nonzero()[:, 0]
    slope = None if found.slope is None else per_row(found.slope)[rows]
    found = found._replace(rows=rows, t=per_row(found.t)[rows], y=found.y[rows], slope=slope)
    return [found] if len(rows) else []


class StepInterior:
    """The dense output of one step, and event functions on it."""

    def __init__(self, context: SolveContext, state: SolverState, start: StepStart, *, step: Step) -> None:
        self.events, self.field = context.config.events, context.field
        self.t, self.h, self.first = start.t, start.h, state.accepted == 0
        self.coefficients = context.config.method.interpolant(start, step.stages)

    def state(self, theta: Number) -> Tensor:
        """Return the state at θ."""
        y = self.coefficients
        at = torch.as_tensor(theta, dtype=y.dtype.to_real(), device=y.device)
        return horner(y, at[:, None] if at.dim() else at)

    def value(self, n: int, theta: Number) -> Number:
        """Return event function n at θ."""
        return self.events[n].value(self.field, self.t + theta * self.h, self.state(theta))

    def slope(self, n: int, theta: Number) -> Number:
        """Return the time derivative of event function n at θ."""
        return _derivative(lambda by: self.value(n, theta + by), self.coefficients.dtype, theta * 0 + 1) / self.h

    def crossings(self, accept: Flag, before: Sequence[Number], after: Sequence[Number]) -> list[Crossing]:
        """Return the zero of each event function from its values at both ends of the step."""
        found = []
        for n, event in enumerate(self.events):
            crossed, theta = accept & event.crosses(before[n], after[n]), self.h * 0 + 1
            if some(crossed):
                theta = self.root(n, crossed, ends=(before[n], after[n]))
            if some(crossed & self.first):
                crossed = crossed & negate(self.first & self.zero_at_start(n, before[n], theta))
            found.append(Crossing(crossed, theta))
        return found

    def zero_at_start(self, n: int, before: Number, theta: Number) -> Flag:
        """Return whether a zero is so near to the start of the step that rounding may have caused it."""
        y0, y = self.coefficients[0], self.state(theta)
        eps = 16 * torch.finfo(y.dtype).eps
        # Move only the numbers that change by rounding alone: is the event function across zero already?
        moved = torch.where((y - y0).abs() <= eps * y0.abs(), y, y0)
        across = self.events[n].crosses(before, self.events[n].value(self.field, self.t, moved))
        return across | (abs(theta * self.h) <= eps * (abs(self.t) + abs(self.h)))

    def root(self, n: int, active: Flag, *, ends: tuple[Number, Number]) -> Number:
        """Return θ of a change of sign in [0, 1]: regula falsi (Illinois), every third iteration a bisection."""
        low, high = self.h * 0, self.h * 0 + 1
        resolution = RESOLUTION * (1 + abs(self.t) / where(self.h == 0, self.h * 0 + 1, abs(self.h)))
        g_low, g_high = where(active, ends[0], low - 1), where(active, ends[1], high)
        for iteration in range(HALVINGS):
            wide = active & (high - low > resolution)
            if not some(wide):
                break
            theta = (low + high) / 2 if iteration % 3 == 2 else (low * g_high - high * g_low) / (g_high - g_low)
            theta = where((theta > low) & (theta < high), theta, (low + high) / 2)
            g = self.value(n, theta)
            before = wide & (g * g_low > 0)
            after = wide & negate(before)
            # Illinois: halve the value at the end that stays, or it may stay for ever.
            g_low, g_high = (
                where(before, g, where(after, g_low / 2, g_low)),
                where(after, g, where(before, g_high / 2, g_high)),
            )
            low, high = where(before, theta, low), where(after, theta, high)
        return high


def _end_step_at(
    context: SolveContext,
    state: SolverState,
    start: StepStart,
    *,
    step: Step,
    interior: StepInterior,
    terminal: TerminalEvent,
) -> tuple[Step, Number, Number | None]:
    """Take the step again with a size at whose end the event function is zero, by secant corrections.

    Returns the step, its size, and the time derivative of the event function if the plan wants it.
    """
    config, events, ended, full = context.config, context.config.events, terminal.ended, start.h
    evaluations, calls = step.evaluations, step.calls

    def attempt(h: Number, iterate: bool = True) -> tuple[Step, Number]:
        nonlocal evaluations, calls
        taken = config.method.step(start._replace(h=h), context.error_norm if iterate else None)
        evaluations, calls = evaluations + taken.evaluations, calls + taken.calls
        return taken, _of_event(terminal, [e.value(context.field, state.t + h, taken.y1) for e in events])

    slope = _of_event(terminal, [interior.slope(n, terminal.theta) for n in range(len(events))])
    h = where(ended, terminal.theta * full, full)
    step, g = attempt(h)
    for _ in range(CORRECTIONS):
        steep = (slope != 0) & (abs(slope) < torch.inf)
        trial_h = h - where(ended & steep, g / where(steep, slope, slope * 0 + 1), h * 0)
        trial_h = where(abs(trial_h) > abs(full), full, trial_h)
        moves = ended & (trial_h * full > 0) & (abs(trial_h - h) > RESOLUTION * (abs(state.t) + abs(h)))
        if not some(moves):
            break
        trial, g_trial = attempt(where(moves, trial_h, h))
        better = moves & (abs(g_trial) < abs(g)) & trial.ok
        if not some(better):
            break
        slope = where(better, (g_trial - g) / where(better, trial_h - h, h * 0 + 1), slope)
        h, g = where(better, trial_h, h), where(better, g_trial, g)
        # Rows without improvement go back to the step they had.
        step = attempt(h)[0] if some(moves & negate(better)) else trial
    slopes = None
    if context.plan.event_slopes:
        # Differences relative to the full step: little of it may be left.
        scale = where(full == 0, full * 0 + 1, full)
        slopes = _derivative(lambda by: attempt(h + by * full, False)[1], step.y1.dtype, h * 0 + 1) / scale
    return step._replace(evaluations=evaluations, calls=calls), h, slopes


def _of_event(terminal: TerminalEvent, values: list[Number]) -> Number:
    """Return the value of the event that ends each clock."""
    chosen = values[0]
    for n, value in enumerate(values[1:], 1):
        chosen = where(terminal.event == n, value, chosen)
    return chosen


def _derivative(function: Callable[[Number], Number], dtype: torch.dtype, one: Number) -> Number:
    """Return the derivative at 0 by a central difference of fourth order."""
    by = torch.finfo(dtype).eps ** 0.2 * one
    near, far = function(by) - function(-by), function(2 * by) - function(-2 * by)
    return (8 * near - far) / (12 * by)
