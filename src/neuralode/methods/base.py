"""What every method speaks of: a step, what it leaves for the next, and what it asks for."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, TypeAlias

from jaxtyping import Float
from torch import Tensor

from neuralode.core.clock import Flag, Number

Evaluate: TypeAlias = Callable[[Tensor, Tensor], Tensor]  # (t, y) -> dy/dt, on packed rows
Rows: TypeAlias = Float[Tensor, "rows features"]
ErrorNorm: TypeAlias = Callable[[Tensor, Tensor, Tensor], Tensor]  # (error, y, y1) -> ratio: at most 1 is tolerated


class Step(NamedTuple):
    """What one attempted step gives.

    What is handed on (``method_state``, ``kept``) is a pytree of tensors that lead with rows, or None.
    """

    y1: Rows
    error: Rows | tuple[Rows, Rows] | None  # a pair: an estimate, and the one of lower order that corrects it
    method_state: Any  # for the next step, if this one is kept
    kept: Any  # for the next attempt, if this one is rejected
    stages: Any  # what `interpolate` and `interpolant` read
    ok: Flag  # False: rejected whatever the error
    cost: Number  # evaluations of f that each clock took part in
    calls: int  # calls of f, whole batches


class MethodState(NamedTuple):
    """What a method with memory hands on.

    Gradients go through ``states``; ``rest`` are constants.
    """

    states: tuple[Rows, ...] = ()
    rest: Any = ()
