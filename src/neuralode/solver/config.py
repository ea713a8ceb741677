"""Resolve and check the arguments of a solve: they become a problem and its configuration."""

from __future__ import annotations

from neuralode.controllers import Controller, find_controller, find_stops
from neuralode.core.norms import Norm, check_reduction, check_tolerances
from neuralode.core.problem import Problem, make_problem
from neuralode.core.registry import check_members
from neuralode.core.times import Times
from neuralode.core.types import Axes, PyTree, Save, Tolerance, UserFunction
from neuralode.engines import find_engine
from neuralode.engines.base import Engine, Observer, SolveConfig
from neuralode.gradients import Gradient, find_gradient
from neuralode.inputs.events import Event, find_events
from neuralode.methods import Method, Tableau, find_method
from neuralode.solver.checks import check_max_steps, check_save, check_together


def resolve(
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
    perturb: bool = False,
    observer: Observer | None = None,
    progress: bool = False,
) -> tuple[Problem, SolveConfig]:
    """Return the problem and the configuration that the arguments of `solve` describe.

    All front ends of the solver resolve their arguments here: `solve`, `Stepper`, `solve_ensemble` and the layers of
    `neuralode.nn`. The arguments are those of `solve`.

    Raises
    ------
    TypeError, ValueError
        For arguments that are invalid or exclude each other. The message names the argument, its value and what is
        wanted.
    """
    method = find_method(method)
    engine = find_engine(engine, method)
    controller = find_controller(controller, method, step_size)
    gradient, events_ = find_gradient(gradient), find_events(events)
    if observer is not None:
        check_members("observer", observer, Observer, named=False)
    save, max_steps = check_save(save), check_max_steps(max_steps)
    endless = any(event.terminal for event in events_)
    problem = make_problem(f, y0, t, args=args, args_dims=args_dims, per_sample=per_sample, endless=endless)
    rtol, atol = check_tolerances(rtol, atol, problem.layout)
    config = SolveConfig(
        method=method,
        controller=controller,
        norm=Norm(
            layout=problem.layout,
            rtol=rtol,
            atol=atol,
            per_sample=per_sample,
            reduction=check_reduction(controller.norm),
        ),
        engine=engine,
        gradient=gradient,
        max_steps=max_steps,
        stops=find_stops(problem, step_t=step_t, jump_t=jump_t, perturb=perturb),
        events=events_,
        observer=observer,
        dense=dense,
        save=save,
        progress=progress,
    )
    gradient.check(config, per_sample)
    check_together(config, per_sample=per_sample, step_t=step_t, jump_t=jump_t)
    return problem, config
