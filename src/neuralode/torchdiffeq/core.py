"""Where this face meets the core: one task, one call of `integrate`, and torchdiffeq's errors for what fails."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from neuralode.autodiff.transforms import transforming
from neuralode.controllers import find_stops
from neuralode.core.layout import Layout
from neuralode.core.norms import Norm
from neuralode.core.problem import make_problem
from neuralode.core.solution import Solution
from neuralode.core.status import Status
from neuralode.engines import find_engine
from neuralode.gradients import Direct, Replay
from neuralode.inputs.events import Event
from neuralode.solver.errors import complain
from neuralode.solver.integrate import Setting, integrate
from neuralode.solver.stiffness import FEW, looks_stiff
from neuralode.torchdiffeq import transformed
from neuralode.torchdiffeq.adapt import Adapted
from neuralode.torchdiffeq.callbacks import observe
from neuralode.torchdiffeq.inputs import Task
from neuralode.torchdiffeq.options import UNLIMITED, Options


@dataclass
class Exact:
    """The gradient of the computed steps: replayed, or kept whole where f draws random numbers, which replay refuses.

    Which of them is known when f has been called once.
    """

    device: torch.device
    before: tuple[Tensor, ...] = ()
    chosen: Any = field(default_factory=Replay)

    def __post_init__(self) -> None:
        self.before = _random(self.device)

    @property
    def name(self) -> str:
        """Which it is."""
        return self.chosen.name

    @property
    def derivatives(self) -> int:
        """How often it can be differentiated through an event."""
        return self.chosen.derivatives

    def plan(self, plan: Any) -> Any:
        """Choose, and keep what the choice needs."""
        drawn = not all(torch.equal(a, b) for a, b in zip(self.before, _random(self.device), strict=True))
        self.chosen = Direct() if drawn else Replay()
        return self.chosen.plan(plan)

    def attach(self, solved: Any) -> list[Tensor]:
        """The leaves of the solve, differentiable."""
        return self.chosen.attach(solved)


def _random(device: torch.device) -> tuple[Tensor, ...]:
    """The states of the generators that f may draw from."""
    if device.type == "cpu":
        return (torch.get_rng_state(),)
    return torch.get_rng_state(), torch.get_device_module(device).get_rng_state(device)


@dataclass(frozen=True)
class Gradient:
    """How derivatives are taken.

    ``make`` makes a gradient of the core for a state that is laid out so; without it derivatives are those of the
    steps. ``to`` are the tensors that receive some beside y0 and t; None: all that func uses.
    """

    make: Callable[[Layout], Any] | None = None
    to: tuple[Tensor, ...] | None = None


def run(task: Task, options: Options, gradient: Gradient | None = None, dense: bool = False) -> Solution:
    """Solve a task; adaptive methods raise where they cannot go on, fixed ones answer NaN."""
    if transforming():
        raise transformed.refuse(task)  # derivatives would be zero without a word
    gradient = gradient or Gradient()
    t, events = task.t, ()
    if task.event_fn is not None:
        t = torch.cat((t[:1].double(), t.new_full((1,), torch.inf * task.direction, dtype=torch.float64)))
        events = (Event(task.event_fn),)
    problem = make_problem(Adapted(task.func, task.y0), task.y0, t, (), None, False, endless=bool(events))
    layout = problem.layout
    rtol, atol = layout.broadcast(task.rtol), layout.broadcast(task.atol)
    stops = find_stops(options.step_t, options.jump_t, options.perturb, problem.start, problem.end, problem.direction)
    fixed_event = bool(events) and not task.solver.adaptive
    setting = Setting(
        method=options.method,
        controller=options.controller,
        norm=Norm(layout, rtol, atol, False, options.norm or "rms"),
        engine=find_engine("eager", options.method),
        gradient=Exact(layout.device) if gradient.make is None else gradient.make(layout),
        max_steps=options.limit if fixed_event and options.limit else UNLIMITED,
        dense=dense,
        stops=stops,
        events=events,
        observer=observe(task, options.callbacks, None if fixed_event else options.limit, layout.unpack),
        captured=gradient.to,
        strict=gradient.to is None,
    )
    solution, record = integrate(problem, setting)
    if record.status >= Status.MAX_STEPS and (task.solver.adaptive or events):
        stiff = looks_stiff(problem, record, setting.method, setting.controller, FEW)
        cause = complain(solution, problem, record, setting.max_steps, stiff)
        raise translated(task, record, str(cause)) from cause
    if record.status == Status.NONFINITE and options.method.implicit:
        warnings.warn(
            f"Functional iteration did not converge at t={float(record.t):.9g}: what follows is NaN. Wanted smaller "
            "steps, or a func whose answer is finite.",
            stacklevel=5,
        )
    return solution


def translated(task: Task, record: Any, why: str) -> Exception:
    """A failure as torchdiffeq reports it: the type and the beginning that its users look for."""
    if record.status == Status.MAX_STEPS:
        if not task.solver.adaptive:
            return RuntimeError(f"Reached maximum number of iterations without an event. {why}")
        return AssertionError(f"max_num_steps exceeded: {why}")
    parts = (task.y0,) if isinstance(task.y0, Tensor) else task.y0
    began = all(bool(part.isfinite().all()) for part in parts)
    if record.status == Status.NONFINITE and (not began and task.options.get("first_step") is not None):
        return AssertionError(f"non-finite values in state `y`: {why}")
    finite = "" if record.status == Status.STEP_UNDERFLOW else " (non-finite values in state `y` or in func)"
    return AssertionError(f"underflow in dt {float(record.h)}{finite}: {why}")
