"""From a checked task to what its user is given."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_map

from neuralode.autodiff.transforms import transforming
from neuralode.gradients import Adjoint
from neuralode.torchdiffeq import foreign, transformed
from neuralode.torchdiffeq.core import Gradient, run
from neuralode.torchdiffeq.inputs import Task
from neuralode.torchdiffeq.options import ONE_STEP, Options, read_options


def solve_task(task: Task, gradient: Gradient | None = None) -> Any:
    """What `odeint` returns, for a task that was checked."""
    if not task.native:
        return foreign.solve(task)
    if task.event_fn is not None:
        return until_event(task, gradient)
    options = read_options(task)
    if transforming() and gradient is None:
        return transformed.solve(task, options)
    if options.method.one_call and gradient is None:
        gradient = Gradient(lambda layout: Adjoint(norm="full"))  # of steps that SciPy took nothing is known
    learnable = torch.is_grad_enabled() and task.t.requires_grad
    if options.by_outputs and learnable and gradient is None and options.method.memoryless and len(task.t) > 2:
        return _in_stretches(task, options)
    return run(task, options, gradient).ys


def until_event(task: Task, gradient: Gradient | None) -> tuple[Tensor, Any]:
    """The time of the first event, and the states at the start and there."""
    assert task.event_fn is not None
    event_fn, zero = events_at(task.event_fn, task.t[0], task.y0, isinstance(task.event_fn, Linked))
    options = read_options(task)
    if options.method.one_call:
        raise ValueError(f'method "{task.method}" finds no events; wanted one that is taken step by step.')
    if zero:
        return task.t[0], tree_map(lambda part: torch.stack((part, part)), task.y0)
    solution = run(replace(task, event_fn=event_fn), options, gradient)
    return solution.ts[-1].to(task.t), solution.ys


def _in_stretches(task: Task, options: Options) -> Any:
    """Steps from output to output that move with the output times: each is a solve of its own, whose ends they are."""
    states, options = [task.y0], replace(options, controller=ONE_STEP)
    for i in range(len(task.t) - 1):
        stretch = replace(task, y0=states[-1], t=task.t[i : i + 2])
        states.append(tree_map(lambda leaf: leaf[-1], run(stretch, options).ys))
    return tree_map(lambda *leaves: torch.stack(leaves), *states)


class Linked:
    """An event function through whose zero derivatives are wanted: `odeint` alone keeps the time of an event fixed."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self.function = function

    def __call__(self, t: Tensor, y: Any) -> Any:
        """Evaluate."""
        return self.function(t, y)


def events_at(function: Callable[..., Any], t: Tensor, y0: Any, linked: bool = True) -> tuple[Callable[..., Any], bool]:
    """One function for all numbers of an event function, positive at the start; and whether one is zero there."""
    with torch.no_grad():
        signs = torch.as_tensor(function(t.detach(), y0)).sign()

    def combined(time: Tensor, y: Any) -> Tensor:
        with torch.set_grad_enabled(linked and torch.is_grad_enabled()):
            return (function(time, y) * signs).min()

    return combined, bool((signs == 0).any())
