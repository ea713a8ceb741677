r"""Explicit Runge–Kutta steps that keep two registers, whatever the number of stages.

Williamson's form: from :math:`d = 0`, for every stage i in turn :math:`d \leftarrow A_i d + h f(t + c_i h, y)` and
:math:`y \leftarrow y + B_i d`. (J. H. Williamson, Low-storage Runge-Kutta schemes, J. Comput. Phys. 35, 1980.)
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import torch
from torch import Tensor

from neuralode.core.clock import Number, column, column_times, real_dtype, stage_times
from neuralode.methods.base import ErrorNorm, Evaluate, Rows, Step, StepStart
from neuralode.methods.one_step import hermite_interpolant, interpolated
from neuralode.methods.runge_kutta.explicit import ExplicitRungeKutta
from neuralode.methods.runge_kutta.tableau import TOLERANCE


class Registers(NamedTuple):
    """Williamson's coefficients."""

    decay: tuple[float, ...]  # Aᵢ, of which the first is 0
    share: tuple[float, ...]  # Bᵢ


@dataclass(frozen=True)
class LowStorageRungeKutta(ExplicitRungeKutta):
    """A method that takes the steps of a `Tableau` in two registers: it keeps no stages.

    A step holds the state before it, the state so far, one combination of slopes, and what f needs. Its inside is read
    by the cubic Hermite polynomial through both ends, whose slopes are evaluated where somebody looks.

    Parameters
    ----------
    tableau : Tableau
        Coefficients that can be written in Williamson's form, without an error estimate.

    Raises
    ------
    ValueError
        If the tableau has an error estimate or cannot be written in that form, or a stage moves nothing.

    Examples
    --------
    >>> import neuralode as node
    >>> method = node.methods()["carpenter_kennedy54"]
    >>> method.order, method.stages, method.evaluations_per_step, method.dense_evaluations
    (4, 5, 5, 2)
    """

    def __post_init__(self) -> None:
        if self.adaptive:
            raise ValueError(f"Tableau {self.name!r} has b_error, which two registers do not hold; wanted none.")
        c, a, b = butcher(*self._registers)
        found = (*c, *(x for row in a for x in row), *b)
        wanted = (*self.tableau.c, *(x for row in self.tableau.a for x in row), *self.tableau.b)
        moving = all(self._registers.share)
        if not (moving and max(abs(x - y) for x, y in zip(found, wanted, strict=True)) < TOLERANCE):
            raise ValueError(
                f"Tableau {self.name!r} cannot be stepped in two registers: its stages are not of Williamson's form. "
                "Wanted such as those of carpenter_kennedy54, or ExplicitRungeKutta."
            )

    def step(self, start: StepStart, error_norm: ErrorNorm | None = None) -> Step:
        """One step of size h; ``method_state`` is f(t, y) if it is known."""
        f, t, y, h, method_state = start
        y1, stages = self._stages(f, t, y, h, method_state, self.stages)
        made = self.stages - (method_state is not None)
        return Step(
            y1=y1,
            error=None,
            method_state=None,
            method_state_if_rejected=None,
            stages=stages,
            ok=True,
            evaluations=made,
            calls=made,
        )

    @property
    def dense_evaluations(self) -> int:
        """Further evaluations of f where somebody looks inside of a step: the slopes at both ends."""
        return 2

    def interpolate(self, start: StepStart, stages: Sequence[Tensor], thetas: Sequence[float]) -> Tensor:
        """The states at some θ of one step: shape [θ, rows, features]."""
        return interpolated(self.interpolant(start, stages), thetas)

    def interpolant(self, start: StepStart, stages: Sequence[Tensor]) -> Tensor:
        """Coefficients C[0…3] of the cubic Hermite polynomial: shape [4, rows, features]."""
        (y1,) = stages
        return hermite_interpolant(start, y1)

    def _stages(
        self, f: Evaluate, t: Number, y: Rows, h: Number, first: Rows | None, count: int
    ) -> tuple[Rows, list[Tensor]]:
        """The new state, and in place of the stages again that.

        States that f has seen stay as they are; a new one takes no more room than the slope that is done with.
        """
        decays, shares = self._registers
        times = stage_times(t, h, self.tableau.c, real_dtype(y.dtype), y.device)
        moved = column_times(h, f(times[0], y) if first is None else first)
        state = torch.add(y, moved, alpha=shares[0])
        for time, decay, share in zip(times[1:], decays[1:], shares[1:], strict=True):
            moved = _added(moved.mul_(decay), h, f(time, state))
            state = torch.add(state, moved, alpha=share)
        return state, [state]

    @cached_property
    def _registers(self) -> Registers:
        return registers(self.tableau.a, self.tableau.b)


def _added(total: Tensor, h: Number, slope: Tensor) -> Tensor:
    """``total + h * slope``, written into ``total``, which f has not seen."""
    if isinstance(h, Tensor):
        return total.addcmul_(slope, column(h, slope))
    return total.add_(slope, alpha=h)


def registers(a: Sequence[Sequence[float]], b: Sequence[float]) -> Registers:
    """Williamson's coefficients of a method that has them: those with which its steps are rows of ``a`` and ``b``.

    They are read from below the diagonal, ``a[i][i-1] = B[i-1]``, and from the entries before, ``a[i][i-2] = B[i-2] +
    A[i-1] B[i-1]``.
    """
    rows = [*map(tuple, a), tuple(b)][1:]
    share = tuple(row[-1] for row in rows)
    decay = [0.0] * len(share)
    for i in range(1, len(share)):
        decay[i] = (rows[i][-2] - share[i - 1]) / share[i] if share[i] else 0.0
    return Registers(tuple(decay), share)


def butcher(decay: Sequence[Any], share: Sequence[Any]) -> tuple[tuple, tuple[tuple, ...], tuple]:
    """Butcher's c, a and b of Williamson's coefficients A and B; exact where those are fractions.

    Examples
    --------
    >>> from fractions import Fraction as F
    >>> c, a, b = butcher((0, F(-5, 9), F(-153, 128)), (F(1, 3), F(15, 16), F(8, 15)))
    >>> [str(x) for x in (*c, *b)]  # Williamson's method of order 3
    ['0', '1/3', '3/4', '1/6', '3/10', '8/15']
    """
    state: list[Any] = [0] * len(share)  # the weights of the slopes in y
    moved: list[Any] = [0] * len(share)  # and in d
    rows = []
    for i, (keep, part) in enumerate(zip(decay, share, strict=True)):
        rows.append(tuple(state[:i]))
        moved = [keep * x for x in moved]
        moved[i] = 1
        state = [x + part * d for x, d in zip(state, moved, strict=True)]
    return tuple(sum(row) for row in rows), tuple(rows), tuple(state)
