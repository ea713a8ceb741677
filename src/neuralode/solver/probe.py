"""Evaluate f once before a solve: its shape, the tensors that it uses, and where it breaks."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves

from neuralode.autodiff.captured import modules_of, watch
from neuralode.controllers import Stops, unite
from neuralode.core.problem import Problem
from neuralode.inputs.breakpoints import find_breakpoints
from neuralode.inputs.events import Event
from neuralode.inputs.interpolation import Breakpoints
from neuralode.inputs.interpolation_queries import recording_queries


def look(
    problem: Problem, save: Callable[..., Any] | None, events: tuple[Event, ...] = ()
) -> tuple[Tensor, list[Breakpoints], tuple[Tensor, ...]]:
    """f(t0, y0), where f breaks, and every differentiable tensor that f, ``save`` and event functions use."""
    if not torch.is_grad_enabled():
        return *first_evaluation(problem), ()
    arguments = _arguments(problem)  # made before anybody watches: y0 and t themselves are not what f uses besides
    (f0, breaks), seen = watch(lambda: _heard(problem, *arguments))
    if save is not None:
        seen += watch(lambda: save(*arguments, *problem.field.args))[1]
    for event in events:
        seen += watch(lambda event=event: event.function(*arguments, *problem.field.args))[1]
    held = [x for f in (problem.field.f, save) for module in modules_of(f) for x in module.parameters()]
    passed = [x for x in tree_leaves(problem.field.args) if isinstance(x, Tensor)]
    found = {id(x): x for x in (*passed, *held, *seen) if x.requires_grad}
    return f0, breaks, tuple(found.values())


def first_evaluation(problem: Problem) -> tuple[Tensor, list[Breakpoints]]:
    """f(t0, y0), checked in structure, shape, dtype and device; and where the paths break that f asked, or holds."""
    return _heard(problem, *_arguments(problem))


def _heard(problem: Problem, t: Tensor, state: Any) -> tuple[Tensor, list[Breakpoints]]:
    with recording_queries() as queries:
        f0 = _evaluate(problem, t, state)
    return f0, find_breakpoints(problem.field.f, problem.field.args, queries)


def add_breaks(stops: Stops, breaks: list[Breakpoints], problem: Problem, method: Any) -> Stops:
    """The stops of a solve: those that the user gave, and where f breaks."""
    if method.one_call or not breaks:
        return stops
    found = unite(stops, breaks, problem.start, problem.end, problem.direction)
    if found.jumping and problem.per_sample and not method.memoryless:
        raise ValueError(
            f"f uses an interpolation that jumps, with per_sample=True and method {method.name!r}, which begins anew "
            "at a jump: rows meet it at different steps. Wanted a one-step method, or per_sample=False."
        )
    return found


def _arguments(problem: Problem) -> tuple[Tensor, Any]:
    """t0 and y0 as f is given them."""
    field, layout = problem.field, problem.layout
    t = problem.t.detach()[..., 0].to(device=layout.device, dtype=field.time_dtype)
    return t, layout.unpack(problem.y0.detach(), field.dtype)


def _evaluate(problem: Problem, t: Tensor, state: Any) -> Tensor:
    field = problem.field
    versions = _versions(state, t) if field.guarded else None
    try:
        answer = field.f(t, state, *field.args)
    except RuntimeError as error:
        if problem.per_sample and "size of tensor" in str(error):
            raise ValueError(
                f"f failed on t of shape {list(t.shape)}: {error}. Under per_sample=True each row has its own time: "
                "write t[:, None]."
            ) from error
        raise
    if versions is not None and versions != _versions(state, t):
        raise ValueError("f writes into its arguments; wanted a new tensor: y + 1, not y.add_(1) or y[0] = 1.")
    field.check(answer)
    return problem.layout.pack(answer)


def _versions(state: Any, t: Tensor) -> list[int]:
    return [x._version for x in tree_leaves((state, t))]
