r"""Symplectic steps of a pair (q, p): alternating kicks of p and drifts of q.

For :math:`\dot q = v(t, p)` and :math:`\dot p = F(t, q)`, a move of one half while the other half is constant is exact
and symplectic, and so is every composition of such moves. Each half has its own clock: a drift maps
:math:`(q, t_q)` to :math:`(q + d h\,v(t_p, p),\ t_q + d h)`, a kick maps :math:`(p, t_p)` to
:math:`(p + k h\,F(t_q, q),\ t_p + k h)`. The order conditions then also hold where v and F depend on time.
(Hairer, Lubich & Wanner, *Geometric Numerical Integration*, II.5, VI.3 and VI.4.)
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import cast

import torch
from torch import Tensor

from neuralode.core.clock import real_dtype, scaled
from neuralode.core.dense_output import horner
from neuralode.methods.base import ErrorNorm, PairField, QuadratureNode, Retaken, Rows, Step, StepStart
from neuralode.methods.one_step import HERMITE_ORDER, gauss_nodes, hermite_interpolant
from neuralode.methods.symplectic.order_conditions import residual

DRIFT, KICK = 0, 1  # the half that moves: q, p
TOLERANCE = 1e-13  # of the order conditions


@dataclass(frozen=True)
class Partitioned:
    """A fixed-step method for pairs (q, p): alternating kicks of p and drifts of q.

    The slope of q must not depend on q, nor that of p on p. If both are derivatives of an energy T(t, p) + V(t, q), as
    in mechanics, steps are symplectic: if the energy does not depend on time, its error stays bounded over very many
    steps of constant size. The coefficients are checked when an object is made. Some compositions ("ruth3", "yoshida4")
    move back and forth: they also evaluate f at times slightly outside the step.

    Parameters
    ----------
    name : str
        The name of the method.
    order : int
        Order of the solution.
    kicks, drifts : tuple of float
        The shares of the step by which p moves, then q, then p again and so on; moves of 0 are omitted. Each of the two
        adds up to 1.
    source : str, default=""
        Where the coefficients were published.

    Raises
    ------
    ValueError
        If the coefficients do not have the order; the message names the order whose conditions fail.

    Examples
    --------
    The pendulum, from (q, p) = (1, 0):

    >>> import torch, neuralode as node
    >>> f = node.Separable(lambda t, p: p, lambda t, q: -torch.sin(q))
    >>> y0 = (torch.ones(1, dtype=torch.float64), torch.zeros(1, dtype=torch.float64))
    >>> q, p = node.solve(f, y0, (0.0, 1000.0), method="leapfrog", step_size=0.1).y1
    >>> round((p**2 / 2 - torch.cos(q)).item(), 2), round(-torch.cos(y0[0]).item(), 2)  # energy at the end and before
    (-0.54, -0.54)

    A user's composition:

    >>> twice = node.Partitioned("twice", 2, kicks=(0.25, 0.5, 0.25), drifts=(0.5, 0.5, 0.0))
    >>> twice.evaluations_per_step
    4
    """

    name: str
    order: int
    kicks: tuple[float, ...]
    drifts: tuple[float, ...]
    source: str = ""

    family = "symplectic"
    partitioned = True
    adaptive = False
    implicit = False
    one_call = False
    inexact = 0.0
    memoryless = True
    error_order = 0
    dense_evaluations = 2  # the slopes at both ends
    general = "rk4"  # solves the adjoint equation, whose state is no such pair

    def __post_init__(self) -> None:
        for name in ("kicks", "drifts"):
            object.__setattr__(self, name, tuple(map(float, getattr(self, name))))
        if len(self.kicks) != len(self.drifts) or not all(map(math.isfinite, self.kicks + self.drifts)):
            raise ValueError(
                f"Partitioned {self.name!r} has {len(self.kicks)} kicks and {len(self.drifts)} drifts; wanted finite "
                "numbers, as many of the one as of the other (a drift of 0 at the end is left out)."
            )
        if isinstance(self.order, bool) or not isinstance(self.order, int) or self.order < 1:
            raise ValueError(f"Partitioned(order={self.order!r}); wanted a whole number of at least 1.")
        for order in range(1, self.order + 1):
            if (error := residual(self.moves, order)) > TOLERANCE:
                raise ValueError(
                    f"Partitioned {self.name!r} declares order {self.order}, but its coefficients miss the conditions "
                    f"of order {order} by {error:.1e}."
                )

    @cached_property
    def moves(self) -> tuple[tuple[int, float], ...]:
        """The half that moves and its share of the step, for each move."""
        moves = [
            move for kick, drift in zip(self.kicks, self.drifts, strict=True) for move in ((KICK, kick), (DRIFT, drift))
        ]
        return tuple((half, share) for half, share in moves if share)

    @cached_property
    def nodes(self) -> tuple[float, ...]:
        """The node at which each move evaluates its slope: the clock of the half that is constant."""
        reached, nodes = [0.0, 0.0], []
        for half, share in self.moves:
            node = reached[1 - half]
            nodes.append(float(round(node)) if abs(node - round(node)) < TOLERANCE else node)
            reached[half] += share
        return tuple(nodes)

    @property
    def first_same_as_last(self) -> bool:
        """Whether the slope of the last move is that of the first move of the next step: one half moves in both."""
        return self.moves[0][0] == self.moves[-1][0]

    @property
    def interpolant_order(self) -> int:
        """The order of the dense output."""
        return min(self.order, HERMITE_ORDER)

    @property
    def stages(self) -> int:
        """The number of moves of a step."""
        return len(self.moves)

    @property
    def evaluations_per_step(self) -> int:
        """Evaluations in every step but the first: of one function of a `Separable`, or of f, half of it unused."""
        return self.stages - self.first_same_as_last

    def evaluations_again(self, dense: bool, method_state: None = None) -> int:
        """Return the evaluations in `retake`, with those of dense output if ``dense``."""
        return self.stages + dense * self.dense_evaluations

    def begin(self, f0: Rows) -> Rows:
        """Return the slope of the first move of the first step."""
        return _halves(f0)[self.moves[0][0]]

    def step(self, start: StepStart, error_norm: ErrorNorm | None = None) -> Step:
        """Take one step; the method state is the slope of its first move, or None."""
        y1, first, last = self._take(start, start.method_state)
        evaluations = self.stages - (start.method_state is not None)
        return Step(
            y1=y1,
            error=None,
            method_state=last if self.first_same_as_last else None,
            method_state_if_rejected=first,
            stages=y1,
            ok=True,
            evaluations=evaluations,
            calls=evaluations,
        )

    def retake(self, start: StepStart, *, dense: bool, derivatives: int = 1) -> Retaken:
        """Take an accepted step again; dense output needs its new state only."""
        y1, _, _ = self._take(start, None)
        return Retaken(y1, y1, None)

    def quadrature(self, start: StepStart) -> list[QuadratureNode]:
        """Return Gauss nodes on the dense output."""
        return gauss_nodes(self, start)

    def interpolate(self, start: StepStart, stages: Rows, thetas: Sequence[float]) -> Tensor:
        """Return the states at each θ: [θ, rows, features]."""
        y, coefficients = start.y, self.interpolant(start, stages)
        at = torch.tensor(thetas, dtype=real_dtype(y.dtype), device=y.device)
        return horner(coefficients[:, None], at[:, None, None])

    def interpolant(self, start: StepStart, stages: Rows) -> Tensor:
        """Return the coefficients of the cubic Hermite polynomial: [4, rows, features]."""
        return hermite_interpolant(start, stages)

    def _take(self, start: StepStart, first: Rows | None) -> tuple[Rows, Rows, Rows]:
        """Return the new state, and the slopes of the first and of the last move."""
        slopes, halves = cast(PairField, start.f).halves, list(_halves(start.y))
        times = start.times(self.nodes)
        slope = slopes[self.moves[0][0]](times[0], *halves) if first is None else first
        first_slope = slope
        for n, ((half, share), time) in enumerate(zip(self.moves, times, strict=True)):
            if n:
                slope = slopes[half](time, *halves)
            halves[half] = scaled(halves[half], start.h * share, slope)
        return torch.cat(halves, 1), first_slope, slope


def _halves(rows: Rows) -> tuple[Rows, Rows]:
    """Return the columns of q and those of p, equally many."""
    width = rows.shape[1] // 2
    return rows[:, :width], rows[:, width:]
