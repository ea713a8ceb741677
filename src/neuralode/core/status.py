"""How a solve ended, and the two errors that speak about it."""

from __future__ import annotations

from enum import IntEnum
from typing import Any


class Status(IntEnum):
    """How the solve of one row ended.

    ``RUNNING`` is seen only from inside, by a `Stepper` that has not arrived.

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
        """Whether the row did not reach what was asked."""
        return self >= Status.MAX_STEPS


def reached_end(status: Any) -> Any:
    """Which clocks stand where they were to go: at the end, or at an event."""
    return (status == Status.SUCCESS) | (status == Status.EVENT)


class SolveError(RuntimeError):
    """A solve that did not arrive.

    Attributes
    ----------
    solution : Solution
        What was reached: outputs after the failure are NaN, ``solution.status`` says which rows failed and how.
    """

    def __init__(self, message: str, solution: Any) -> None:
        super().__init__(message)
        self.solution = solution


class GradientError(RuntimeError):
    """A gradient that would have been wrong, or that the chosen method cannot give."""


class BackwardSolveError(GradientError):
    """The adjoint equation could not be solved backwards in time.

    Attributes
    ----------
    status : Status
        How the backward solve ended.
    time : float
        The output time from which it was solved backwards.
    """

    def __init__(self, status: Status, time: float) -> None:
        super().__init__(
            f"the adjoint equation could not be solved back from t={time:.6g} ({status.name.lower()}); "
            "gradient='replay' does not solve backwards."
        )
        self.status = status
        self.time = time


class StiffnessWarning(UserWarning):
    """A solve arrived, but an explicit method took many steps for the sake of stability alone."""
