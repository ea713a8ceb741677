"""Locate the zeros of event functions within an accepted step."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor

from neuralode.controllers.base import StepProposal
from neuralode.core.clock import EPS, Flag, Number, negate, some, where
from neuralode.core.dense_output import horner
from neuralode.core.record import Occurrence
from neuralode.methods.base import StepStart

if TYPE_CHECKING:
    from neuralode.engines.base import SolveContext, SolverState


HALVINGS = 100  # at most, of the interval that holds a zero; far fewer are needed


CORRECTIONS = 8  # at most, of the size of a step that ends at a zero


RESOLUTION = 4 * EPS  # of t


class LocatedEvents(NamedTuple):
    """An accepted step after its events."""

    step: Any
    h: Number
    proposal: StepProposal
    ended: Flag
    values: tuple[Number, ...]
    occurrences: tuple[Occurrence, ...]


def locate_events(
    context: SolveContext, state: SolverState, field: Any, step: Any, h: Number, proposal: StepProposal, accept: Flag
) -> LocatedEvents:
    """Look for events on a step that was accepted; it is taken again to end at a terminal one."""
    events = context.events
    values = _values(context, state, proposal.t1, step.y1, accept)
    none = accept & negate(accept)
    if not any(some(accept & e.crosses(*two)) for e, *two in zip(events, state.values, values, strict=True)):
        return LocatedEvents(step, h, proposal, none, values, ())
    accept = accept & _finite(step.y1, accept)
    inside = _Inside(context, state, field, step, h)
    found = inside.crossings(accept, state.values, values)

    ended, earliest, which = none, h * 0 + 2, h * 0 - 1
    for n, (event, (crossed, root)) in enumerate(zip(events, found, strict=True)):
        sooner = crossed & (root < earliest) & event.terminal
        ended, earliest, which = ended | sooner, where(sooner, root, earliest), where(sooner, h * 0 + n, which)
    occurrences: list[Occurrence] = []
    looks = 1
    if some(ended):
        step, h, slopes = _end_at(context, state, field, step, inside, earliest, ended, which)
        t1 = where(ended & ((state.t + h - proposal.t1) * h < 0), state.t + h, proposal.t1)
        proposal = proposal._replace(h=h, t1=t1, reaches_end=proposal.reaches_end | ended)
        for n in range(len(events)):
            occurrences += _occurred(n, True, ended & (which == n), proposal.t1, step.y1, slopes)
        if not all(event.terminal for event in events):
            # on a step that was made shorter what else happens is looked for anew
            inside, looks = _Inside(context, state, field, step, h), 2
            before = [crossed & (root <= earliest) for crossed, root in found]
            found = inside.crossings(accept, state.values, _values(context, state, proposal.t1, step.y1, accept))
            found = [
                (where(ended, crossed | earlier, crossed), where(crossed, root, h * 0 + 1))
                for (crossed, root), earlier in zip(found, before, strict=True)
            ]
    for n, (event, (crossed, theta)) in enumerate(zip(events, found, strict=True)):
        if not event.terminal and some(crossed):
            t = state.t + theta * h
            # strictly before the end of all, so that it has a derivative of its own
            t = where(proposal.reaches_end & ((t - proposal.t1) * h >= 0), _next(proposal.t1, state.t), t)
            slopes = inside.slope(n, theta) if context.plan.slopes else None
            occurrences += _occurred(n, False, crossed, t, inside.state(theta), slopes)
    looks *= context.method.dense_evaluations
    step = step._replace(evaluations=step.evaluations + looks, calls=step.calls + looks)
    return LocatedEvents(step, h, proposal, ended, values, tuple(occurrences))


def _values(context: SolveContext, state: SolverState, t: Number, y: Tensor, accept: Flag) -> tuple[Number, ...]:
    """The event functions at the end of a step, on the clocks that accept it."""
    return tuple(
        where(accept, event.value(context.field, t, y), before)
        for event, before in zip(context.events, state.values, strict=True)
    )


def _finite(y: Tensor, like: Flag) -> Flag:
    """Whether a state is finite, by clock; stated steps are kept although they are not."""
    return y.isfinite().all(1) if isinstance(like, Tensor) else bool(y.isfinite().all())


def _next(t: Number, towards: Number) -> Number:
    return torch.nextafter(t, towards) if isinstance(t, Tensor) else math.nextafter(t, towards)


def _occurred(event: int, terminal: bool, on: Flag, t: Number, y: Tensor, slope: Number) -> list[Occurrence]:
    if not isinstance(on, Tensor):
        return [Occurrence(event, terminal, None, t, y, slope)] if on else []
    rows = on.nonzero()[:, 0]
    found = Occurrence(event, terminal, rows, t[rows], y[rows], None if slope is None else slope[rows])
    return [found] if len(rows) else []


class _Inside:
    """The dense output of one step, and event functions on it."""

    def __init__(self, context: SolveContext, state: SolverState, field: Any, step: Any, h: Number) -> None:
        self.context, self.t, self.h, self.first = context, state.t, h, state.accepted == 0
        self.coefficients = context.method.interpolant(StepStart(field, state.t, state.y, h=h), step.stages)

    def state(self, theta: Number) -> Tensor:
        y = self.coefficients
        at = torch.as_tensor(theta, dtype=y.dtype.to_real(), device=y.device)
        return horner(y, at[:, None] if at.dim() else at)

    def value(self, n: int, theta: Number) -> Number:
        return self.context.events[n].value(self.context.field, self.t + theta * self.h, self.state(theta))

    def slope(self, n: int, theta: Number) -> Number:
        """Of an event function along the dense output, by t."""
        return _slope(lambda by: self.value(n, theta + by), self.coefficients.dtype, theta * 0 + 1) / self.h

    def crossings(self, accept: Flag, before: Sequence[Number], after: Sequence[Number]) -> list[tuple[Flag, Number]]:
        """Of every event: whether it lies on the step, and at which θ."""
        found = []
        for n, event in enumerate(self.context.events):
            crossed, root = accept & event.crosses(before[n], after[n]), self.h * 0 + 1
            if some(crossed):
                root = self.root(n, crossed, before[n], after[n])
            if some(crossed & self.first):
                crossed = crossed & negate(self.first & self.begins_at(n, before[n], root))
            found.append((crossed, root))
        return found

    def begins_at(self, n: int, before: Number, root: Number) -> Flag:
        """Whether a crossing is so near to where the step begins that rounding may have put it there."""
        y0, y = self.coefficients[0], self.state(root)
        eps = 16 * torch.finfo(y.dtype).eps
        # what moves by no more than its rounding has moved, the rest has not: is it across already?
        moved = torch.where((y - y0).abs() <= eps * y0.abs(), y, y0)
        across = self.context.events[n].crosses(before, self.context.events[n].value(self.context.field, self.t, moved))
        return across | (abs(root * self.h) <= eps * (abs(self.t) + abs(self.h)))

    def root(self, n: int, active: Flag, g_low: Number, g_high: Number) -> Number:
        """θ of a change of sign between 0 and 1: regula falsi (Illinois), every third time a bisection."""
        low, high = self.h * 0, self.h * 0 + 1
        fine = RESOLUTION * (1 + abs(self.t) / where(self.h == 0, self.h * 0 + 1, abs(self.h)))
        g_low, g_high = where(active, g_low, low - 1), where(active, g_high, high)
        for turn in range(HALVINGS):
            wide = active & (high - low > fine)
            if not some(wide):
                break
            theta = (low + high) / 2 if turn % 3 == 2 else (low * g_high - high * g_low) / (g_high - g_low)
            theta = where((theta > low) & (theta < high), theta, (low + high) / 2)
            g = self.value(n, theta)
            before = wide & (g * g_low > 0)
            after = wide & negate(before)
            # the end that stays is halved, so that it does not stay for ever
            g_low, g_high = (
                where(before, g, where(after, g_low / 2, g_low)),
                where(after, g, where(before, g_high / 2, g_high)),
            )
            low, high = where(before, theta, low), where(after, theta, high)
        return high


def _end_at(
    context: SolveContext,
    state: SolverState,
    field: Any,
    step: Any,
    inside: _Inside,
    theta: Number,
    ended: Flag,
    which: Number,
) -> tuple[Any, Number, Number]:
    """Take the step again so that it ends where the event function is zero at the state that it gives."""
    whole, spent, calls = inside.h, step.evaluations, step.calls

    def value(size: Number, error_norm: Any = context.error_norm) -> tuple[Any, Number]:
        nonlocal spent, calls
        start = StepStart(field, state.t, state.y, h=size, method_state=state.method_state)
        taken = context.method.step(start, error_norm)
        spent, calls = spent + taken.evaluations, calls + taken.calls
        return taken, _own(which, [e.value(context.field, state.t + size, taken.y1) for e in context.events])

    slope = _own(which, [inside.slope(n, theta) for n in range(len(context.events))])
    h = where(ended, theta * whole, whole)
    step, g = value(h)
    for _ in range(CORRECTIONS):
        steep = (slope != 0) & (abs(slope) < torch.inf)
        tried = h - where(ended & steep, g / where(steep, slope, slope * 0 + 1), h * 0)
        tried = where(abs(tried) > abs(whole), whole, tried)
        asked = ended & (tried * whole > 0) & (abs(tried - h) > RESOLUTION * (abs(state.t) + abs(h)))
        if not some(asked):
            break
        trial, g_trial = value(where(asked, tried, h))
        better = asked & (abs(g_trial) < abs(g)) & trial.ok
        if not some(better):
            break
        slope = where(better, (g_trial - g) / where(better, tried - h, h * 0 + 1), slope)
        h, g = where(better, tried, h), where(better, g_trial, g)
        # per sample rows that were not bettered go back: their step is what it was
        step = value(h)[0] if some(asked & negate(better)) else trial
    slopes = None
    if context.plan.slopes:
        # by shares of the whole step, since little of it may be left
        scale = where(whole == 0, whole * 0 + 1, whole)
        slopes = _slope(lambda by: value(h + by * whole, None)[1], step.y1.dtype, h * 0 + 1) / scale
    return step._replace(evaluations=spent, calls=calls), h, slopes


def _own(which: Number, values: list[Number]) -> Number:
    """Of the values of all events, that of the event which ends the clock."""
    found = values[0]
    for n, value in enumerate(values[1:], 1):
        found = where(which == n, value, found)
    return found


def _slope(function: Callable[[Number], Number], dtype: torch.dtype, one: Number) -> Number:
    """The derivative at 0, by a difference of fourth order."""
    by = torch.finfo(dtype).eps ** 0.2 * one
    near, far = function(by) - function(-by), function(2 * by) - function(-2 * by)
    return (8 * near - far) / (12 * by)
