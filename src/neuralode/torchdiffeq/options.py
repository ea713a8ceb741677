"""``options`` as torchdiffeq has them, read into what the core wants: a method, a controller, stops, a norm."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from neuralode.controllers import Fixed, Given, I
from neuralode.torchdiffeq.callbacks import find_callbacks
from neuralode.torchdiffeq.inputs import Task
from neuralode.torchdiffeq.reading import Reading

UNLIMITED = 2**31 - 1
ONE_STEP = Fixed(1e300)  # for a solve that is one step, whatever its length
EVENT_STEPS = 20_000  # of a fixed method on its way to an event


@dataclass(frozen=True)
class Options:
    """How a task is to be solved.

    ``controller`` says where steps end; ``step_t`` and ``jump_t`` are further times at which they do. ``by_outputs``
    says that steps end at the output times and nowhere else. ``limit`` is the number of attempts allowed between two
    output times, None where there is no limit. ``callbacks`` are those of func that the solver calls.
    """

    method: Any
    controller: Any
    norm: Callable[[Any], Tensor] | None = None
    step_t: Tensor | None = None
    jump_t: Tensor | None = None
    perturb: bool = False
    by_outputs: bool = False
    limit: int | None = None
    callbacks: dict[str, Callable[..., Any]] = field(default_factory=dict)


def read_options(task: Task, suffix: str = "") -> Options:
    """What the options of a task ask for; warns of options, and of callbacks, that its solver does not have."""
    solver, options = task.solver, task.options
    unknown = {name: value for name, value in options.items() if name not in solver.options}
    if unknown:
        warnings.warn(f"{solver.title}: Unexpected arguments {unknown}", stacklevel=4)
    method = solver.build(task)
    read = _adaptive(task, method) if solver.adaptive else _stated(task, method)
    return replace(read, callbacks=find_callbacks(task.func, solver, task.method, suffix))


def _adaptive(task: Task, method: Any) -> Options:
    options = task.options
    least, most = _size(options, "min_step", 0.0), _size(options, "max_step", math.inf)
    first = None if options.get("first_step") is None else _size(options, "first_step", 0.0)
    for name, size in (("first_step", first), ("max_step", most)):
        if size is not None and not size > 0:
            raise AssertionError(f"underflow in dt {size}: {name} is not positive, so that no step leads on.")
    dtype = options.get("dtype", torch.float64)
    if not isinstance(dtype, torch.dtype):
        raise TypeError(f"dtype={dtype!r}; wanted a torch.dtype. Times are kept in float64 whatever it is.")
    controller = I(
        safety=_size(options, "safety", 0.9),
        factor_min=_size(options, "dfactor", 0.2),
        factor_max=_size(options, "ifactor", 10.0),
        first_step=first,
        min_step=min(least, most) if least > 0 else None,  # where they disagree, max_step wins
        max_step=None if math.isinf(most) else most,
    )
    step_t, jump_t = (_marks(task, name) for name in ("step_t", "jump_t"))
    both = torch.cat([x for x in (step_t, jump_t) if x is not None] or [torch.empty(0)])
    if len(both.unique()) < len(both):
        raise ValueError(
            f"`step_t` and `jump_t` must not have any repeated elements between them: {sorted(both.tolist())}."
        )
    limit = int(options.get("max_num_steps", UNLIMITED))
    return Options(method, controller, _norm(task), step_t, jump_t, limit=None if limit >= UNLIMITED else limit)


def _size(options: dict[str, Any], name: str, default: float) -> float:
    try:
        return float(options.get(name, default))
    except (TypeError, ValueError) as error:
        raise TypeError(f"{name} is a {type(options[name]).__name__}; wanted a number.") from error


def _marks(task: Task, name: str) -> Tensor | None:
    """The times of an option that do not lie before the start, of those given in any order."""
    given = task.options.get(name)
    if given is None:
        return None
    times = torch.as_tensor(given, dtype=torch.float64).detach().cpu().reshape(-1)
    ahead = (times - float(task.t[0].detach())) * task.direction
    return times[ahead >= 0]


def _norm(task: Task) -> Callable[[Any], Tensor] | None:
    """The user's norm as the core calls one."""
    norm = task.options.get("norm")
    if norm is None:
        return None
    if not callable(norm):
        raise TypeError(f"norm is a {type(norm).__name__}; wanted a callable of the state that returns a number.")
    return lambda errors: torch.as_tensor(norm(errors)).abs()


def _stated(task: Task, method: Any) -> Options:
    options = task.options
    size, constructor = options.get("step_size"), options.get("grid_constructor")
    if size is not None and constructor is not None:
        raise ValueError("step_size and grid_constructor are mutually exclusive: each of them says where steps end.")
    interp = options.get("interp", "linear")
    if interp not in ("linear", "cubic"):
        raise ValueError(f'Unknown interpolation method {interp}; wanted "linear" or "cubic".')
    if task.event_fn is not None:
        assert size is not None, (
            "Event handling for fixed step solvers currently requires `step_size`: options={'step_size': ...}."
        )
    controller = Fixed(_size(options, "step_size", 0.0)) if size is not None else Given(_grid(task, constructor))
    return Options(
        Reading(method, interp),
        controller,
        perturb=bool(options.get("perturb", False)),
        by_outputs=size is None and constructor is None,
        limit=EVENT_STEPS if task.event_fn is not None else None,
    )


def _grid(task: Task, constructor: Any) -> Tensor:
    """The times at which steps end: those of the outputs, or what the user makes of them."""
    if constructor is None or len(task.t) < 2:
        return task.t.detach() if len(task.t) > 1 else task.t.detach().expand(2)
    grid = torch.as_tensor(constructor(task.func, task.y0, task.t)).detach()
    ends = task.t.detach().to(grid.device)
    sound = grid.dim() == 1 and len(grid) > 1 and torch.equal(grid[[0, -1]], ends[[0, -1]])
    assert sound, (
        f"grid_constructor(func, y0, t) returned {grid.tolist()}; wanted times that begin with "
        f"t[0]={ends[0].item():.9g} and end with t[-1]={ends[-1].item():.9g}."
    )
    return grid
