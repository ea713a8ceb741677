r"""Explicit Runge–Kutta steps in two registers, whatever the number of stages.

Williamson's form: start with :math:`d = 0`; for every stage i compute :math:`d \leftarrow A_i d + h f(t + c_i h, y)`
and :math:`y \leftarrow y + B_i d`. (J. H. Williamson, *Low-storage Runge-Kutta schemes*, J. Comput. Phys. 35, 1980.)
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property
from typing import NamedTuple

import torch
from torch import Tensor

from neuralode.core.clock import Number, column, column_times
from neuralode.methods.base import ErrorNorm, Rows, Step, StepStart
from neuralode.methods.one_step import hermite_interpolant, interpolated
from neuralode.methods.runge_kutta.explicit import ExplicitRungeKutta
from neuralode.methods.runge_kutta.tableau import TOLERANCE


class WilliamsonCoefficients(NamedTuple):
    """The coefficients of Williamson's form."""

    decay: tuple[float, ...]  # Aᵢ; the first is 0
    share: tuple[float, ...]  # Bᵢ


@dataclass(frozen=True)
class LowStorageRungeKutta(ExplicitRungeKutta):
    """A method that takes the steps of a `Tableau` in two registers, without keeping its stages.

    A step holds the state before it, the current state, one combination of slopes, and the memory that f needs. Its
    dense output is the cubic Hermite polynomial; the slopes at both ends are evaluated when it is computed.

    Parameters
    ----------
    tableau : Tableau
        Coefficients that can be written in Williamson's form, without an error estimate.

    Raises
    ------
    ValueError
        If the tableau has an error estimate, cannot be written in that form, or has a stage with Bᵢ = 0.

    Examples
    --------
    >>> import neuralode as node
    >>> method = node.methods()["carpenter_kennedy54"]
    >>> method.order, method.stages, method.evaluations_per_step, method.dense_evaluations
    (4, 5, 5, 2)
    """

    def __post_init__(self) -> None:
        table = self.tableau
        if self.adaptive:
            raise ValueError(f"Tableau {self.name!r} has b_error, which two registers do not hold; wanted none.")
        c, a, b = butcher_coefficients(*self._coefficients)
        restored = (*c, *(x for row in a for x in row), *b)
        given = (*table.c, *(x for row in table.a for x in row), *table.b)
        deviation = max(abs(x - y) for x, y in zip(restored, given, strict=True))
        if not (all(self._coefficients.share) and deviation < TOLERANCE):
            raise ValueError(
                f"Tableau {self.name!r} cannot be stepped in two registers: its stages are not of Williamson's form. "
                "Wanted such as those of carpenter_kennedy54, or ExplicitRungeKutta."
            )

    @property
    def dense_evaluations(self) -> int:
        """Further evaluations of f in dense output: the slopes at both ends."""
        return 2

    def step(self, start: StepStart, error_norm: ErrorNorm | None = None) -> Step:
        """Take one step; the method state is f(t, y), or None."""
        first = start.method_state
        y1, stages = self._take(start, first, self.stages)
        evaluations = self.stages - (first is not None)
        return Step(
            y1=y1,
            error=None,
            method_state=None,
            method_state_if_rejected=None,
            stages=stages,
            ok=True,
            evaluations=evaluations,
            calls=evaluations,
        )

    def interpolate(self, start: StepStart, stages: Sequence[Tensor], thetas: Sequence[float]) -> Tensor:
        """Return the states at each θ: [θ, rows, features]."""
        return interpolated(self.interpolant(start, stages), thetas)

    def interpolant(self, start: StepStart, stages: Sequence[Tensor]) -> Tensor:
        """Return the coefficients of the cubic Hermite polynomial: [4, rows, features]."""
        (y1,) = stages
        return hermite_interpolant(start, y1)

    def _take(self, start: StepStart, first: Rows | None, count: int) -> tuple[Rows, list[Tensor]]:
        """Return the new state, and in place of the stages a list of the new state.

        States that f has received are not overwritten; a new state takes the room of a slope that is no longer needed.
        """
        f, y, h = start.f, start.y, start.h
        times = start.times(self.tableau.c)
        decays, shares = self._coefficients
        register = column_times(h, f(times[0], y) if first is None else first)
        state = torch.add(y, register, alpha=shares[0])
        for time, decay, share in zip(times[1:], decays[1:], shares[1:], strict=True):
            register = _add_scaled_(register.mul_(decay), h, f(time, state))
            state = torch.add(state, register, alpha=share)
        return state, [state]

    @cached_property
    def _coefficients(self) -> WilliamsonCoefficients:
        return williamson_coefficients(self.tableau.a, self.tableau.b)


def _add_scaled_(register: Tensor, h: Number, slope: Tensor) -> Tensor:
    """Add ``h * slope`` to the register in place; f never receives the register."""
    if isinstance(h, Tensor):
        return register.addcmul_(slope, column(h, slope))
    return register.add_(slope, alpha=h)


def williamson_coefficients(a: Sequence[Sequence[float]], b: Sequence[float]) -> WilliamsonCoefficients:
    """Return the coefficients of Williamson's form for a tableau that can be written in it.

    They follow from the entries below the diagonal, ``a[i][i-1] = B[i-1]``, and from those before, ``a[i][i-2] =
    B[i-2] + A[i-1] B[i-1]``, where b is the last row.
    """
    rows = [*map(tuple, a), tuple(b)][1:]
    share = tuple(row[-1] for row in rows)
    decay = [0.0] * len(share)
    for i in range(1, len(share)):
        decay[i] = (rows[i][-2] - share[i - 1]) / share[i] if share[i] else 0.0
    return WilliamsonCoefficients(tuple(decay), share)


def butcher_coefficients(
    decay: Sequence[float | Fraction], share: Sequence[float | Fraction]
) -> tuple[tuple, tuple[tuple, ...], tuple]:
    """Return Butcher's c, a and b for Williamson's A (``decay``) and B (``share``); exact for fractions.

    Examples
    --------
    >>> from fractions import Fraction as F
    >>> c, a, b = butcher_coefficients((0, F(-5, 9), F(-153, 128)), (F(1, 3), F(15, 16), F(8, 15)))
    >>> [str(x) for x in (*c, *b)]  # Williamson's method of order 3
    ['0', '1/3', '3/4', '1/6', '3/10', '8/15']
    """
    state: list[float | Fraction] = [0] * len(share)  # weights of the slopes in y
    register: list[float | Fraction] = [0] * len(share)  # weights of the slopes in d
    rows = []
    for i, (keep, part) in enumerate(zip(decay, share, strict=True)):
        rows.append(tuple(state[:i]))
        register = [keep * x for x in register]
        register[i] = 1
        state = [x + part * d for x, d in zip(state, register, strict=True)]
    return tuple(sum(row) for row in rows), tuple(rows), tuple(state)
