"""The verb: check, plan, march, read."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any, Literal

import torch

from neuralode.clock import some
from neuralode.control import Given, find_controller
from neuralode.door import check_choices, check_rows, look
from neuralode.engines import find_engine
from neuralode.failures import complain
from neuralode.gradients import find_gradient
from neuralode.gradients.ambient import surroundings
from neuralode.gradients.solved import Solved
from neuralode.march import march
from neuralode.methods import Method, Tableau, find_method
from neuralode.norms import Norm, check_reduction
from neuralode.problem import check_tolerances, pose
from neuralode.progress import bar
from neuralode.reading import read, wrap
from neuralode.record import Plan, number_places
from neuralode.solution import Solution
from neuralode.status import Status


def solve(
    f: Callable[..., Any],
    y0: Any,
    t: Any,
    *,
    args: tuple = (),
    args_dims: Any = None,
    method: str | Method | Tableau = "tsit5",
    rtol: Any = 1e-4,
    atol: Any = 1e-6,
    step_size: float | None = None,
    max_steps: int = 100_000,
    per_sample: bool = False,
    controller: Any = None,
    gradient: Any = "replay",
    engine: Any = "eager",
    dense: bool = False,
    save: Literal["steps"] | Callable[..., Any] | None = None,
    on_failure: Literal["raise", "return"] = "raise",
    progress: bool = False,
) -> Solution:
    """Solve dy/dt = f(t, y) from y0, differentiably.

    Parameters
    ----------
    f : callable
        ``f(t, y, *args)`` returning dy/dt, with the structure, shapes and dtypes of y. A function of its arguments
        during one solve: no dropout, no statistics that change the answer. t is 0-d in the real dtype of the state, or
        has shape [rows] with ``per_sample``.
    y0 : pytree of Tensor
        Initial state, floating or complex. With ``per_sample`` every leaf has the same leading batch axis.
    t : (t0, t1), Tensor[T] or Tensor[rows, T]
        Two ends, or the output times, increasing or decreasing; per sample each row may have its own, and repeat its
        last where it has fewer. Kept in float64.
    args : tuple
        Further arguments of f, pytrees; tensors in them receive gradients.
    args_dims : int, None, or tuple of these
        Which axis of each of ``args`` is the row axis, as ``in_dims`` of `torch.vmap`; so that rows that are done can
        be left out of the batch.
    method : str, Tableau or method
        One of `methods`: "tsit5", "dopri5", "bosh3" adapt their steps; "rk4", "heun2", "midpoint", "euler" need a
        ``step_size``.
    rtol, atol : float, Tensor or pytree
        Tolerated error a step is ``atol + rtol * |y|``, number by number; reduced by the root mean square over each
        leaf, and the largest over leaves. Tensors broadcast against each leaf.
    step_size : float, optional
        Step of a fixed method.
    max_steps : int
        Attempts allowed to each row.
    per_sample : bool
        Give every row its own time and step size. f must then treat rows independently, which is checked.
    controller : {"i", "pi", "pid"} or PID, PI, I, Given, optional
        How steps are chosen; "i" unless given.
    gradient : {"replay", "adjoint", "direct"} or Replay, Adjoint, Direct
        How derivatives are taken with respect to y0, args, t and every tensor that f uses. "replay" is exact for the
        computed steps at the memory of their states; "adjoint" is the paper's, at constant memory and to tolerance;
        "direct" is backpropagation through everything.
    engine : {"eager"}
        Who repeats the step.
    dense : bool
        Keep the interpolants: the solution can then be called at any time.
    save : "steps" or callable, optional
        "steps": put out the accepted steps instead of the states at ``t``. A function ``save(t, y, *args)`` returning a
        pytree of tensors: keep that of each output instead of the state.
    on_failure : {"raise", "return"}
        Raise `SolveError` where a row does not arrive, or return NaN after its failure with the status beside it.
    progress : bool
        Show a bar in t.

    Returns
    -------
    Solution
        ``ts``, ``ys`` (leaves [T, *leaf shape]), ``status``, ``stats``.

    Raises
    ------
    TypeError, ValueError
        For bad arguments, naming the argument, what came and what is wanted.
    SolveError
        Where a row does not arrive; holds the partial solution.
    GradientError
        In backward, where the gradient would be wrong: f changed in between, or used a tensor not seen before.

    Examples
    --------
    >>> import torch, neuralode as node
    >>> sol = node.solve(lambda t, y: -y, torch.tensor([1.0], dtype=torch.float64), (0.0, 1.0), rtol=1e-8)
    >>> round(sol.y1.item(), 6)  # exp(-1)
    0.367879
    """
    method, engine = find_method(method), find_engine(engine)
    controller = find_controller(controller, method, step_size)
    gradient = find_gradient(gradient, engine)
    gradient.check(method, controller, per_sample)
    check_choices(save, on_failure, max_steps)
    problem = pose(f, y0, t, args, args_dims, per_sample)
    tolerances = check_tolerances(rtol, atol, problem.layout)
    norm = Norm(problem.layout, *tolerances, per_sample, check_reduction(controller.norm))
    function = save if callable(save) else None
    plan = Plan(inside=problem.has_inner_outputs and save != "steps", dense=dense, steps=save == "steps", save=function)

    f0, captured = look(problem, function)
    differentiable = torch.is_grad_enabled() and any(x.requires_grad for x in (problem.y0, problem.t, *captured))
    plan = gradient.plan(plan) if differentiable else plan
    ambient = surroundings(problem.field.f, problem.layout.device) if differentiable else None
    with torch.no_grad(), bar(progress) as tell:
        checks = check_rows(problem) if per_sample else 0
        record, outputs = march(problem, f0, plan, method, controller, norm, engine, max_steps, tell)
        record.calls += checks
        if plan.dense or plan.steps:
            record.chunks = number_places(record.chunks, problem.layout.rows, problem.layout.device)
        leaves = read(problem, plan, record, outputs)
    if torch.is_autocast_enabled(problem.layout.device.type):
        torch.clear_autocast_cache()  # casts made without a graph would be found again by code that wants one

    backward = [0]
    if differentiable:
        solved = Solved(
            problem, plan, method, controller, engine, tolerances, max_steps,
            record, tuple(leaves), captured, ambient, backward,
        )  # fmt: skip
        leaves = gradient.attach(solved)
    solution = wrap(problem, plan, method, record, leaves, outputs.spec, function, backward)
    if some(record.status >= Status.MAX_STEPS):
        if on_failure == "raise":
            raise complain(solution, problem, record, max_steps)
        return solution
    if save is not None or isinstance(controller, Given):
        return solution
    again = partial(
        solve, f, args=args, args_dims=args_dims, method=method, rtol=rtol, atol=atol, max_steps=max_steps,
        per_sample=per_sample, gradient=gradient, engine=engine, dense=dense, on_failure=on_failure, progress=progress,
    )  # fmt: skip
    return replace(solution, _continue=partial(again, controller=controller.resume(record.h)))
