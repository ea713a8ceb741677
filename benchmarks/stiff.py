"""Stiff problems: error, evaluations of f and time of the implicit methods, and of SciPy's.

"evaluations" counts calls of f. Ours excludes the calls that compute Jacobians; SciPy's includes them, as it uses
finite differences. "error" is the maximum over components of the relative error against SciPy's Radau at 1e-13.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from scipy.integrate import solve_ivp
from torch import Tensor

from benchmarks.timing import Table, Timing, interleaved
from neuralode import solve

TOLERANCES = (1e-4, 1e-6, 1e-8)
OURS = {
    "kvaerno3": TOLERANCES[:1],
    "kvaerno4": TOLERANCES[:2],
    "kvaerno5": TOLERANCES,
}  # low orders are slow at tight tolerances
THEIRS = ("Radau", "BDF", "LSODA")


def robertson(a: Any, b: Any, c: Any) -> list[Any]:
    return [1e4 * b * c - 0.04 * a, 0.04 * a - 1e4 * b * c - 3e7 * b * b, 3e7 * b * b]


def van_der_pol(x: Any, v: Any) -> list[Any]:
    return [v, 1000 * (1 - x * x) * v - x]


def hires(a: Any, b: Any, c: Any, d: Any, e: Any, f: Any, g: Any, h: Any) -> list[Any]:
    bound = 280 * f * h
    return [
        -1.71 * a + 0.43 * b + 8.32 * c + 0.0007,
        1.71 * a - 8.75 * b,
        -10.03 * c + 0.43 * d + 0.035 * e,
        8.32 * b + 1.71 * c - 1.12 * d,
        -1.745 * e + 0.43 * f + 0.43 * g,
        -bound + 0.69 * d + 1.71 * e - 0.43 * f + 0.69 * g,
        bound - 1.81 * g,
        -bound + 1.81 * g,
    ]


@dataclass(frozen=True)
class StiffProblem:
    """One problem: f of the components, initial state and final time."""

    name: str
    f: Callable[..., list[Any]]
    start: tuple[float, ...]
    end: float
    atol: float  # as a multiple of rtol

    def torch(self, t: Tensor, y: Tensor) -> Tensor:
        return torch.stack(self.f(*y.unbind(-1)), -1)

    def numpy(self, t: float, y: np.ndarray) -> list[Any]:
        return self.f(*y)


PROBLEMS = (
    StiffProblem("Robertson, t ≤ 1e5", robertson, (1.0, 0.0, 0.0), 1e5, 1e-6),
    StiffProblem("HIRES", hires, (1.0, 0, 0, 0, 0, 0, 0, 0.0057), 321.8122, 1e-3),
    StiffProblem("van der Pol, μ = 1000", van_der_pol, (2.0, 0.0), 2000.0, 1e-3),
)


@dataclass(frozen=True)
class Result:
    """One method at one tolerance on one problem."""

    problem: str
    method: str
    tolerance: float
    timing: Timing
    steps: int
    evaluations: int
    error: float


def ours(problem: StiffProblem, method: str, tolerance: float) -> tuple[np.ndarray, int, int]:
    y0 = torch.tensor(problem.start, dtype=torch.float64)
    with torch.no_grad():
        sol = solve(problem.torch, y0, (0.0, problem.end), method=method, rtol=tolerance, atol=tolerance * problem.atol)
    return sol.y1.numpy(), int(sol.stats.accepted), sol.stats.calls


def theirs(problem: StiffProblem, method: str, tolerance: float) -> tuple[np.ndarray, int, int]:
    solution = solve_ivp(
        problem.numpy, (0, problem.end), problem.start, method=method, rtol=tolerance, atol=tolerance * problem.atol
    )
    return solution.y[:, -1], len(solution.t) - 1, solution.nfev


def run(device: torch.device, samples: int) -> tuple[list[Result], list[Table]]:
    """Measure every problem on the CPU, whatever the device, as SciPy runs there."""
    results = []
    for problem in PROBLEMS:
        print(f"stiff: {problem.name}", file=sys.stderr, flush=True)
        results += measure(problem, samples)
    return results, [table(problem.name, results) for problem in PROBLEMS]


def measure(problem: StiffProblem, samples: int) -> list[Result]:
    expected, _, _ = theirs(problem, "Radau", 1e-13)
    runs = {
        (name, r): partial(ours, problem, method=name, tolerance=r)
        for name, tolerances in OURS.items()
        for r in tolerances
    }
    runs |= {
        (f"SciPy {name}", r): partial(theirs, problem, method=name, tolerance=r) for name in THEIRS for r in TOLERANCES
    }
    timings = interleaved(
        {f"{name} {tolerance}": run for (name, tolerance), run in runs.items()}, samples, torch.device("cpu")
    )
    results = []
    for (name, tolerance), solver in runs.items():
        y, steps, evaluations = solver()
        error = float(np.abs((y - expected) / expected).max())
        timing = timings[f"{name} {tolerance}"]
        measured = {"timing": timing, "steps": steps, "evaluations": evaluations, "error": error}
        results.append(Result(problem.name, name, tolerance, **measured))
    return results


def table(problem: str, results: list[Result]) -> Table:
    rows = [
        [r.method, f"{r.tolerance:.0e}", str(r.steps), str(r.evaluations), f"{r.error:.1e}", str(r.timing)]
        for r in results
        if r.problem == problem
    ]
    return Table(f"Stiff: {problem}", ["method", "rtol", "steps", "evaluations", "error", "ms (range)"], rows)
