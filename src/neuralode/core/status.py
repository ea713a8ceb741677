"""How a solve ended, and the errors and warnings about it."""

from __future__ import annotations

from enum import IntEnum
from typing import Any

from torch import Tensor

from neuralode.core.clock import Flag


class Status(IntEnum):
    """How the solve of one row ended.

    Only a `Stepper` that has not reached the end shows ``RUNNING``.

    Examples
    --------
    >>> Status.SUCCESS.name
    'SUCCESS'
    """

    RUNNING = -1
    SUCCESS = 0
    EVENT = 1
    MAX_STEPS = 2
    STEP_UNDERFLOW = 3
    NONFINITE = 4

    @property
    def failed(self) -> bool:
        """Whether the row failed before its end."""
        return self >= Status.MAX_STEPS


# Plain integers: under torch.compile a tensor never equals a member of an IntEnum.
RUNNING, SUCCESS, EVENT, MAX_STEPS, STEP_UNDERFLOW, NONFINITE = (int(status) for status in Status)


def reached_end(status: int | Tensor) -> Flag:
    """Return whether each clock stands at its end or at a terminal event."""
    return (status == SUCCESS) | (status == EVENT)


class SolveError(RuntimeError):
    """Raised if a solve did not reach its end.

    Attributes
    ----------
    solution : Solution or SteadyState
        The partial solution: outputs after the failure are NaN; ``solution.status`` holds the status of each row.
    """

    def __init__(self, message: str, solution: Any) -> None:
        super().__init__(message)
        self.solution = solution


class GradientError(RuntimeError):
    """Raised if a gradient would be wrong, or if the chosen gradient does not support it."""


class BackwardSolveError(GradientError):
    """Raised if the adjoint equation could not be solved backwards in time.

    Attributes
    ----------
    status : Status
        How the backward solve ended.
    time : float
        The output time at which the backward solve started.
    """

    def __init__(self, status: Status, time: float) -> None:
        super().__init__(
            f"the adjoint equation could not be solved back from t={time:.6g} ({status.name.lower()}); "
            "gradient='replay' does not solve backwards."
        )
        self.status = status
        self.time = time


class StiffnessWarning(UserWarning):
    """Warns that stability rather than accuracy limited the steps of an explicit method."""
