"""Kepler problem over many revolutions: the energy error of symplectic methods stays bounded, that of rk4 grows.

Eccentricity 0.6, 100 steps per revolution, float64: 1,000 revolutions in 100,000 steps, the default of ``max_steps``.
"error" is the maximum of |E - E0| / |E0| over the first and over the last tenth of the steps, which are equal if the
error is bounded. ``python -m benchmarks kepler --plot`` also draws docs/images/kepler.svg.
"""

from __future__ import annotations

import math
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import matplotlib as mpl
import torch
from matplotlib.figure import Figure
from torch import Tensor

from benchmarks.timing import Table
from neuralode import Separable, solve

METHODS = ("semi_implicit_euler", "leapfrog", "yoshida4", "blanes_moan4", "rk4")
ECCENTRICITY = 0.6
STEPS_PER_REVOLUTION = 100
STEPS = 100_000
PLOT = Path(__file__).parents[1] / "docs" / "images" / "kepler.svg"
POINTS = 250  # per curve


def velocity(t: Tensor, p: Tensor) -> Tensor:
    return p


def gravity(t: Tensor, q: Tensor) -> Tensor:
    return -q / torch.linalg.vector_norm(q) ** 3


KEPLER = Separable(velocity, gravity)


def start() -> tuple[Tensor, Tensor]:
    """Return position and momentum at perihelion, with energy -1/2 and period 2π."""
    q = torch.tensor([1 - ECCENTRICITY, 0.0], dtype=torch.float64)
    p = torch.tensor([0.0, math.sqrt((1 + ECCENTRICITY) / (1 - ECCENTRICITY))], dtype=torch.float64)
    return q, p


def energy(q: Tensor, p: Tensor) -> Tensor:
    return p.square().sum(-1) / 2 - 1 / torch.linalg.vector_norm(q, dim=-1)


@dataclass(frozen=True)
class Result:
    """One method: maximum relative energy errors, early and late, and cost."""

    method: str
    steps: int
    first_tenth: float
    last_tenth: float
    seconds: float  # processor time
    calls: int  # of velocity or force; rk4 evaluates both in one call


def drift(method: str, steps: int = STEPS) -> tuple[Result, Tensor]:
    """Integrate, and also return the relative energy error after each step."""
    h = 2 * math.pi / STEPS_PER_REVOLUTION
    with torch.no_grad():
        started = time.process_time()
        sol = solve(
            KEPLER, start(), (0.0, steps * h), method=method, step_size=h, save="steps", max_steps=max(steps, STEPS)
        )
        seconds = time.process_time() - started
        energies = energy(*sol.ys)
    errors = ((energies - energies[0]) / energies[0]).abs()
    tenth = steps // 10
    early, late = float(errors[:tenth].max()), float(errors[-tenth:].max())
    result = Result(method, steps, first_tenth=early, last_tenth=late, seconds=seconds, calls=sol.stats.calls)
    return result, errors


def run(device: torch.device, samples: int) -> tuple[list[Result], list[Table]]:
    """Measure every method once, on the CPU whatever the device."""
    return tabulate({name: measure(name)[0] for name in METHODS})


def measure(name: str) -> tuple[Result, Tensor]:
    print(f"kepler: {name}", file=sys.stderr, flush=True)
    return drift(name)


def tabulate(results: dict[str, Result]) -> tuple[list[Result], list[Table]]:
    rows = [
        [name, f"{r.first_tenth:.1e}", f"{r.last_tenth:.1e}", f"{r.calls / r.steps:.0f}", f"{r.seconds:.1f}"]
        for name, r in results.items()
    ]
    columns = ["method", "error, first tenth", "last tenth", "calls per step", "s"]
    title = f"Kepler, e = {ECCENTRICITY}, {STEPS:,} steps of 1/{STEPS_PER_REVOLUTION} revolution"
    return list(results.values()), [Table(title, columns, rows)]


def run_and_plot(device: torch.device, samples: int) -> tuple[list[Result], list[Table]]:
    """Measure every method once, and draw the plot."""
    measured = {name: measure(name) for name in METHODS}
    plot({name: errors for name, (_, errors) in measured.items()})
    return tabulate({name: result for name, (result, _) in measured.items()})


def plot(errors: dict[str, Tensor], path: Path = PLOT) -> None:
    """Plot the maximum error of each interval of steps against the number of revolutions."""
    with mpl.rc_context({"svg.hashsalt": "neuralode", "svg.fonttype": "none", "font.size": 9}):
        figure = Figure(figsize=(6, 3.4), layout="constrained")
        axes = figure.subplots()
        for name, error in errors.items():
            interval = (len(error) - 1) // POINTS
            largest = error[1 : 1 + POINTS * interval].reshape(POINTS, interval).amax(1)
            revolutions = torch.arange(1, POINTS + 1) * interval / STEPS_PER_REVOLUTION
            axes.semilogy(revolutions.tolist(), largest.tolist(), label=name, linewidth=1.2)
        axes.set_xlabel("revolutions")
        axes.set_ylabel("relative error of the energy")
        axes.set_xlim(0, (len(next(iter(errors.values()))) - 1) / STEPS_PER_REVOLUTION)
        axes.grid(alpha=0.3)
        axes.legend(loc="center left", bbox_to_anchor=(1.0, 0.5), frameon=False)
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, metadata={"Date": None, "Creator": None})
