"""Solve a checked call with our solver. No other module of this package uses its engines, gradients and settings."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor
from torch._C._functorch import peek_interpreter_stack
from torch.utils._pytree import tree_map

from neuralode.autodiff.context import ForwardContext
from neuralode.autodiff.transforms import transforming
from neuralode.core.field import Field
from neuralode.core.layout import Layout, lay_out
from neuralode.core.problem import Problem
from neuralode.core.record import Plan, Record
from neuralode.core.solution import Solution
from neuralode.core.status import MAX_STEPS, BackwardSolveError, Status
from neuralode.engines.base import SolveConfig, Trajectory
from neuralode.gradients import Adjoint, Direct, Replay
from neuralode.gradients.adjoint import AdjointFunction
from neuralode.gradients.adjoint_sweep import AdjointSweep
from neuralode.inputs.events import Event
from neuralode.solver.config import resolve
from neuralode.solver.errors import solve_error
from neuralode.solver.integrate import integrate
from neuralode.torchdiffeq.arguments import Arguments, State, warn_caller
from neuralode.torchdiffeq.events import DifferentiableEvent, combine_event_values
from neuralode.torchdiffeq.external_solvers import solve_by_external_solver
from neuralode.torchdiffeq.fixed_grid import grid_times, solve_on_grid
from neuralode.torchdiffeq.options import SINGLE_STEP, UNLIMITED, SolverOptions, read_options
from neuralode.torchdiffeq.user_function import CheckedFunction, make_observer


@dataclass(frozen=True)
class GradientOptions:
    """How a solve is differentiated.

    Parameters
    ----------
    build : callable, optional
        Returns the gradient method for the layout of a state. By default the computed steps are differentiated.
    parameters : tuple of Tensor, optional
        The tensors that receive gradients besides y0 and t. By default all that func uses.
    """

    build: Callable[[Layout], Any] | None = None
    parameters: tuple[Tensor, ...] | None = None


def solve(arguments: Arguments, gradient: GradientOptions | None = None) -> Any:
    """Return the outputs of `odeint`: the states, or with an event function its time and the states at both ends."""
    if not arguments.native:
        return solve_by_external_solver(arguments)
    if arguments.event_fn is not None:
        return _solve_until_event(arguments, gradient)
    options = read_options(arguments)
    if gradient is None and transforming():
        return _solve_transformed(arguments, options)
    if gradient is None and options.method.one_call:
        gradient = GradientOptions(lambda layout: Adjoint(norm="full"))  # SciPy's steps are not recorded
    if gradient is None and _times_move_steps(arguments, options):
        return _solve_by_intervals(arguments, options)
    return solve_natively(arguments, options, gradient).ys


def solve_natively(
    arguments: Arguments, options: SolverOptions, gradient: GradientOptions | None = None, *, dense: bool = False
) -> Solution:
    """Solve once; adaptive methods raise an error on failure, fixed-step methods continue with NaN."""
    if transforming():
        raise _transform_error(arguments)
    problem, config = _resolve(arguments, options, gradient or GradientOptions())
    solution, record = integrate(problem, replace(config, dense=dense))
    if record.status >= MAX_STEPS and (arguments.solver.adaptive or config.events):
        cause = solve_error(solution, problem, record, config=config)
        raise _failure(arguments, record, str(cause)) from cause
    if record.status == Status.NONFINITE and options.method.implicit:
        warn_caller(
            f"Functional iteration did not converge at t={float(record.t):.9g}: later states are NaN. Use smaller "
            "steps, or a func whose values are finite."
        )
    return solution


def _resolve(arguments: Arguments, options: SolverOptions, gradient: GradientOptions) -> tuple[Problem, SolveConfig]:
    t, event = arguments.t, None
    if arguments.event_fn is not None:
        end = t.new_full((1,), torch.inf * arguments.direction, dtype=torch.float64)
        t, event = torch.cat((t[:1].double(), end)), Event(arguments.event_fn)
    # A fixed-step search for an event is limited as a whole, other solves from output to output.
    limit_whole_solve = event is not None and not arguments.solver.adaptive
    problem, config = resolve(
        CheckedFunction(arguments.func, arguments.y0),
        arguments.y0,
        t,
        method=options.method,
        controller=options.controller,
        max_steps=options.limit if limit_whole_solve and options.limit else UNLIMITED,
        events=event,
        step_t=options.step_t,
        jump_t=options.jump_t,
        perturb=options.perturb,
    )
    layout = problem.layout
    # torchdiffeq accepts tolerances and norms that `resolve` refuses.
    config = replace(
        config,
        norm=replace(
            config.norm,
            rtol=layout.broadcast(arguments.rtol),
            atol=layout.broadcast(arguments.atol),
            reduction=options.norm or config.norm.reduction,
        ),
        gradient=ReplayOrDirect(layout.device) if gradient.build is None else gradient.build(layout),
        observer=make_observer(
            arguments,
            options.callbacks,
            limit=None if limit_whole_solve else options.limit,
            unpack=layout.unpack,
        ),
    )
    return replace(problem, captured=gradient.parameters, strict=gradient.parameters is None), config


def _failure(arguments: Arguments, record: Record, reason: str) -> Exception:
    """Return an error of torchdiffeq's type whose message begins as torchdiffeq's does."""
    if record.status == Status.MAX_STEPS:
        if not arguments.solver.adaptive:
            return RuntimeError(f"Reached maximum number of iterations without an event. {reason}")
        return AssertionError(f"max_num_steps exceeded: {reason}")
    parts = (arguments.y0,) if isinstance(arguments.y0, Tensor) else arguments.y0
    finite_start = all(bool(part.isfinite().all()) for part in parts)
    if record.status == Status.NONFINITE and not finite_start and arguments.options.get("first_step") is not None:
        return AssertionError(f"non-finite values in state `y`: {reason}")
    finite = "" if record.status == Status.STEP_UNDERFLOW else " (non-finite values in state `y` or in func)"
    return AssertionError(f"underflow in dt {float(record.h)}{finite}: {reason}")


def _solve_until_event(arguments: Arguments, gradient: GradientOptions | None) -> tuple[Tensor, State]:
    """Return the time of the first event, and the states at the start and there."""
    assert arguments.event_fn is not None
    event_fn, zero_at_start = combine_event_values(
        arguments.event_fn,
        arguments.t[0],
        arguments.y0,
        differentiable=isinstance(arguments.event_fn, DifferentiableEvent),
    )
    options = read_options(arguments)
    if options.method.one_call:
        raise ValueError(f'method "{arguments.method}" finds no events; wanted a method that takes single steps.')
    if zero_at_start:
        return arguments.t[0], tree_map(lambda part: torch.stack((part, part)), arguments.y0)
    solution = solve_natively(replace(arguments, event_fn=event_fn), options, gradient)
    return solution.ts[-1].to(arguments.t), solution.ys


def _times_move_steps(arguments: Arguments, options: SolverOptions) -> bool:
    """Return whether the output times require gradients and are the ends of all steps."""
    if not (torch.is_grad_enabled() and arguments.t.requires_grad):
        return False
    return options.grid_at_outputs and options.method.memoryless and len(arguments.t) > 2


def _solve_by_intervals(arguments: Arguments, options: SolverOptions) -> State:
    """Solve from output to output, so that every output time is the differentiable end of a solve."""
    states, options = [arguments.y0], replace(options, controller=SINGLE_STEP)
    for i in range(len(arguments.t) - 1):
        interval = replace(arguments, y0=states[-1], t=arguments.t[i : i + 2])
        states.append(tree_map(lambda leaf: leaf[-1], solve_natively(interval, options).ys))
    return tree_map(lambda *leaves: torch.stack(leaves), *states)


def _solve_transformed(arguments: Arguments, options: SolverOptions) -> State:
    """Solve with plain torch operations, under a transform of `torch.func` or forward-mode differentiation."""
    if arguments.solver.adaptive or (options.method.implicit and peek_interpreter_stack() is not None):
        raise _transform_error(arguments)
    layout, t = lay_out(arguments.y0, False), arguments.t.double()
    field = Field(CheckedFunction(arguments.func, arguments.y0), layout=layout, guarded=False)
    at_outputs = options.grid_at_outputs
    states = solve_on_grid(
        field,
        layout.pack(arguments.y0),
        t if at_outputs else grid_times(options.controller, float(t[0]), float(t[-1])),
        method=options.method,
        output_times=None if at_outputs else t.detach().tolist(),
        perturb=options.perturb,
    )
    return layout.unpack(states)


def _transform_error(arguments: Arguments) -> RuntimeError:
    """Return the error for derivatives that would otherwise be zero without notice."""
    return RuntimeError(
        f'torch.func transforms and forward-mode differentiation do not support method "{arguments.method}", nor the '
        'adjoint, events and dense solutions; wanted odeint with an explicit fixed-step method such as "rk4", or '
        "torch.autograd."
    )


@dataclass
class ReplayOrDirect:
    """Gradient of the computed steps: replay, or direct if f draws random numbers, which replay refuses.

    Construct it before the first evaluation of f; `plan`, called after it, makes the choice.
    """

    device: torch.device
    states_before: tuple[Tensor, ...] = ()
    chosen: Replay | Direct = field(default_factory=Replay)

    def __post_init__(self) -> None:
        self.states_before = _generator_states(self.device)

    @property
    def name(self) -> str:
        """The name of the chosen gradient."""
        return self.chosen.name

    @property
    def derivatives(self) -> int:
        """How often the chosen gradient can be differentiated through an event."""
        return self.chosen.derivatives

    def check(self, config: SolveConfig, per_sample: bool) -> None:
        """Support every method and controller."""

    def plan(self, plan: Plan) -> Plan:
        """Choose the gradient, and record what it needs."""
        states = zip(self.states_before, _generator_states(self.device), strict=True)
        random_numbers_drawn = not all(torch.equal(before, after) for before, after in states)
        self.chosen = Direct() if random_numbers_drawn else Replay()
        return self.chosen.plan(plan)

    def attach(self, trajectory: Trajectory, context: ForwardContext) -> list[Tensor]:
        """Return the outputs with a graph."""
        return self.chosen.attach(trajectory, context)


def _generator_states(device: torch.device) -> tuple[Tensor, ...]:
    """Return the states of the random number generators that f may use."""
    if device.type == "cpu":
        return (torch.get_rng_state(),)
    return torch.get_rng_state(), torch.get_device_module(device).get_rng_state(device)


class AdjointGradient(Adjoint):
    """`Adjoint` whose failures are errors of torchdiffeq's type."""

    def attach(self, trajectory: Trajectory, context: ForwardContext) -> list[Tensor]:
        """Return the outputs with a graph."""
        sweep = AdjointSweep(trajectory, self.backwards(trajectory.config))
        return list(_AdjointFunction.apply(sweep, context, *trajectory.problem.inputs))


class _AdjointFunction(AdjointFunction):
    @staticmethod
    def backward(ctx: Any, *cotangents: Tensor) -> Any:
        try:
            return AdjointFunction.backward(ctx, *cotangents)
        except BackwardSolveError as error:
            raise AssertionError(f"underflow in dt, or non-finite values in state `y`: {error}") from error
