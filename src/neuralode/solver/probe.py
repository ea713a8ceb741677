"""Evaluate f before a solve: check its result, and find the tensors that it uses and its breakpoints."""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves

from neuralode.autodiff.captured import modules_of, watch
from neuralode.controllers import StopTimes, unite
from neuralode.core.problem import Problem
from neuralode.core.types import PyTree
from neuralode.engines.base import SolveConfig
from neuralode.inputs.breakpoints import find_breakpoints
from neuralode.inputs.interpolation import Breakpoints
from neuralode.inputs.interpolation_queries import recording_queries
from neuralode.solver.checks import check_restarts
from neuralode.solver.row_independence import check_rows, find_coupling
from neuralode.solver.separability import check_separable


class Probed(NamedTuple):
    """A problem and its configuration, completed by evaluations of f."""

    problem: Problem
    config: SolveConfig
    calls: int  # of f, beyond the first evaluation
    coupling_calls: int  # of these, the ones that test for coupled rows: part of the evaluations of every row


def probe(problem: Problem, config: SolveConfig) -> Probed:
    """Complete a problem with f(t0, y0) and its captured tensors, and a configuration with stops.

    Steps stop where the control inputs of f have breakpoints.
    """
    coupling_calls = 0
    if config.method.implicit:
        problem, coupling_calls = find_coupling(problem)
    if torch.is_grad_enabled():
        f0, breaks, captured = _watched_evaluation(problem, config)
        captured = captured if problem.captured is None else problem.captured
    else:
        f0, breaks = first_evaluation(problem)
        captured = problem.captured or ()
    problem = replace(problem, f0=f0, captured=captured)
    if breaks and not config.method.one_call:
        config = replace(config, stops=_with_breaks(problem, config, breaks))
    calls = coupling_calls
    with torch.no_grad():
        if problem.per_sample:
            calls += check_rows(problem)
        if config.method.partitioned:
            calls += check_separable(problem, config.method)
    return Probed(problem=problem, config=config, calls=calls, coupling_calls=coupling_calls)


def first_evaluation(problem: Problem) -> tuple[Tensor, list[Breakpoints]]:
    """Return f(t0, y0), checked in structure, shape, dtype and device, and the breaks of its control inputs."""
    return _evaluation(problem, *_arguments(problem))


def _watched_evaluation(problem: Problem, config: SolveConfig) -> tuple[Tensor, list[Breakpoints], tuple[Tensor, ...]]:
    """Return the first evaluation, and the differentiable tensors that f, ``save`` and event functions use there.

    Also those in args, and the parameters of modules that f is or holds. The backward pass refuses others.
    """
    # Build outside `watch`, so that y0 and t do not count as captured.
    arguments = _arguments(problem)
    args, save = problem.field.args, config.save if callable(config.save) else None
    seen: list[Tensor] = []
    f0, breaks = _evaluation(problem, *arguments, seen=seen)
    if save is not None:
        seen += watch(lambda: save(*arguments, *args))[1]
    for event in config.events:
        seen += watch(lambda event=event: event.function(*arguments, *args))[1]
    held = [x for f in (problem.field.f, save) for module in modules_of(f) for x in module.parameters()]
    passed = [x for x in tree_leaves(args) if isinstance(x, Tensor)]
    captured = {id(x): x for x in (*passed, *held, *seen) if x.requires_grad}
    return f0, breaks, tuple(captured.values())


def _evaluation(
    problem: Problem, t: Tensor, state: PyTree, *, seen: list[Tensor] | None = None
) -> tuple[Tensor, list[Breakpoints]]:
    """Return f(t0, y0) and its breaks; ``seen`` receives the differentiable tensors that it uses."""
    with recording_queries() as queries:
        f0 = _checked_slope(problem, t, state, seen=seen)
    return f0, find_breakpoints(problem.field.f, problem.field.args, queries)


def _with_breaks(problem: Problem, config: SolveConfig, breaks: list[Breakpoints]) -> StopTimes:
    """Return the stops of a solve: those of the user, and the breaks of control inputs."""
    stops = unite(problem, config.stops, breaks)
    if stops.jumping and problem.per_sample:
        check_restarts(config.method, "f uses an interpolation that jumps,")
    return stops


def _arguments(problem: Problem) -> tuple[Tensor, PyTree]:
    """Return t0 and y0 as f receives them."""
    field, layout = problem.field, problem.layout
    t = problem.t.detach()[..., 0].to(device=layout.device, dtype=field.time_dtype)
    return t, layout.unpack(problem.y0.detach(), field.dtype)


def _checked_slope(problem: Problem, t: Tensor, state: PyTree, *, seen: list[Tensor] | None) -> Tensor:
    field = problem.field
    versions = _versions(state, t) if field.guarded else None
    try:
        if seen is None:
            slope = field.f(t, state, *field.args)
        else:
            slope, used = watch(lambda: field.f(t, state, *field.args))
            seen += used
    except RuntimeError as error:
        if problem.per_sample and "size of tensor" in str(error):
            raise ValueError(
                f"f failed on t of shape {list(t.shape)}: {error}. Under per_sample=True each row has its own time: "
                "write t[:, None]."
            ) from error
        raise
    if versions is not None and versions != _versions(state, t):
        raise ValueError("f writes into its arguments; wanted a new tensor: y + 1, not y.add_(1) or y[0] = 1.")
    field.check(slope)
    return problem.layout.pack(slope)


def _versions(state: PyTree, t: Tensor) -> list[int]:
    return [x._version for x in tree_leaves((state, t))]
