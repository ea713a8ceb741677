"""The verb: check what the user gave, integrate, and say what failed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any, Literal

from neuralode.controllers import Given, find_controller, find_stops
from neuralode.core.clock import some
from neuralode.core.norms import Norm, check_reduction, check_tolerances
from neuralode.core.problem import make_problem
from neuralode.core.solution import Solution
from neuralode.core.status import Status
from neuralode.engines import find_engine
from neuralode.gradients import find_gradient
from neuralode.inputs.events import find_events
from neuralode.methods import Method, Tableau, find_method
from neuralode.solver.checks import check_choices, check_pairs
from neuralode.solver.errors import complain
from neuralode.solver.integrate import Setting, integrate
from neuralode.solver.solve_with_doses import solve_with_doses
from neuralode.solver.stiffness import FEW, looks_stiff, warn_of_stiffness


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
    events: Any = None,
    step_t: Any = None,
    jump_t: Any = None,
    doses: Any = None,
    perturb: bool = False,
    observer: Any = None,
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
        last where it has fewer. Kept in float64. The last may be infinite where a terminal event ends the solve.
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
    events : Event or list of Event, optional
        Functions to find the zeros of. Behind a terminal one all output times become its time, in ``ts`` as well, and
        the outputs the state there; ``events`` of the solution holds the times and states of all.
    step_t, jump_t : Tensor[S] or sequence of float, optional
        Times at which steps must end. At those in ``jump_t`` f jumps: it is asked strictly before and strictly after.
    doses : Dose or list of Dose, optional
        Jumps of the state at known times, differentiable by their times and amounts.
    perturb : bool
        Ask f strictly inside of every step, as if it jumped at all their ends.
    observer : object, optional
        Its methods ``attempted(t, y, h)``, then ``accepted(t, y, h)`` or ``rejected(t, y, h)`` are called at every
        attempt, with the packed state [rows, features] and the numbers of its clock.
    on_failure : {"raise", "return"}
        Raise `SolveError` where a row does not arrive, or return NaN after its failure with the status beside it.
    progress : bool
        Show a bar in t.

    Returns
    -------
    Solution
        ``ts``, ``ys`` (leaves [T, *leaf shape]), ``status``, ``stats``, ``events``.

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
    if doses is not None:
        plain = partial(
            solve, f, args=args, args_dims=args_dims, method=method, rtol=rtol, atol=atol, step_size=step_size,
            max_steps=max_steps, per_sample=per_sample, controller=controller, gradient=gradient, engine=engine,
            dense=dense, events=events, step_t=step_t, jump_t=jump_t, perturb=perturb, observer=observer,
            on_failure=on_failure, progress=progress,
        )  # fmt: skip
        if isinstance(controller, Given):
            raise ValueError("controller=Given(...) with doses; wanted tolerances or step_size, which begin anew.")
        endless = any(event.terminal for event in find_events(events))
        problem = make_problem(f, y0, t, args=args, args_dims=args_dims, per_sample=per_sample, endless=endless)
        return solve_with_doses(plain, problem, y0, doses=doses, save=save, on_failure=on_failure)
    method = find_method(method)
    engine = find_engine(engine, method)
    controller = find_controller(controller, method, step_size)
    gradient, events = find_gradient(gradient), find_events(events)
    gradient.check(method, controller, per_sample)
    check_choices(save, on_failure, max_steps)
    problem = make_problem(f, y0, t, args, args_dims, per_sample, endless=any(event.terminal for event in events))
    tolerances = check_tolerances(rtol, atol, problem.layout)
    check_pairs(method, per_sample, dense, save, events, step_t, jump_t)
    stops = find_stops(step_t, jump_t, perturb, problem.start, problem.end, problem.direction)
    norm = Norm(problem.layout, *tolerances, per_sample, check_reduction(controller.norm))
    setting = Setting(
        method, controller, norm, engine, gradient, max_steps, dense, save, stops, events, observer, progress=progress
    )
    solution, record = integrate(problem, setting)
    if some(record.status >= Status.MAX_STEPS):
        if on_failure == "raise":
            raise complain(solution, problem, record, max_steps, looks_stiff(problem, record, method, controller, FEW))
        return solution
    warn_of_stiffness(problem, record, method, controller)
    if save is not None or isinstance(controller, Given):
        return solution
    again = partial(
        solve, f, args=args, args_dims=args_dims, method=method, rtol=rtol, atol=atol, max_steps=max_steps,
        per_sample=per_sample, gradient=gradient, engine=engine, dense=dense, on_failure=on_failure, progress=progress,
        events=events, step_t=step_t, jump_t=jump_t, perturb=perturb, observer=observer,
    )  # fmt: skip
    return replace(solution, _continue=partial(again, controller=controller.resume(record.h)))
