"""The registry of methods, by the names that torchdiffeq has for them. It may be written into."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from neuralode.methods import ExplicitAdams, ImplicitAdams, Scipy, methods
from neuralode.torchdiffeq.inputs import Task, check
from neuralode.torchdiffeq.tasks import solve_task

ADAPTIVE = frozenset(
    {
        "min_step", "max_step", "first_step", "step_t", "jump_t", "safety", "ifactor", "dfactor", "max_num_steps",
        "dtype", "norm",
    }
)  # fmt: skip
SCIPY = frozenset({"min_step", "max_step", "solver", "norm", "grid_points", "eps"})
STATED = frozenset({"step_size", "grid_constructor", "interp", "perturb", "norm"})
LOWEST_ORDER, HIGHEST_ORDER = 4, 12  # of Adams' methods
GATHERED = 3  # slopes before the first multistep step
CORRECTIONS = 4
STATED_CALLBACKS = frozenset({"callback_step"})
ADAPTIVE_CALLBACKS = frozenset({"callback_step", "callback_accept_step", "callback_reject_step"})


@dataclass(frozen=True)
class Solver:
    """What a name in `SOLVERS` stands for.

    Parameters
    ----------
    title : str
        What torchdiffeq calls the class, for its warnings.
    build : callable
        The method of the core, from a task with its options.
    adaptive : bool
        Whether steps are chosen by their error.
    options : frozenset of str
        The options it knows.
    callbacks : frozenset of str
        The callbacks of func that it calls.

    Examples
    --------
    >>> SOLVERS["rk4"].title, SOLVERS["rk4"].adaptive, "step_size" in SOLVERS["rk4"].options
    ('RK4', False, True)
    """

    title: str
    build: Callable[[Task], Any]
    adaptive: bool
    options: frozenset[str]
    callbacks: frozenset[str]

    @property
    def __name__(self) -> str:
        return self.title

    native = True

    def valid_callbacks(self) -> set[str]:
        """The callbacks of func that it calls."""
        return set(self.callbacks)

    def __call__(self, func: Any, y0: Tensor, rtol: Any, atol: Any, **options: Any) -> Bound:
        """By torchdiffeq's own protocol, for those who call its solvers themselves."""
        return Bound(self, func, y0, rtol, atol, options)


@dataclass(frozen=True)
class Bound:
    """A solver with all that it needs but the times."""

    solver: Solver
    func: Any
    y0: Tensor
    rtol: Any
    atol: Any
    options: dict[str, Any]

    def integrate(self, t: Tensor) -> Tensor:
        """The states at these times."""
        return solve_task(self._task(t, None))

    def integrate_until_event(self, t0: Tensor, event_fn: Callable[..., Any]) -> tuple[Tensor, Tensor]:
        """The time of an event after t0, and the states at both."""
        return solve_task(self._task(torch.stack((t0, t0.detach() + 1)), event_fn))

    def _task(self, t: Tensor, event_fn: Any) -> Task:
        names = {self.solver.title: self.solver}
        return check(self.func, self.y0, t, self.rtol, self.atol, self.solver.title, self.options, event_fn, names)


def _adaptive(title: str, name: str) -> Solver:
    return Solver(title, lambda task: methods()[name], True, ADAPTIVE, ADAPTIVE_CALLBACKS)


def _stated(title: str, name: str) -> Solver:
    return Solver(title, lambda task: methods()[name], False, STATED, STATED_CALLBACKS)


def _implicit(title: str, name: str) -> Solver:
    def build(task: Task) -> Any:
        method: Any = methods()[name]
        # theirs counts another iteration, which needs more of them: ours has at least as many as it wants by itself
        return replace(method, iterations=max(method.iterations, int(task.options.get("max_iters", 0))))

    return Solver(title, build, False, STATED | {"max_iters"}, STATED_CALLBACKS)


def _adams(task: Task, implicit: bool) -> Any:
    """The order that is asked for, or one that is stable.

    The ``max_order`` of torchdiffeq counts the new point: k − 1 slopes are used, of which three are gathered by steps
    of rk4. Left to itself it takes 12, with which explicit steps have next to no region of stability.
    """
    options = task.options
    order = int(options.get("max_order", 5))
    assert order <= HIGHEST_ORDER, f"max_order must be at most {HIGHEST_ORDER}; got {order}."
    if order < LOWEST_ORDER:
        warnings.warn(f"max_order is below {LOWEST_ORDER}, so the solver reduces to `rk4`.", stacklevel=6)
        return methods()["rk4_38"]
    start = GATHERED if "max_order" in options else order - 1
    if not (implicit and options.get("implicit", True)):
        return ExplicitAdams(order - 1, start)
    rtol, atol = (_smallest(tolerance) for tolerance in (task.rtol, task.atol))
    return ImplicitAdams(order, int(options.get("max_iters", CORRECTIONS)), rtol, atol, start)


def _smallest(tolerance: Any) -> float:
    parts = tolerance if isinstance(tolerance, tuple) else (tolerance,)
    return min(float(torch.as_tensor(part).min()) for part in parts)


def _multistep(title: str, implicit: bool) -> Solver:
    known = STATED | {"max_order", "max_iters"} | ({"implicit"} if implicit else set())
    return Solver(title, lambda task: _adams(task, implicit), False, known, STATED_CALLBACKS)


SOLVERS: dict[str, Any] = {
    "dopri8": _adaptive("Dopri8Solver", "dopri8"),
    "dopri5": _adaptive("Dopri5Solver", "dopri5"),
    "tsit5": _adaptive("Tsit5Solver", "tsit5"),
    "bosh3": _adaptive("Bosh3Solver", "bosh3"),
    "fehlberg2": _adaptive("Fehlberg2", "fehlberg2"),
    "adaptive_heun": _adaptive("AdaptiveHeunSolver", "adaptive_heun"),
    "euler": _stated("Euler", "euler"),
    "midpoint": _stated("Midpoint", "midpoint"),
    "heun2": _stated("Heun2", "heun2"),
    "heun3": _stated("Heun3", "heun3"),
    "rk4": _stated("RK4", "rk4_38"),
    "explicit_adams": _multistep("AdamsBashforth", False),
    "implicit_adams": _multistep("AdamsBashforthMoulton", True),
    "fixed_adams": _multistep("AdamsBashforthMoulton", True),
    "implicit_euler": _implicit("ImplicitEuler", "implicit_euler"),
    "implicit_midpoint": _implicit("ImplicitMidpoint", "implicit_midpoint"),
    "trapezoid": _implicit("Trapezoid", "trapezoid"),
    "radauIIA3": _implicit("RadauIIA3", "radauIIA3"),
    "gl4": _implicit("GaussLegendre4", "gl4"),
    "radauIIA5": _implicit("RadauIIA5", "radauIIA5"),
    "gl6": _implicit("GaussLegendre6", "gl6"),
    "sdirk2": _implicit("SDIRK2", "sdirk2"),
    "trbdf2": _implicit("TRBDF2", "trbdf2"),
    "scipy_solver": Solver(
        "ScipyWrapperODESolver", lambda task: Scipy(task.options.get("solver", "LSODA")), True, SCIPY, frozenset()
    ),
}
