"""Read torchdiffeq's ``options`` dict: a method, a controller, stop times, a norm and callbacks."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from neuralode.controllers import Controller, Fixed, Given, I, find_controller
from neuralode.torchdiffeq.arguments import Arguments, warn_caller
from neuralode.torchdiffeq.fixed_grid import Interpolated
from neuralode.torchdiffeq.user_function import Callback, find_callbacks

UNLIMITED = 2**31 - 1
SINGLE_STEP = Fixed(1e300)  # one step, whatever the length of the solve
# options that describe the step size controller
STEP_OPTIONS = (
    "first_step", "min_step", "max_step", "safety", "ifactor", "dfactor", "step_size", "grid_constructor",
)  # fmt: skip
EVENT_STEPS = 20_000  # limit for a fixed-step method that searches for an event


@dataclass(frozen=True)
class SolverOptions:
    """Settings of one solve.

    Parameters
    ----------
    method : Method
        The method that takes the steps.
    controller : Controller
        The step size controller.
    norm : callable, optional
        The user's norm of the scaled error.
    step_t, jump_t : Tensor, optional
        Further times at which steps end; func is discontinuous at ``jump_t``.
    perturb : bool, default=False
        Evaluate func strictly within each step.
    grid_at_outputs : bool, default=False
        Steps end at the output times and nowhere else.
    limit : int, optional
        Number of attempts allowed between two output times.
    callbacks : dict
        The callbacks of func that the solver supports.
    """

    method: Any
    controller: Controller
    norm: Callable[[Any], Tensor] | None = None
    step_t: Tensor | None = None
    jump_t: Tensor | None = None
    perturb: bool = False
    grid_at_outputs: bool = False
    limit: int | None = None
    callbacks: dict[str, Callback] = field(default_factory=dict)


def read_options(arguments: Arguments, suffix: str = "") -> SolverOptions:
    """Read the options of a call; warn about options and callbacks that its solver does not support."""
    solver, options = arguments.solver, arguments.options
    unknown = {name: value for name, value in options.items() if name not in solver.options}
    if unknown:
        warn_caller(f"{solver.title}: Unexpected arguments {unknown}")
    method = solver.build(arguments)
    read = _read_adaptive if solver.adaptive else _read_fixed_step
    return replace(read(arguments, method), callbacks=find_callbacks(arguments, suffix))


def _read_adaptive(arguments: Arguments, method: Any) -> SolverOptions:
    options = arguments.options
    min_step, max_step = _number(options, "min_step", 0.0), _number(options, "max_step", math.inf)
    first_step = None if options.get("first_step") is None else _number(options, "first_step", 0.0)
    for name, size in (("first_step", first_step), ("max_step", max_step)):
        if size is not None and not size > 0:
            raise AssertionError(f"underflow in dt {size}: {name} is not positive, so that no step can be taken.")
    dtype = options.get("dtype", torch.float64)
    if not isinstance(dtype, torch.dtype):
        raise TypeError(f"dtype={dtype!r}; wanted a torch.dtype. Times are always kept in float64.")
    controller = _given_controller(options, method)
    if controller is None:
        controller = I(
            safety=_number(options, "safety", 0.9),
            factor_min=_number(options, "dfactor", 0.2),
            factor_max=_number(options, "ifactor", 10.0),
            first_step=first_step,
            min_step=min(min_step, max_step) if min_step > 0 else None,  # max_step takes precedence
            max_step=None if math.isinf(max_step) else max_step,
        )
    step_t, jump_t = (_stop_times(arguments, name) for name in ("step_t", "jump_t"))
    stops = torch.cat([x for x in (step_t, jump_t) if x is not None] or [torch.empty(0)])
    if len(stops.unique()) < len(stops):
        raise ValueError(
            f"`step_t` and `jump_t` must not have any repeated elements between them: {sorted(stops.tolist())}."
        )
    limit = int(options.get("max_num_steps", UNLIMITED))
    return SolverOptions(
        method=method,
        controller=controller,
        norm=_error_norm(options),
        step_t=step_t,
        jump_t=jump_t,
        limit=None if limit >= UNLIMITED else limit,
    )


def _read_fixed_step(arguments: Arguments, method: Any) -> SolverOptions:
    options = arguments.options
    step_size, constructor = options.get("step_size"), options.get("grid_constructor")
    if step_size is not None and constructor is not None:
        raise ValueError("step_size and grid_constructor are mutually exclusive: each of them defines where steps end.")
    interp = options.get("interp", "linear")
    if interp not in ("linear", "cubic"):
        raise ValueError(f'Unknown interpolation method {interp}; wanted "linear" or "cubic".')
    given = _given_controller(options, method)
    if arguments.event_fn is not None:
        assert step_size is not None or given is not None, (
            "Event handling for fixed step solvers currently requires `step_size`: options={'step_size': ...}."
        )
    if given is not None:
        controller = given
    elif step_size is not None:
        controller = Fixed(_number(options, "step_size", 0.0))
    else:
        controller = Given(_grid(arguments, constructor))
    return SolverOptions(
        method=Interpolated(method, interp),
        controller=controller,
        perturb=bool(options.get("perturb", False)),
        grid_at_outputs=given is None and step_size is None and constructor is None,
        limit=EVENT_STEPS if arguments.event_fn is not None else None,
    )


def _given_controller(options: dict[str, Any], method: Any) -> Controller | None:
    """Return the controller of ``options["controller"]``, a name or an object; None without one."""
    if options.get("controller") is None:
        return None
    others = [name for name in STEP_OPTIONS if options.get(name) is not None]
    if others:
        raise ValueError(f"options hold 'controller' and {others}, which describe a controller; wanted one of them.")
    return find_controller(options["controller"], method, None)


def _number(options: dict[str, Any], name: str, default: float) -> float:
    try:
        return float(options.get(name, default))
    except (TypeError, ValueError) as error:
        raise TypeError(f"{name} is a {type(options[name]).__name__}; wanted a number.") from error


def _stop_times(arguments: Arguments, name: str) -> Tensor | None:
    """Return the times of an option, in any order, without those before the start."""
    given = arguments.options.get(name)
    if given is None:
        return None
    times = torch.as_tensor(given, dtype=torch.float64).detach().cpu().reshape(-1)
    ahead = (times - float(arguments.t[0].detach())) * arguments.direction
    return times[ahead >= 0]


def _error_norm(options: dict[str, Any]) -> Callable[[Any], Tensor] | None:
    """Return the user's norm as a function whose value is a tensor that is not negative."""
    norm = options.get("norm")
    if norm is None:
        return None
    if not callable(norm):
        raise TypeError(f"norm is a {type(norm).__name__}; wanted a callable of the state that returns a number.")
    return lambda errors: torch.as_tensor(norm(errors)).abs()


def _grid(arguments: Arguments, constructor: Callable[..., Any] | None) -> Tensor:
    """Return the times at which steps end: the output times, or those of the user's grid constructor."""
    t = arguments.t.detach()
    if constructor is None or len(t) < 2:
        return t if len(t) > 1 else t.expand(2)
    grid = torch.as_tensor(constructor(arguments.func, arguments.y0, arguments.t)).detach()
    ends = t.to(grid.device)
    valid = grid.dim() == 1 and len(grid) > 1 and torch.equal(grid[[0, -1]], ends[[0, -1]])
    assert valid, (
        f"grid_constructor(func, y0, t) returned {grid.tolist()}; wanted times that begin with "
        f"t[0]={ends[0].item():.9g} and end with t[-1]={ends[-1].item():.9g}."
    )
    return grid
