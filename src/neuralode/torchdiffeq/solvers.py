"""`SOLVERS`: the registry of methods under torchdiffeq's names. Users may add solver classes of their own."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from neuralode.core.registry import members
from neuralode.methods import ExplicitAdams, ImplicitAdams, Method, Scipy, Tableau, find_method, methods
from neuralode.torchdiffeq.arguments import (
    Arguments,
    CheckedTolerance,
    EventFunction,
    Function,
    Tolerance,
    check_arguments,
    warn_caller,
)
from neuralode.torchdiffeq.solve import solve

ADAPTIVE_OPTIONS = frozenset(
    {
        "min_step", "max_step", "first_step", "step_t", "jump_t", "safety", "ifactor", "dfactor", "max_num_steps",
        "dtype", "norm", "controller",
    }
)  # fmt: skip
SCIPY_OPTIONS = frozenset({"min_step", "max_step", "solver", "norm", "grid_points", "eps"})
FIXED_STEP_OPTIONS = frozenset({"step_size", "grid_constructor", "interp", "perturb", "norm", "controller"})
FIXED_STEP_CALLBACKS = frozenset({"callback_step"})
ADAPTIVE_CALLBACKS = frozenset({"callback_step", "callback_accept_step", "callback_reject_step"})

# Adams methods
LOWEST_ORDER, HIGHEST_ORDER = 4, 12  # of max_order; below the lowest torchdiffeq takes rk4
DEFAULT_ORDER = 5  # torchdiffeq's is 12, with which explicit steps have almost no stability region
STARTING_SLOPES = 3  # gathered by rk4 steps before the first multistep step
MAX_CORRECTIONS = 4


@dataclass(frozen=True)
class Solver:
    """An entry of `SOLVERS`.

    Parameters
    ----------
    title : str
        The name of the class in torchdiffeq, for its warnings.
    build : callable
        Returns the method for some arguments with their options.
    adaptive : bool
        Whether the method adapts its step size to an error estimate.
    options : frozenset of str
        The options that it supports.
    callbacks : frozenset of str
        The callbacks of func that it calls.

    Examples
    --------
    >>> SOLVERS["rk4"].title, SOLVERS["rk4"].adaptive, "step_size" in SOLVERS["rk4"].options
    ('RK4', False, True)
    """

    title: str
    build: Callable[[Arguments], Method]
    adaptive: bool
    options: frozenset[str]
    callbacks: frozenset[str]

    native = True

    @property
    def __name__(self) -> str:
        return self.title

    def __str__(self) -> str:
        return self.title

    def valid_callbacks(self) -> set[str]:
        """Return the callbacks of func that the solver calls."""
        return set(self.callbacks)

    def __call__(self, func: Function, y0: Tensor, rtol: Tolerance, atol: Tolerance, **options: Any) -> BoundSolver:
        """Follow torchdiffeq's protocol for solver classes, for code that calls them directly."""
        return BoundSolver(solver=self, func=func, y0=y0, rtol=rtol, atol=atol, options=options)


@dataclass(frozen=True)
class BoundSolver:
    """A solver with all its arguments except the times."""

    solver: Solver
    func: Function
    y0: Tensor
    rtol: Tolerance
    atol: Tolerance
    options: dict[str, Any]

    def integrate(self, t: Tensor) -> Tensor:
        """Return the states at some times."""
        return solve(self._arguments(t, None))

    def integrate_until_event(self, t0: Tensor, event_fn: EventFunction) -> tuple[Tensor, Tensor]:
        """Return the time of the first event after t0, and the states at both times."""
        return solve(self._arguments(torch.stack((t0, t0.detach() + 1)), event_fn))

    def _arguments(self, t: Tensor, event_fn: EventFunction | None) -> Arguments:
        return check_arguments(
            self.func,
            self.y0,
            t,
            rtol=self.rtol,
            atol=self.atol,
            method=self.solver.title,
            options=self.options,
            event_fn=event_fn,
            solvers={self.solver.title: self.solver},
        )


def as_solver(method: Any) -> Any:
    """Return a solver for a method object of `neuralode`; a name, a solver and None are returned unchanged.

    Raises
    ------
    TypeError
        If the object has some members of a method but not all, with the names of the others.

    Examples
    --------
    >>> import neuralode as node
    >>> as_solver(node.methods()["bosh3"]).title
    'bosh3'
    >>> as_solver("bosh3")
    'bosh3'
    """
    is_method = isinstance(method, Tableau) or any(hasattr(method, name) for name in members(Method))
    if method is None or isinstance(method, (str, Solver)) or not is_method:
        return method
    found = find_method(method)
    if found.one_call:
        options, callbacks = SCIPY_OPTIONS - {"solver"}, frozenset()
    elif found.adaptive:
        options, callbacks = ADAPTIVE_OPTIONS, ADAPTIVE_CALLBACKS
    else:
        options, callbacks = FIXED_STEP_OPTIONS, FIXED_STEP_CALLBACKS
    return Solver(
        found.name,
        build=lambda arguments: found,
        adaptive=found.adaptive or found.one_call,
        options=options,
        callbacks=callbacks,
    )


def _adaptive(title: str, name: str) -> Solver:
    return Solver(
        title,
        build=lambda arguments: methods()[name],
        adaptive=True,
        options=ADAPTIVE_OPTIONS,
        callbacks=ADAPTIVE_CALLBACKS,
    )


def _fixed_step(title: str, name: str) -> Solver:
    return Solver(
        title,
        build=lambda arguments: methods()[name],
        adaptive=False,
        options=FIXED_STEP_OPTIONS,
        callbacks=FIXED_STEP_CALLBACKS,
    )


def _implicit(title: str, name: str) -> Solver:
    def build(arguments: Arguments) -> Method:
        method: Any = methods()[name]
        # max_iters counts torchdiffeq's functional iterations; Newton's iteration needs at least its own default
        return replace(method, iterations=max(method.iterations, int(arguments.options.get("max_iters", 0))))

    return replace(_fixed_step(title, name), build=build, options=FIXED_STEP_OPTIONS | {"max_iters"})


def _adams(title: str, *, implicit: bool) -> Solver:
    return Solver(
        title,
        build=lambda arguments: _adams_method(arguments, implicit),
        adaptive=False,
        options=FIXED_STEP_OPTIONS | {"max_order", "max_iters"} | ({"implicit"} if implicit else set()),
        callbacks=FIXED_STEP_CALLBACKS,
    )


def _adams_method(arguments: Arguments, implicit: bool) -> Method:
    """Return an Adams method of the order given by ``max_order``, which counts the new point among its points."""
    options = arguments.options
    order = int(options.get("max_order", DEFAULT_ORDER))
    assert order <= HIGHEST_ORDER, f"max_order must be at most {HIGHEST_ORDER}; got {order}."
    if order < LOWEST_ORDER:
        warn_caller(f"max_order is below {LOWEST_ORDER}, so the solver reduces to `rk4`.")
        return methods()["rk4_38"]
    start = STARTING_SLOPES if "max_order" in options else order - 1
    if not (implicit and options.get("implicit", True)):
        return ExplicitAdams(order - 1, start)
    return ImplicitAdams(
        order,
        iterations=int(options.get("max_iters", MAX_CORRECTIONS)),
        rtol=_smallest(arguments.rtol),
        atol=_smallest(arguments.atol),
        start=start,
    )


def _smallest(tolerance: CheckedTolerance) -> float:
    parts = tolerance if isinstance(tolerance, tuple) else (tolerance,)
    return min(float(torch.as_tensor(part).min()) for part in parts)


SOLVERS: dict[str, Any] = {
    "dopri8": _adaptive("Dopri8Solver", "dopri8"),
    "dopri5": _adaptive("Dopri5Solver", "dopri5"),
    "tsit5": _adaptive("Tsit5Solver", "tsit5"),
    "bosh3": _adaptive("Bosh3Solver", "bosh3"),
    "fehlberg2": _adaptive("Fehlberg2", "fehlberg2"),
    "adaptive_heun": _adaptive("AdaptiveHeunSolver", "adaptive_heun"),
    "euler": _fixed_step("Euler", "euler"),
    "midpoint": _fixed_step("Midpoint", "midpoint"),
    "heun2": _fixed_step("Heun2", "heun2"),
    "heun3": _fixed_step("Heun3", "heun3"),
    "rk4": _fixed_step("RK4", "rk4_38"),
    "explicit_adams": _adams("AdamsBashforth", implicit=False),
    "implicit_adams": _adams("AdamsBashforthMoulton", implicit=True),
    "fixed_adams": _adams("AdamsBashforthMoulton", implicit=True),
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
        "ScipyWrapperODESolver",
        build=lambda arguments: find_method(Scipy(arguments.options.get("solver", "LSODA"))),
        adaptive=True,
        options=SCIPY_OPTIONS,
        callbacks=frozenset(),
    ),
}
