"""One solve of a posed problem: plan, march, read, and attach gradients."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from neuralode.autodiff.context import capture_context
from neuralode.autodiff.transforms import transforming
from neuralode.controllers import NOWHERE, Stops
from neuralode.core.norms import Norm
from neuralode.core.problem import Problem
from neuralode.core.progress import bar
from neuralode.core.record import Plan, Record, constant_clocks, number_places
from neuralode.core.solution import Solution
from neuralode.core.status import GradientError
from neuralode.engines.loop import solve_loop
from neuralode.gradients import Direct, check_gradient
from neuralode.gradients.base import Solved
from neuralode.gradients.event_times import attach, with_event_times
from neuralode.inputs.events import Event
from neuralode.solver.probe import add_breaks, look
from neuralode.solver.results import events_of, occurrences, read, wrap
from neuralode.solver.row_independence import check_alone, check_rows, check_separable


@dataclass(frozen=True)
class Setting:
    """How a problem is to be solved: everything found and checked.

    ``captured`` are the tensors that gradients flow to beside y0 and t: all that f uses unless given; with ``strict``
    it is an error if f uses others.
    """

    method: Any
    controller: Any
    norm: Norm
    engine: Any
    gradient: Any
    max_steps: int
    dense: bool = False
    save: Any = None
    stops: Stops = NOWHERE
    events: tuple[Event, ...] = ()
    observer: Any = None
    captured: tuple[Tensor, ...] | None = None
    strict: bool = True
    progress: bool = False


def integrate(problem: Problem, how: Setting) -> tuple[Solution, Record]:
    """Solve, whether or not every row arrives; also returns where each row stands."""
    problem, alone = check_alone(problem) if how.method.implicit else (problem, 0)
    function = how.save if callable(how.save) else None
    steps = how.save == "steps"
    plan = Plan(inside=problem.has_inner_outputs and not steps, dense=how.dense, steps=steps)
    plan = plan if how.events else replace(plan, save=function)  # the state itself is wanted at events

    f0, breaks, captured = look(problem, function, how.events)
    stops = add_breaks(how.stops, breaks, problem, how.method)
    captured = captured if how.captured is None else how.captured
    # transforms go through plain operations alone, and through all of them: nothing of ours may stand in between
    through = transforming()
    if through and (how.events or how.method.implicit):
        raise GradientError(
            "torch.func transforms and forward-mode differentiation go through neither events nor methods that solve "
            f"for their stages (here {how.method.name!r}); wanted an explicit method without events, or torch.autograd."
        )
    gradient = Direct() if through else how.gradient
    wanted = torch.is_grad_enabled() and any(x.requires_grad for x in (problem.y0, problem.t, *captured))
    differentiable = through or wanted
    if differentiable:
        check_gradient(gradient, how.engine, how.method)
    plan = replace(gradient.plan(plan), slopes=bool(how.events)) if differentiable else plan
    written = f0._version if problem.field.guarded else None
    forward_context = capture_context(problem.field.f, problem.layout.device) if differentiable else None
    with torch.no_grad(), bar(how.progress) as on_progress:
        checks = alone + (check_rows(problem) if problem.per_sample else 0)
        checks += check_separable(problem, how.method) if how.method.partitioned else 0
        record, outputs = solve_loop(
            problem, f0, plan, how.method, how.controller, how.norm, how.engine, how.max_steps, on_progress,
            stops=stops, events=how.events, observer=how.observer,
        )  # fmt: skip
        if written is not None and f0._version != written:
            raise ValueError("f writes into what it returned before; wanted a new tensor each time, not out=buffer.")
        record.calls += checks
        record.started += alone
        if plan.dense or plan.steps:
            record.step_batches = number_places(record.step_batches, problem.layout.rows, problem.layout.device)
        if through:
            record.step_batches = constant_clocks(record.step_batches)
        posed, met = problem, None
        leaves = read(problem, plan, record, outputs)
        if record.occurrences:
            posed, record, states, met = with_event_times(problem, record, leaves[0])
            leaves = [states, *leaves[1:]]
    if torch.is_autocast_enabled(problem.layout.device.type):
        torch.clear_autocast_cache()  # casts made without a graph would be found again by code that wants one

    backward = [0]
    if differentiable:
        solved = Solved(
            posed, plan, how.method, how.controller, how.engine, (how.norm.rtol, how.norm.atol), how.max_steps,
            record, tuple(leaves), captured, forward_context, backward, stops, how.strict,
        )  # fmt: skip
        if met is None:
            leaves = gradient.attach(solved)
        else:
            leaves, met = attach(solved, gradient, how.events, met, problem)
    found = None
    if met is not None:
        leaves, posed, found = occurrences(problem, met, leaves)
    events = events_of(problem, len(how.events), found)
    solution = wrap(posed, plan, record, leaves, outputs.spec, function, backward, events)
    return solution, record
