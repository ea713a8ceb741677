"""Step size controllers, by name.

A controller proposes where the next step ends (`propose`) and decides whether an attempted step is accepted and how
large the next one is (`decide`). Both work on clock numbers (see `neuralode.core.clock`): the same code serves a shared
clock and a clock for each row.
"""

from __future__ import annotations

from collections.abc import Mapping

from neuralode.controllers.base import Controller
from neuralode.controllers.fixed import Fixed, Given
from neuralode.controllers.pid import PI, PID, I
from neuralode.controllers.stop_times import NO_STOPS, StopTimes, find_stops, unite
from neuralode.core.registry import pick
from neuralode.methods.base import Method

__all__ = [
    "CONTROLLERS",
    "NO_STOPS",
    "PI",
    "PID",
    "Controller",
    "Fixed",
    "Given",
    "I",
    "StopTimes",
    "find_controller",
    "find_stops",
    "unite",
]

CONTROLLERS: Mapping[str, PID] = {"i": I(), "pi": PI(), "pid": PID()}


def find_controller(controller: str | Controller | None, method: Method, step_size: float | None) -> Controller:
    """Return the controller that the arguments of `solve` describe.

    Raises
    ------
    TypeError, ValueError
        For an unknown controller, and for combinations that exclude each other.
    """
    if step_size is not None and controller is not None:
        raise ValueError("step_size and controller were both given; wanted one of them.")
    if controller is None:
        if method.adaptive:
            if step_size is not None:
                raise ValueError(
                    f"step_size={step_size!r} with the adaptive method {method.name!r}; wanted tolerances (rtol, "
                    "atol), or controller=I(first_step=...), or a fixed method such as 'rk4'."
                )
            return CONTROLLERS["i"]
        if step_size is None:
            raise ValueError(f"method {method.name!r} takes fixed steps; wanted step_size=... or an adaptive method.")
        return Fixed(step_size)
    controller = pick("controller", controller, table=CONTROLLERS, kind=Controller)
    if controller.adaptive and not method.adaptive:
        raise ValueError(
            f"method {method.name!r} has no error estimate; wanted step_size=..., controller=Given(times), or an "
            "adaptive method."
        )
    return controller
