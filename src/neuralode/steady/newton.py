"""Newton's iteration for f(y) = 0, which keeps only steps that reduce |f|."""

from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import Bool, Shaped
from torch import Tensor

from neuralode.core.problem import Problem
from neuralode.steady.linear_systems import jacobian_system, time_zero


class NewtonResult(NamedTuple):
    """The state after Newton's iteration, f there, and the calls of f that it took."""

    y: Shaped[Tensor, "rows features"]
    slope: Shaped[Tensor, "rows features"]
    calls: int


def newton(
    problem: Problem, y: Tensor, active: Bool[Tensor, " rows"], *, max_iterations: int, dense_limit: int
) -> NewtonResult:
    """Improve a state by Newton steps in the active rows, until no row improves.

    Parameters
    ----------
    problem : Problem
        Its field is f.
    y : Tensor[rows, features]
        The initial state, packed.
    active : Tensor[rows]
        The rows that may change.
    max_iterations : int
        Largest number of Newton steps.
    dense_limit : int
        Size up to which Jacobians are formed.
    """
    field, t = problem.field, time_zero(problem)
    slope, calls = field(t, y), 1
    for _ in range(max_iterations):
        system = jacobian_system(problem, y, dense_limit)
        trial = y - system.solve(slope)
        trial_slope = field(t, trial)
        calls += 1 + system.calls
        better = active & (_norm(trial_slope, field.coupled) < _norm(slope, field.coupled))
        if not bool(better.any()):
            break
        y = torch.where(better[:, None], trial, y)
        slope = torch.where(better[:, None], trial_slope, slope)
    return NewtonResult(y, slope, calls)


def _norm(slope: Tensor, coupled: bool) -> Tensor:
    """Return |f| of each row, or that of all rows for each of them."""
    norms = torch.linalg.vector_norm(slope, dim=1)
    return torch.linalg.vector_norm(norms).expand(len(norms)) if coupled else norms
