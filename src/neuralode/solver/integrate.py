"""Solve a resolved problem: probe f, plan, integrate, attach gradients, and return the solution."""

from __future__ import annotations

from dataclasses import replace

import torch

from neuralode.autodiff.context import ForwardContext, capture_context
from neuralode.autodiff.transforms import transforming
from neuralode.core.problem import Problem
from neuralode.core.progress import bar
from neuralode.core.record import Plan, Record, constant_clocks
from neuralode.core.solution import Solution
from neuralode.core.status import GradientError
from neuralode.engines.base import SolveConfig, Trajectory
from neuralode.engines.trajectory import RecordedTrajectory
from neuralode.gradients import Direct
from neuralode.gradients.event_times import attach_with_events, with_event_times
from neuralode.solver.probe import probe
from neuralode.solver.results import make_solution, occurrences_of, split_events


def integrate(problem: Problem, config: SolveConfig) -> tuple[Solution, Record]:
    """Solve, whether or not every row succeeds; return the solution and the record."""
    probed = probe(problem, config)
    problem, config = probed.problem, probed.config
    through = transforming()
    if through:
        config = _without_autograd_functions(config)
    context = None
    if through or (torch.is_grad_enabled() and any(x.requires_grad for x in problem.inputs)):
        context = capture_context(problem.field.f, problem.layout.device)
    plan = _plan(problem, config, differentiable=context is not None)
    reason = config.engine.supports(problem, config, plan)
    if reason is not None:
        raise ValueError(reason)
    trajectory = _run(problem, config, plan)
    record = trajectory.record
    record.calls += probed.calls
    record.started += probed.coupling_calls
    if through:
        record.step_batches = constant_clocks(record.step_batches)
    if record.occurrences:
        return _solution_with_events(trajectory, context), record
    leaves = list(trajectory.leaves) if context is None else config.gradient.attach(trajectory, context)
    events = occurrences_of(problem, len(config.events), None)
    return make_solution(trajectory, problem, leaves, events=events), record


def _solution_with_events(trajectory: Trajectory, context: ForwardContext | None) -> Solution:
    """Return the solution of a trajectory that found events."""
    original, config = trajectory.problem, trajectory.config
    if not isinstance(trajectory, RecordedTrajectory):
        raise TypeError(
            f"engine {config.engine.name!r} located events in a {type(trajectory).__name__}; wanted a "
            "neuralode.engines.trajectory.RecordedTrajectory, or an engine whose `supports` refuses events."
        )
    with torch.no_grad():
        trajectory, table = with_event_times(trajectory)
    leaves = list(trajectory.leaves)
    if context is not None:
        leaves, table = attach_with_events(
            trajectory, table, original=original, attach=lambda x: config.gradient.attach(x, context)
        )
    leaves, problem, found = split_events(original, table, leaves)
    events = occurrences_of(original, len(config.events), found)
    return make_solution(trajectory, problem, leaves, events=events)


def _without_autograd_functions(config: SolveConfig) -> SolveConfig:
    """Use plain operations only, because transforms do not pass through custom autograd functions."""
    if config.events or config.method.implicit:
        raise GradientError(
            "torch.func transforms and forward-mode differentiation go through neither events nor methods that solve "
            f"for their stages (here {config.method.name!r}); wanted an explicit method without events, or "
            "torch.autograd."
        )
    return replace(config, gradient=Direct())


def _plan(problem: Problem, config: SolveConfig, *, differentiable: bool) -> Plan:
    """Return the plan of what the outputs, and the gradient if there is one, need."""
    save_steps = config.save == "steps"
    plan = Plan(
        inner_outputs=problem.has_inner_outputs and not save_steps,
        dense=config.dense,
        save_steps=save_steps,
        # With events, `save` is applied to the states afterwards.
        save=config.save if callable(config.save) and not config.events else None,
    )
    if not differentiable:
        return plan
    return replace(config.gradient.plan(plan), event_slopes=bool(config.events))


def _run(problem: Problem, config: SolveConfig, plan: Plan) -> Trajectory:
    """Run the engine without a graph."""
    f0 = problem.initial_slope()
    version = f0._version if problem.field.guarded else None
    with torch.no_grad():
        if config.progress:
            with bar() as on_progress:
                config = replace(config, on_progress=on_progress)
                trajectory = config.engine.integrate(problem, config, plan)
        else:
            trajectory = config.engine.integrate(problem, config, plan)
    if version is not None and f0._version != version:
        raise ValueError(
            "f writes into a tensor that it returned before; wanted a new tensor each time, not out=buffer."
        )
    if torch.is_autocast_enabled(problem.layout.device.type):
        torch.clear_autocast_cache()  # casts made without a graph would be reused by code that needs one
    return trajectory
