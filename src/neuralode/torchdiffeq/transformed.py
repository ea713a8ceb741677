"""Stated steps in plain operations, for the transforms of `torch.func` and forward-mode differentiation.

These look into every operation: they want no autograd function of ours between them, and no number to be read.
"""

from __future__ import annotations

from bisect import bisect_right
from itertools import pairwise
from typing import Any

import torch
from torch._C._functorch import peek_interpreter_stack

from neuralode.core.field import Field
from neuralode.core.layout import lay_out
from neuralode.torchdiffeq.adapt import Adapted
from neuralode.torchdiffeq.inputs import Task
from neuralode.torchdiffeq.options import Options


def refuse(task: Task) -> RuntimeError:
    """Why there are no derivatives of these kinds."""
    return RuntimeError(
        f'torch.func transforms and forward-mode differentiation do not go through method "{task.method}", nor through '
        'the adjoint, events and dense solutions; wanted odeint with an explicit method of stated steps such as "rk4", '
        "or torch.autograd."
    )


def solve(task: Task, options: Options) -> Any:
    """What `odeint` returns; of stated steps only."""
    if task.solver.adaptive or (options.method.implicit and peek_interpreter_stack() is not None):
        raise refuse(task)
    layout = lay_out(task.y0, False)
    field = Field(Adapted(task.func, task.y0), layout=layout, guarded=False)
    y, method, method_state = layout.pack(task.y0), options.method, options.method.begin(None)
    method_state = method_state if not method.memoryless else None
    times, states = _grid(task, options), [y]
    step_outputs = None if options.by_outputs else task.t.detach().double().tolist()
    for t0, t1 in pairwise(times):
        f = field.within(t0, t1, True, True) if options.perturb else field
        f = f if method.implicit else f.evaluate
        h = t1 - t0
        y1, stages, method_state = method.retake(f, t0, y, h, step_outputs is not None, method_state)
        if step_outputs is None:
            states.append(y1)
        else:
            sign = task.direction
            output_times = [t * sign for t in step_outputs]
            inside = step_outputs[bisect_right(output_times, t0 * sign) : bisect_right(output_times, t1 * sign)]
            if inside:
                states += method.interpolate(f, t0, y, h, stages, tuple((t - t0) / h for t in inside)).unbind()
        y = y1
    return layout.unpack(torch.stack(states))


def _grid(task: Task, options: Options) -> Any:
    """Where steps end: a tensor of the times of the outputs, or numbers."""
    if options.by_outputs:
        return task.t.double()
    first, last = float(task.t[0]), float(task.t[-1])
    controller, times, history = options.controller, [first], options.controller.start(first, last)
    while times[-1] != last:
        proposal = controller.propose(times[-1], 0.0, last, task.direction, history)
        history = controller.decide(None, 0.0, 0.0, False, history, 1).history
        times.append(proposal.t1)
    return times
