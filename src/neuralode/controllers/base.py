"""What a controller answers."""

from __future__ import annotations

from typing import Any, NamedTuple

from neuralode.core.clock import Flag, Number


class StepProposal(NamedTuple):
    """Where the next step ends."""

    h: Number  # signed
    t1: Number
    reaches_end: Flag  # ends at the target exactly
    clipped: Flag  # shorter or longer than the controller would have it


class StepDecision(NamedTuple):
    """What becomes of an attempted step."""

    accept: Flag
    h: Number  # size of the next attempt, positive
    history: Any
