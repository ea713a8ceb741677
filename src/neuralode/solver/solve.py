"""The function `solve`: resolve the arguments, integrate, and raise an error if rows failed."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any, Literal

from neuralode.controllers import Controller, Given
from neuralode.core.clock import some
from neuralode.core.solution import Solution
from neuralode.core.status import MAX_STEPS
from neuralode.core.times import Times
from neuralode.core.types import Axes, PyTree, Save, Tolerance, UserFunction
from neuralode.engines.base import Engine, Observer
from neuralode.gradients import Gradient
from neuralode.inputs.doses import Dose
from neuralode.inputs.events import Event
from neuralode.methods import Method, Tableau
from neuralode.solver.checks import check_on_failure
from neuralode.solver.config import resolve
from neuralode.solver.errors import solve_error
from neuralode.solver.integrate import integrate
from neuralode.solver.solve_with_doses import solve_with_doses
from neuralode.solver.stiffness import warn_of_stiffness


def solve(
    f: UserFunction,
    y0: PyTree,
    t: Times,
    *,
    args: tuple = (),
    args_dims: Axes = None,
    method: str | Method | Tableau = "tsit5",
    rtol: Tolerance = 1e-4,
    atol: Tolerance = 1e-6,
    step_size: float | None = None,
    max_steps: int = 100_000,
    per_sample: bool = False,
    controller: str | Controller | None = None,
    gradient: str | Gradient = "replay",
    engine: str | Engine = "eager",
    dense: bool = False,
    save: Save = None,
    events: Event | list[Event] | None = None,
    step_t: Times | None = None,
    jump_t: Times | None = None,
    doses: Dose | list[Dose] | None = None,
    perturb: bool = False,
    observer: Observer | None = None,
    on_failure: Literal["raise", "return"] = "raise",
    progress: bool = False,
) -> Solution:
    """Solve dy/dt = f(t, y) from y0, differentiably.

    Parameters
    ----------
    f : callable
        ``f(t, y, *args)`` returning dy/dt, with the structure, shapes and dtypes of y. During one solve it must be a
        function of its arguments: no dropout, no batch statistics. t is 0-d in the real dtype of the state, or [rows]
        with ``per_sample``.
    y0 : pytree of Tensor
        Initial state, floating or complex. With ``per_sample`` all leaves have the same leading batch axis.
    t : (t0, t1), Tensor[T] or Tensor[rows, T]
        Both ends, or the output times, increasing or decreasing, kept in float64. With ``per_sample`` each row may have
        its own; rows with fewer times repeat their last. The last time may be infinite if a terminal event ends the
        solve.
    args : tuple, default=()
        Further arguments of f, pytrees. Tensors in them receive gradients.
    args_dims : int, None or tuple of these, default=None
        The row axis of each of ``args``, as ``in_dims`` of `torch.vmap`, so that finished rows can leave the batch.
    method : str, Method or Tableau, default="tsit5"
        One of `methods`, or an object with the members of `Method` (docs/extending.md). "tsit5", "dopri5" and "bosh3"
        adapt their steps; "rk4", "heun2", "midpoint" and "euler" need a ``step_size``.
    rtol, atol : float, Tensor or pytree, default=1e-4, 1e-6
        The tolerated error of a step is ``atol + rtol * max(|y|)`` of both ends, elementwise. Scaled errors reduce
        to the root mean square over each leaf (on a shared clock over its rows too) and the largest over leaves;
        ``controller.norm`` changes that. Tensors broadcast against each leaf.
    step_size : float, default=None
        Step of a fixed method.
    max_steps : int, default=100_000
        Attempts allowed to each row.
    per_sample : bool, default=False
        Give every row its own time and step size. f must treat rows independently, which is checked.
    controller : {"i", "pi", "pid"} or Controller, default=None
        How steps are chosen: `PID`, `PI`, `I`, `Given` or your own. If None, "i" for methods that adapt their steps.
    gradient : {"replay", "adjoint", "direct"} or Gradient, default="replay"
        How derivatives by y0, args, t and every tensor that f uses are taken. "replay" is exact for the computed steps
        and keeps their states; "adjoint" (Chen et al. 2018) has constant memory and is correct to tolerance; "direct"
        backpropagates through all steps.
    engine : {"eager"} or Engine, default="eager"
        The engine that runs the solve.
    dense : bool, default=False
        Keep the interpolants of all steps, so that the solution can be evaluated at any time.
    save : "steps" or callable, default=None
        "steps": return the accepted steps instead of the states at ``t``. A function ``save(t, y, *args)`` returning a
        pytree of tensors: return its values at the output times instead of the states.
    events : Event or list of Event, default=None
        Functions whose zeros are located. Output times after a terminal event become its time, in ``ts`` as well,
        and the outputs become the state there. ``events`` of the solution holds the times and states of all zeros.
    step_t, jump_t : Tensor[S] or sequence of float, default=None
        Times at which steps must end. At the times in ``jump_t`` f is discontinuous: it is evaluated strictly before
        and strictly after them.
    doses : Dose or list of Dose, default=None
        Jumps of the state at given times, differentiable by their times and amounts.
    perturb : bool, default=False
        Evaluate f strictly inside every step, as if it were discontinuous at both ends.
    observer : Observer, default=None
        Its methods ``attempted(t, y, h)``, then ``accepted(t, y, h)`` or ``rejected(t, y, h)`` are called at every
        attempt, with the packed state [rows, features] and the time and step size of its clock.
    on_failure : {"raise", "return"}, default="raise"
        Whether to raise `SolveError` if a row fails, or to return NaN from its failure on, with the status of each row.
    progress : bool, default=False
        Show a progress bar.

    Returns
    -------
    Solution
        ``ts``, ``ys`` (leaves [T, *leaf shape]), ``status``, ``stats``, ``events``.

    Raises
    ------
    TypeError, ValueError
        For invalid arguments. The message names the argument, its value and what is wanted.
    SolveError
        If a row fails. It holds the partial solution.
    GradientError
        Under a `torch.func` transform of events or implicit methods; in backward, if the gradient would be wrong:
        f changed in between, or used a tensor that it had not used before.

    Examples
    --------
    >>> import torch, neuralode as node
    >>> sol = node.solve(lambda t, y: -y, torch.tensor([1.0], dtype=torch.float64), (0.0, 1.0), rtol=1e-8)
    >>> round(sol.y1.item(), 6)  # exp(-1)
    0.367879
    """
    options: dict[str, Any] = {
        "args": args, "args_dims": args_dims, "method": method, "rtol": rtol, "atol": atol, "step_size": step_size,
        "max_steps": max_steps, "per_sample": per_sample, "controller": controller, "gradient": gradient,
        "engine": engine, "dense": dense, "events": events, "step_t": step_t, "jump_t": jump_t, "perturb": perturb,
        "observer": observer, "progress": progress,
    }  # fmt: skip
    check_on_failure(on_failure)
    if doses is not None:
        if isinstance(controller, Given):
            raise ValueError(
                "controller=Given(...) with doses; wanted tolerances or step_size, which restart at each dose."
            )
        problem, _ = resolve(f, y0, t, **options)
        between = partial(solve, f, on_failure=on_failure, **options)
        return solve_with_doses(between, problem, y0, doses=doses, save=save, on_failure=on_failure)
    problem, config = resolve(f, y0, t, save=save, **options)
    solution, record = integrate(problem, config)
    if some(record.status >= MAX_STEPS):
        if on_failure == "raise":
            raise solve_error(solution, problem, record, config=config)
        return solution
    warn_of_stiffness(problem, record, config)
    if save is not None or isinstance(config.controller, Given):
        return solution
    options |= {"step_size": None, "controller": config.controller.resume(record.h), "on_failure": on_failure}
    return replace(solution, _continue=partial(solve, f, **options))
