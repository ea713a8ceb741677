"""Work-precision diagrams: error against evaluations of f, for every adaptive method and SciPy's RK45 and DOP853.

Three smooth problems are solved to a final time, at tolerances from 1e-2 down by factors of ten, until a method exceeds
`MAX_EVALUATIONS`. "error" is the maximum norm of the error of the final state. "evaluations" counts those of the solve,
without the checks of f.

``python -m benchmarks precision --plot`` also draws docs/images/precision.svg.
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import torch
from matplotlib.figure import Figure
from scipy.integrate import solve_ivp
from torch import Tensor

from benchmarks.timing import Table
from neuralode import SolveError, methods, solve

MAX_EVALUATIONS = 20_000  # per solve; finer tolerances are for higher orders
TOLERANCES = tuple(10.0**-n for n in range(2, 15))
SCIPY_METHODS = ("RK45", "DOP853")
PLOT = Path(__file__).parents[1] / "docs" / "images" / "precision.svg"
TARGET_ERRORS = (1e-4, 1e-8, 1e-12)


def arenstorf(t: Any, y: Tensor) -> Tensor:
    """Satellite between earth and moon, over one period (Hairer, Nørsett & Wanner I, II.0)."""
    moon = 0.012277471
    earth = 1 - moon
    a, b, u, v = y.unbind(-1)
    to_earth, to_moon = ((a + moon) ** 2 + b**2) ** 1.5, ((a - earth) ** 2 + b**2) ** 1.5
    ax = a + 2 * v - earth * (a + moon) / to_earth - moon * (a - earth) / to_moon
    return torch.stack((u, v, ax, b - 2 * u - earth * b / to_earth - moon * b / to_moon), -1)


def pleiades(t: Any, y: Tensor) -> Tensor:
    """Seven stars in the plane (ibid., II.10)."""
    mass = torch.arange(1, 8, dtype=y.dtype)
    x, z, u, v = y.unflatten(-1, (4, 7)).unbind(-2)
    dx, dz = x[..., None, :] - x[..., :, None], z[..., None, :] - z[..., :, None]
    cubed = (dx**2 + dz**2 + torch.eye(7, dtype=y.dtype)) ** 1.5
    return torch.cat((u, v, (mass * dx / cubed).sum(-1), (mass * dz / cubed).sum(-1)), -1)


def network() -> Callable[[Any, Tensor], Tensor]:
    """Return a small network as a field: two hidden tanh layers of 32 units."""
    generator = torch.Generator().manual_seed(0)

    def layer(inputs: int, outputs: int) -> tuple[Tensor, Tensor]:
        bound = inputs**-0.5
        weight = (2 * torch.rand(outputs, inputs, generator=generator, dtype=torch.float64) - 1) * bound
        return weight, (2 * torch.rand(outputs, generator=generator, dtype=torch.float64) - 1) * bound

    layers = [layer(*sizes) for sizes in ((4, 32), (32, 32), (32, 4))]

    def field(t: Any, y: Tensor) -> Tensor:
        for weight, bias in layers[:-1]:
            y = torch.tanh(torch.nn.functional.linear(y, 3 * weight, bias))
        return torch.nn.functional.linear(y, 3 * layers[-1][0], layers[-1][1])

    return field


@dataclass(frozen=True)
class SmoothProblem:
    """One problem: field, initial state and final time."""

    name: str
    f: Callable[[Any, Tensor], Tensor]
    start: tuple[float, ...]
    end: float

    def numpy(self, t: float, y: np.ndarray) -> np.ndarray:
        return self.f(t, torch.from_numpy(y)).numpy()


PROBLEMS = (
    SmoothProblem(
        "Arenstorf orbit", arenstorf, (0.994, 0.0, 0.0, -2.00158510637908252240537862224), 17.0652165601579625588917
    ),
    SmoothProblem(
        "Pleiades",
        pleiades,
        (3, 3, -1, -3, 2, -2, 2, 3, -3, 2, 0, 0, -4, 4, 0, 0, 0, 0, 0, 1.75, -1.5, 0, 0, 0, -1.25, 1, 0, 0),
        3.0,
    ),
    SmoothProblem("network of two layers", network(), (1.0, -0.5, 0.25, 0.0), 5.0),
)


@dataclass(frozen=True)
class Result:
    """One method at one tolerance on one problem."""

    problem: str
    method: str
    order: int
    tolerance: float
    evaluations: int
    error: float


def ours(problem: SmoothProblem, method: str, tolerance: float) -> tuple[np.ndarray, int] | None:
    y0 = torch.tensor(problem.start, dtype=torch.float64)
    max_steps = MAX_EVALUATIONS // methods()[method].evaluations_per_step
    try:
        sol = solve(
            problem.f, y0, (0.0, problem.end), method=method, rtol=tolerance, atol=tolerance, max_steps=max_steps
        )
    except SolveError:
        return None
    return sol.y1.numpy(), int(sol.stats.evaluations)


def theirs(problem: SmoothProblem, method: str, tolerance: float) -> tuple[np.ndarray, int]:
    start = np.array(problem.start, dtype=float)
    solution = solve_ivp(problem.numpy, (0, problem.end), start, method=method, rtol=tolerance, atol=tolerance)
    return solution.y[:, -1], solution.nfev


def reference(problem: SmoothProblem) -> np.ndarray:
    """Return the final state: the initial one for the periodic orbit, else the mean of vern9 and SciPy's DOP853."""
    if problem.name == "Arenstorf orbit":
        return np.array(problem.start)
    y0 = torch.tensor(problem.start, dtype=torch.float64)
    ours = solve(problem.f, y0, (0.0, problem.end), method="vern9", rtol=3e-14, atol=1e-15).y1.numpy()
    scipy = solve_ivp(problem.numpy, (0, problem.end), y0.numpy(), method="DOP853", rtol=3e-14, atol=1e-15).y[:, -1]
    difference = float(np.abs(ours - scipy).max())
    print(f"precision: references of {problem.name} differ by {difference:.1e}", file=sys.stderr)
    return (ours + scipy) / 2


def run(device: torch.device, samples: int) -> tuple[list[Result], list[Table]]:
    """Measure evaluations and errors on every problem, on the CPU; times are not measured."""
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # tolerances below the rounding error of the state
        results = [result for problem in PROBLEMS for result in measure(problem)]
    return results, [table(problem.name, results) for problem in PROBLEMS]


def measure(problem: SmoothProblem) -> list[Result]:
    expected = reference(problem)
    results = []
    runs: list[tuple[str, int, Callable[[float], tuple[np.ndarray, int] | None]]] = [
        (name, method.order, lambda tolerance, name=name: ours(problem, name, tolerance))
        for name, method in methods().items()
        if method.adaptive
    ]
    runs += [
        (f"SciPy {name}", order, lambda tolerance, name=name: theirs(problem, name, tolerance))
        for name, order in zip(SCIPY_METHODS, (5, 8), strict=True)
    ]
    for name, order, solver in runs:
        print(f"precision: {problem.name}, {name}", file=sys.stderr, flush=True)
        for tolerance in TOLERANCES:
            if name.startswith("SciPy") and tolerance < 3e-14:
                continue  # SciPy refuses these
            solved = solver(tolerance)
            if solved is None and all(result.method != name for result in results):
                continue  # the solve fails at coarse tolerances
            if solved is None or solved[1] > MAX_EVALUATIONS:
                break
            error = float(np.abs(solved[0] - expected).max())
            results.append(Result(problem.name, name, order, tolerance=tolerance, evaluations=solved[1], error=error))
    return results


def table(problem: str, results: list[Result]) -> Table:
    """Tabulate the evaluations that each method needs for the target errors."""
    selected = [result for result in results if result.problem == problem]
    rows = []
    for name in dict.fromkeys(result.method for result in selected):
        points = [result for result in selected if result.method == name]
        best = min(points, key=lambda result: result.error)
        needed = [evaluations_for(points, error) for error in TARGET_ERRORS]
        rows.append([name, *(f"{n:,.0f}" if n else "" for n in needed), f"{best.error:.1e}", f"{best.evaluations:,}"])
    columns = [
        "method",
        *(f"evaluations to {error:.0e}" for error in TARGET_ERRORS),
        "smallest error",
        "evaluations for it",
    ]
    return Table(f"Work and precision: {problem}", columns, rows)


def evaluations_for(points: list[Result], error: float) -> float | None:
    """Interpolate log-linearly between the last result above ``error`` and the first below."""
    for before, after in pairwise(points):
        if before.error > error >= after.error:
            fraction = np.log(before.error / error) / np.log(before.error / after.error)
            return float(before.evaluations * (after.evaluations / before.evaluations) ** fraction)
    return None


def run_and_plot(device: torch.device, samples: int) -> tuple[list[Result], list[Table]]:
    """Measure every problem, and draw the plot."""
    results, tables = run(device, samples)
    plot(results)
    return results, tables


def plot(results: list[Result], path: Path = PLOT) -> None:
    """Draw one panel per problem, coloured by order; SciPy is black."""
    order = {result.method: result.order for result in results}
    names = sorted(order, key=order.__getitem__)
    colours = mpl.colormaps["turbo"]
    with mpl.rc_context({"svg.hashsalt": "neuralode", "svg.fonttype": "none", "font.size": 9}):
        figure = Figure(figsize=(14, 5.6), layout="constrained")
        panels = figure.subplots(1, len(PROBLEMS), sharey=True)
        for panel, problem in zip(panels, PROBLEMS, strict=True):
            for name in names:
                points = [r for r in results if (r.problem, r.method) == (problem.name, name)]
                is_scipy = name.startswith("SciPy")
                same_style = [
                    other for other in names if order[other] == order[name] and other.startswith("SciPy") == is_scipy
                ]
                panel.loglog(
                    [max(point.error, 1e-15) for point in points],
                    [point.evaluations for point in points],
                    color="black" if is_scipy else colours((order[name] - 1.5) / 8.5),
                    linestyle="--" if is_scipy else "-",
                    marker="osDv^<>P"[same_style.index(name)],
                    markersize=3.5,
                    linewidth=1,
                    label=f"{name}, {order[name]}",
                )
            panel.set_xlim(10, 1e-15)
            panel.set(title=problem.name, xlabel="error at the final time")
            panel.grid(alpha=0.3)
        panels[0].set_ylabel("evaluations of f")
        panels[-1].legend(loc="center left", bbox_to_anchor=(1.0, 0.5), frameon=False, title="method, order")
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, metadata={"Date": None, "Creator": None})
