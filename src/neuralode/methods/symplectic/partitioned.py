r"""Symplectic steps of a pair (q, p): kicks of p and drifts of q by turns.

For :math:`\dot q = v(t, p)` and :math:`\dot p = F(t, q)` each half stands still while the other moves, so that moving
it is exact and symplectic, and so is any composition. With two clocks, :math:`t_q` and :math:`t_p`, time belongs to
the halves: a drift takes :math:`(q, t_q)` to :math:`(q + d h\,v(t_p, p),\ t_q + d h)`, a kick takes
:math:`(p, t_p)` to :math:`(p + k h\,F(t_q, q),\ t_p + k h)`. So orders hold where v and F depend on time as well.
(Hairer, Lubich & Wanner, *Geometric Numerical Integration*, II.5, VI.3 and VI.4.)
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol, TypeAlias

import torch
from torch import Tensor

from neuralode.core.clock import Number, scaled, stage_times
from neuralode.core.dense_output import horner
from neuralode.methods.base import ErrorNorm, QuadratureNode, Retaken, Rows, Step, StepStart
from neuralode.methods.one_step import gauss_nodes, hermite_interpolant
from neuralode.methods.symplectic.order import residual

DRIFT, KICK = 0, 1  # which half moves: q, p
EXACT = 1e-13  # to which the coefficients satisfy their conditions
HERMITE = 3  # the order of a cubic through both ends of a step

Half: TypeAlias = Callable[[Tensor, Tensor, Tensor], Tensor]  # (t, q, p) -> the slope of one half, on packed rows


class Halved(Protocol):
    """A field that can be asked for either half of its slope."""

    @property
    def halves(self) -> tuple[Half, Half]:
        """The slope of q, and that of p."""
        ...

    def __call__(self, t: Tensor, y: Rows) -> Rows:
        """The whole slope."""
        ...


@dataclass(frozen=True)
class Partitioned:
    """A method of fixed steps for a pair (q, p): kicks of p and drifts of q by turns.

    The slope of q must not depend on q, nor that of p on p. If both are derivatives of an energy T(t, p) + V(t, q), as
    in mechanics, steps are symplectic: where time is not in it, the energy stays within a bound over very many steps of
    one size. Coefficients are checked when an object is made. Some compositions ("ruth3", "yoshida4") go back and
    forth: they also ask f at times a little before and behind the step.

    Parameters
    ----------
    name : str
        What the method is called.
    order : int
        Order of the solution.
    kicks, drifts : tuple of float
        By how much of a step p moves, then q, then p again and so on; zeros are left out. Each adds up to 1.
    source : str
        Where the coefficients were published.

    Raises
    ------
    ValueError
        Where the coefficients do not have the order, naming the order that fails.

    Examples
    --------
    The pendulum, from (q, p) = (1, 0):

    >>> import torch, neuralode as node
    >>> f = node.Separable(lambda t, p: p, lambda t, q: -torch.sin(q))
    >>> y0 = (torch.ones(1, dtype=torch.float64), torch.zeros(1, dtype=torch.float64))
    >>> q, p = node.solve(f, y0, (0.0, 1000.0), method="leapfrog", step_size=0.1).y1
    >>> round((p**2 / 2 - torch.cos(q)).item(), 2), round(-torch.cos(y0[0]).item(), 2)  # the energy, then and before
    (-0.54, -0.54)

    A composition of one's own:

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
    partitioned = True  # for pairs (q, p), of which each half moves by a slope of its own
    adaptive = False
    implicit = False
    one_call = False
    inexact = 0.0
    memoryless = True
    error_order = 0
    dense_evaluations = 2  # the slopes at both ends
    general = "rk4"  # what solves equations that are no such pair: the adjoint equation backwards

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
            if (error := residual(self.moves, order)) > EXACT:
                raise ValueError(
                    f"Partitioned {self.name!r} declares order {self.order}, but its coefficients miss the conditions "
                    f"of order {order} by {error:.1e}."
                )

    @cached_property
    def moves(self) -> tuple[tuple[int, float], ...]:
        """Which half moves, and by how much of a step, in turn."""
        turns = [
            move for kick, drift in zip(self.kicks, self.drifts, strict=True) for move in ((KICK, kick), (DRIFT, drift))
        ]
        return tuple((half, weight) for half, weight in turns if weight)

    @cached_property
    def nodes(self) -> tuple[float, ...]:
        """Where in the step each move asks for its slope: where the clock of the half that stands still is."""
        reached, nodes = [0.0, 0.0], []
        for half, weight in self.moves:
            node = reached[1 - half]
            nodes.append(float(round(node)) if abs(node - round(node)) < EXACT else node)
            reached[half] += weight
        return tuple(nodes)

    @property
    def first_same_as_last(self) -> bool:
        """Whether the slope of the last move is that of the first in the next step: the other half has not moved."""
        return self.moves[0][0] == self.moves[-1][0]

    @property
    def interpolant_order(self) -> int:
        """Order of the dense output."""
        return min(self.order, HERMITE)

    @property
    def stages(self) -> int:
        """Moves of one step."""
        return len(self.moves)

    @property
    def evaluations_per_step(self) -> int:
        """Evaluations in every step but the first: of one function of a `Separable`, or of f, half of which is used."""
        return self.stages - self.first_same_as_last

    def evaluations_again(self, dense: bool, method_state: None = None) -> int:
        """Evaluations in `retake`, and in dense output if the dense of the step is asked for."""
        return self.stages + dense * self.dense_evaluations

    def begin(self, f0: Rows) -> Rows:
        """What the first step begins with: the slope of its first move."""
        return _halves(f0)[self.moves[0][0]]

    def step(self, start: StepStart, error_norm: ErrorNorm | None = None) -> Step:
        """One step of size h; ``method_state`` is the slope of the first move if it is known."""
        f, t, y, h, method_state = start
        y1, first, last = self._step(f, t, y, h, method_state)
        made = self.stages - (method_state is not None)
        return Step(
            y1=y1,
            error=None,
            method_state=last if self.first_same_as_last else None,
            method_state_if_rejected=first,
            stages=y1,
            ok=True,
            evaluations=made,
            calls=made,
        )

    def retake(self, start: StepStart, *, dense: bool, derivatives: int = 1) -> Retaken:
        """An accepted step again: the new state, which is all that the dense is found from, twice."""
        f, t, y, h, _ = start
        y1, _, _ = self._step(f, t, y, h, None)
        return Retaken(y1, y1, None)

    def quadrature(self, start: StepStart) -> list[QuadratureNode]:
        """Return Gauss nodes on the dense output."""
        return gauss_nodes(self, start)

    def interpolate(self, start: StepStart, stages: Rows, thetas: Sequence[float]) -> Tensor:
        """The states at some θ of one step: shape [θ, rows, features]."""
        y, coefficients = start.y, self.interpolant(start, stages)
        at = torch.tensor(thetas, dtype=y.dtype.to_real(), device=y.device)
        return horner(coefficients[:, None], at[:, None, None])

    def interpolant(self, start: StepStart, stages: Rows) -> Tensor:
        """Coefficients C[0…3] of the cubic with the states and slopes at both ends: shape [4, rows, features]."""
        return hermite_interpolant(start, stages)

    def _step(self, f: Halved, t: Number, y: Rows, h: Number, first: Rows | None) -> tuple[Rows, Rows, Rows]:
        """The new state, and the slopes of the first and of the last move."""
        slopes, halves = f.halves, list(_halves(y))
        times = stage_times(t, h, self.nodes, y.dtype.to_real(), y.device)
        begun = slope = slopes[self.moves[0][0]](times[0], *halves) if first is None else first
        for place, ((half, weight), time) in enumerate(zip(self.moves, times, strict=True)):
            if place:
                slope = slopes[half](time, *halves)
            halves[half] = scaled(halves[half], h * weight, slope)
        return torch.cat(halves, 1), begun, slope


def _halves(rows: Rows) -> tuple[Rows, Rows]:
    """The columns of q and those of p, which are as many."""
    width = rows.shape[1] // 2
    return rows[:, :width], rows[:, width:]
