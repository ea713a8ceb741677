"""Work and precision: the error of every method that adapts its steps against the evaluations of f it takes.

Three smooth problems, each solved to a last time at tolerances from 1e-2 on, tenfold finer each time, until a method
would take more than `MOST` evaluations; SciPy's RK45 and DOP853 beside ours. "error" is the largest of the last state
against the reference; "evaluations" are those of the solve, checks of f left out.

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

MOST = 20_000  # evaluations: finer tolerances are left to higher orders
TOLERANCES = tuple(10.0**-n for n in range(2, 15))
THEIRS = ("RK45", "DOP853")
PICTURE = Path(__file__).parents[1] / "docs" / "images" / "precision.svg"
WANTED = (1e-4, 1e-8, 1e-12)  # errors at which the table compares


def arenstorf(t: Any, y: Tensor) -> Tensor:
    """A satellite between earth and moon (Hairer, Nørsett & Wanner I, II.0): one period."""
    moon = 0.012277471
    earth = 1 - moon
    a, b, u, v = y.unbind(-1)
    to_earth, to_moon = ((a + moon) ** 2 + b**2) ** 1.5, ((a - earth) ** 2 + b**2) ** 1.5
    ax = a + 2 * v - earth * (a + moon) / to_earth - moon * (a - earth) / to_moon
    return torch.stack((u, v, ax, b - 2 * u - earth * b / to_earth - moon * b / to_moon), -1)


def pleiades(t: Any, y: Tensor) -> Tensor:
    """Seven stars in the plane (the same, II.10)."""
    mass = torch.arange(1, 8, dtype=y.dtype)
    x, z, u, v = y.unflatten(-1, (4, 7)).unbind(-2)
    dx, dz = x[..., None, :] - x[..., :, None], z[..., None, :] - z[..., :, None]
    cubed = (dx**2 + dz**2 + torch.eye(7, dtype=y.dtype)) ** 1.5
    return torch.cat((u, v, (mass * dx / cubed).sum(-1), (mass * dz / cubed).sum(-1)), -1)


def network() -> Callable[[Any, Tensor], Tensor]:
    """A small network as a field: two hidden tanh layers of 32."""
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
class Smooth:
    """One problem, and where it is looked at."""

    name: str
    f: Callable[[Any, Tensor], Tensor]
    start: tuple[float, ...]
    end: float

    def numpy(self, t: float, y: np.ndarray) -> np.ndarray:
        return self.f(t, torch.from_numpy(y)).numpy()


PROBLEMS = (
    Smooth(
        "Arenstorf orbit", arenstorf, (0.994, 0.0, 0.0, -2.00158510637908252240537862224), 17.0652165601579625588917
    ),
    Smooth(
        "Pleiades",
        pleiades,
        (3, 3, -1, -3, 2, -2, 2, 3, -3, 2, 0, 0, -4, 4, 0, 0, 0, 0, 0, 1.75, -1.5, 0, 0, 0, -1.25, 1, 0, 0),
        3.0,
    ),
    Smooth("network of two layers", network(), (1.0, -0.5, 0.25, 0.0), 5.0),
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


def ours(problem: Smooth, method: str, tolerance: float) -> tuple[np.ndarray, int] | None:
    y0 = torch.tensor(problem.start, dtype=torch.float64)
    most = MOST // methods()[method].evaluations_per_step
    try:
        sol = solve(problem.f, y0, (0.0, problem.end), method=method, rtol=tolerance, atol=tolerance, max_steps=most)
    except SolveError:
        return None
    return sol.y1.numpy(), int(sol.stats.evaluations)


def theirs(problem: Smooth, method: str, tolerance: float) -> tuple[np.ndarray, int]:
    start = np.array(problem.start, dtype=float)
    found = solve_ivp(problem.numpy, (0, problem.end), start, method=method, rtol=tolerance, atol=tolerance)
    return found.y[:, -1], found.nfev


def reference(problem: Smooth) -> np.ndarray:
    """The orbit returns to where it began; of the others our vern9 and SciPy's DOP853 at their finest, which agree."""
    if problem.name == "Arenstorf orbit":
        return np.array(problem.start)
    y0 = torch.tensor(problem.start, dtype=torch.float64)
    found = solve(problem.f, y0, (0.0, problem.end), method="vern9", rtol=3e-14, atol=1e-15).y1.numpy()
    other = solve_ivp(problem.numpy, (0, problem.end), y0.numpy(), method="DOP853", rtol=3e-14, atol=1e-15).y[:, -1]
    substitution = float(np.abs(found - other).max())
    print(f"precision: references of {problem.name} differ by {substitution:.1e}", file=sys.stderr)
    return (found + other) / 2


def run(device: torch.device, samples: int) -> tuple[list[Result], list[Table]]:
    """Measure every problem on the host: what counts are evaluations and errors, not times."""
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of tolerances that are finer than the state resolves
        results = [result for problem in PROBLEMS for result in measure(problem)]
    return results, [table(problem.name, results) for problem in PROBLEMS]


def measure(problem: Smooth) -> list[Result]:
    wanted = reference(problem)
    results = []
    runs: list[tuple[str, int, Callable[[float], tuple[np.ndarray, int] | None]]] = [
        (name, method.order, lambda tolerance, name=name: ours(problem, name, tolerance))
        for name, method in methods().items()
        if method.adaptive
    ]
    runs += [
        (f"SciPy {name}", order, lambda tolerance, name=name: theirs(problem, name, tolerance))
        for name, order in zip(THEIRS, (5, 8), strict=True)
    ]
    for name, order, solver in runs:
        print(f"precision: {problem.name}, {name}", file=sys.stderr, flush=True)
        for tolerance in TOLERANCES:
            if name.startswith("SciPy") and tolerance < 3e-14:
                continue  # SciPy refuses these
            found = solver(tolerance)
            if found is None and all(result.method != name for result in results):
                continue  # too coarse to get through
            if found is None or found[1] > MOST:
                break
            error = float(np.abs(found[0] - wanted).max())
            results.append(Result(problem.name, name, order, tolerance, found[1], error))
    return results


def table(problem: str, results: list[Result]) -> Table:
    """Evaluations by which each method comes to a few errors, between the two tolerances around."""
    own = [result for result in results if result.problem == problem]
    rows = []
    for name in dict.fromkeys(result.method for result in own):
        points = [result for result in own if result.method == name]
        best = min(points, key=lambda result: result.error)
        needed = [evaluations_for(points, error) for error in WANTED]
        rows.append([name, *(f"{n:,.0f}" if n else "" for n in needed), f"{best.error:.1e}", f"{best.evaluations:,}"])
    columns = ["method", *(f"evaluations to {error:.0e}" for error in WANTED), "least error", "evaluations for it"]
    return Table(f"Work and precision: {problem}", columns, rows)


def evaluations_for(points: list[Result], error: float) -> float | None:
    """On the line, in logarithms, between the last result above ``error`` and the first below."""
    for before, after in pairwise(points):
        if before.error > error >= after.error:
            share = np.log(before.error / error) / np.log(before.error / after.error)
            return float(before.evaluations * (after.evaluations / before.evaluations) ** share)
    return None


def run_and_plot(device: torch.device, samples: int) -> tuple[list[Result], list[Table]]:
    """The same, and the picture."""
    results, tables = run(device, samples)
    plot(results)
    return results, tables


def plot(results: list[Result], path: Path = PICTURE) -> None:
    """One panel a problem; the order gives the colour, and SciPy is black."""
    order = {result.method: result.order for result in results}
    names = sorted(order, key=order.__getitem__)
    colours = mpl.colormaps["turbo"]
    with mpl.rc_context({"svg.hashsalt": "neuralode", "svg.fonttype": "none", "font.size": 9}):
        figure = Figure(figsize=(14, 5.6), layout="constrained")
        panels = figure.subplots(1, len(PROBLEMS), sharey=True)
        for panel, problem in zip(panels, PROBLEMS, strict=True):
            for name in names:
                points = [r for r in results if (r.problem, r.method) == (problem.name, name)]
                outside = name.startswith("SciPy")
                alike = [
                    other for other in names if order[other] == order[name] and other.startswith("SciPy") == outside
                ]
                panel.loglog(
                    [max(point.error, 1e-15) for point in points],
                    [point.evaluations for point in points],
                    color="black" if outside else colours((order[name] - 1.5) / 8.5),
                    linestyle="--" if outside else "-",
                    marker="osDv^<>P"[alike.index(name)],
                    markersize=3.5,
                    linewidth=1,
                    label=f"{name}, {order[name]}",
                )
            panel.set_xlim(10, 1e-15)
            panel.set(title=problem.name, xlabel="error at the end")
            panel.grid(alpha=0.3)
        panels[0].set_ylabel("evaluations of f")
        panels[-1].legend(loc="center left", bbox_to_anchor=(1.0, 0.5), frameon=False, title="method, order")
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, metadata={"Date": None, "Creator": None})
