"""Where torchdiffeq's numbers are not what its methods promise: the evidence, measured beside ours."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torchdiffeq as theirs
from torch import Tensor

import neuralode.torchdiffeq as ours
from benchmarks.timing import Table

SPAN = 10.0


@dataclass(frozen=True)
class Evidence:
    """One difference: what is measured, theirs and ours."""

    what: str
    theirs: str
    ours: str


def measure() -> list[Evidence]:
    both = (theirs, ours)
    stepped = [_error(library, "dopri8", {"rtol": 1e-10, "atol": 1e-10}, modulated) for library in both]
    adams = [_error(library, "explicit_adams", {"options": {"step_size": 0.05}}, decay) for library in both]
    return [
        Evidence("gl4, order measured on y' = y cos t (theirs: its repository's tableau)", *_gl4()),
        Evidence("dopri8 at 1e-10 on y' = y cos t, error at t = 10", *map(_shown, stepped)),
        Evidence("explicit_adams as it comes, 200 steps on y' = −y, error at t = 10", *map(_shown, adams)),
    ]


def modulated(t: Tensor, y: Tensor) -> Tensor:
    return y * torch.cos(t)


def decay(t: Tensor, y: Tensor) -> Tensor:
    return -y


def _error(library: Any, method: str, how: dict[str, Any], f: Callable[[Tensor, Tensor], Tensor]) -> float:
    exact = math.exp(math.sin(SPAN)) if f is modulated else math.exp(-SPAN)
    y0, t = torch.ones(1, dtype=torch.float64), torch.tensor([0.0, SPAN], dtype=torch.float64)
    with torch.no_grad():
        return abs(library.odeint(f, y0, t, method=method, **how)[-1].item() - exact)


def _gl4() -> tuple[str, str]:
    """Slopes of the error against the step, from 40 to 160 steps."""
    root = math.sqrt(3) / 6
    a = np.array([[1 / 4, 1 / 4 - root], [1 / 4 + root, 1 / 4]])
    repository = [_linear(a, np.array([0.5 - root, 0.5 - root]), steps) for steps in (40, 160)]
    own = [_error(ours, "gl4", {"options": {"step_size": SPAN / steps}}, modulated) for steps in (40, 160)]
    return tuple(f"{math.log(coarse / fine, 4):.2f}" for coarse, fine in (repository, own))  # type: ignore[return-value]


def _linear(a: np.ndarray, nodes: np.ndarray, steps: int) -> float:
    """The error of a two-stage method with these nodes on y' = y cos t, whose stages solve a linear system."""
    h, y = SPAN / steps, 1.0
    for n in range(steps):
        rates = np.cos(n * h + nodes * h)
        stages = np.linalg.solve(np.eye(2) - h * rates[:, None] * a, rates * y)
        y += h * stages.mean()
    return abs(y - math.exp(math.sin(SPAN)))


def _shown(error: float) -> str:
    return f"{error:.1e}"


def table(found: list[Evidence]) -> Table:
    rows = [[e.what, e.theirs, e.ours] for e in found]
    return Table("Drop-in: differences", ["what", "torchdiffeq", "neuralode"], rows)
