"""A planet on an ellipse for many revolutions: symplectic steps keep its energy within a bound, those of rk4 lose it.

Eccentricity 0.6, steps of 1/100 of a revolution, float64: 1,000 revolutions in 100,000 steps, which is as many as
``max_steps`` allows unless it is raised. "error" is the largest of |E - E0| / |E0| over the first and over the last
tenth of the steps: what is bounded is in both the same. ``python -m benchmarks kepler --plot`` also draws
docs/images/kepler.svg.
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
A_REVOLUTION = 100  # steps
STEPS = 100_000
PICTURE = Path(__file__).parents[1] / "docs" / "images" / "kepler.svg"
DOTS = 250  # of a curve


def velocity(t: Tensor, p: Tensor) -> Tensor:
    return p


def gravity(t: Tensor, q: Tensor) -> Tensor:
    return -q / torch.linalg.vector_norm(q) ** 3


KEPLER = Separable(velocity, gravity)


def start() -> tuple[Tensor, Tensor]:
    """Where the planet is nearest: the energy is -1/2, a revolution takes 2π."""
    q = torch.tensor([1 - ECCENTRICITY, 0.0], dtype=torch.float64)
    p = torch.tensor([0.0, math.sqrt((1 + ECCENTRICITY) / (1 - ECCENTRICITY))], dtype=torch.float64)
    return q, p


def energy(q: Tensor, p: Tensor) -> Tensor:
    return p.square().sum(-1) / 2 - 1 / torch.linalg.vector_norm(q, dim=-1)


@dataclass(frozen=True)
class Result:
    """One method: its largest errors of the energy, relative, early and late, and what it took."""

    method: str
    steps: int
    first_tenth: float
    last_tenth: float
    seconds: float  # of the processor
    calls: int  # of velocity or of force; those of rk4 of both at once


def drift(method: str, steps: int = STEPS) -> tuple[Result, Tensor]:
    """Follow the planet by so many steps; also returns the relative error of the energy after each."""
    h = 2 * math.pi / A_REVOLUTION
    with torch.no_grad():
        begun = time.process_time()
        sol = solve(
            KEPLER, start(), (0.0, steps * h), method=method, step_size=h, save="steps", max_steps=max(steps, STEPS)
        )
        seconds = time.process_time() - begun
        energies = energy(*sol.ys)
    errors = ((energies - energies[0]) / energies[0]).abs()
    tenth = steps // 10
    early, late = float(errors[:tenth].max()), float(errors[-tenth:].max())
    return Result(method, steps, early, late, seconds, sol.stats.calls), errors


def run(device: torch.device, samples: int) -> tuple[list[Result], list[Table]]:
    """Measure every method once, on the host whatever the device."""
    return tabulate({name: measured(name)[0] for name in METHODS})


def measured(name: str) -> tuple[Result, Tensor]:
    print(f"kepler: {name}", file=sys.stderr, flush=True)
    return drift(name)


def tabulate(results: dict[str, Result]) -> tuple[list[Result], list[Table]]:
    rows = [
        [name, f"{r.first_tenth:.1e}", f"{r.last_tenth:.1e}", f"{r.calls / r.steps:.0f}", f"{r.seconds:.1f}"]
        for name, r in results.items()
    ]
    columns = ["method", "error, first tenth", "last tenth", "calls a step", "s"]
    title = f"Kepler, e = {ECCENTRICITY}, {STEPS:,} steps of 1/{A_REVOLUTION} revolution"
    return list(results.values()), [Table(title, columns, rows)]


def run_and_plot(device: torch.device, samples: int) -> tuple[list[Result], list[Table]]:
    """The same, and the picture."""
    found = {name: measured(name) for name in METHODS}
    plot({name: errors for name, (_, errors) in found.items()})
    return tabulate({name: result for name, (result, _) in found.items()})


def plot(errors: dict[str, Tensor], path: Path = PICTURE) -> None:
    """Draw the largest error of each stretch of steps against the revolutions."""
    with mpl.rc_context({"svg.hashsalt": "neuralode", "svg.fonttype": "none", "font.size": 9}):
        figure = Figure(figsize=(6, 3.4), layout="constrained")
        axes = figure.subplots()
        for name, error in errors.items():
            stretch = (len(error) - 1) // DOTS
            largest = error[1 : 1 + DOTS * stretch].reshape(DOTS, stretch).amax(1)
            revolutions = torch.arange(1, DOTS + 1) * stretch / A_REVOLUTION
            axes.semilogy(revolutions.tolist(), largest.tolist(), label=name, linewidth=1.2)
        axes.set_xlabel("revolutions")
        axes.set_ylabel("relative error of the energy")
        axes.set_xlim(0, (len(next(iter(errors.values()))) - 1) / A_REVOLUTION)
        axes.grid(alpha=0.3)
        axes.legend(loc="center left", bbox_to_anchor=(1.0, 0.5), frameon=False)
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, metadata={"Date": None, "Creator": None})
