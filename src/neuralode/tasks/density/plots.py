"""Figures of a density: rows beside samples, the density, and the flow as an animation."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from matplotlib.animation import PillowWriter
from matplotlib.figure import Figure

from neuralode.data.tables.rows import Table
from neuralode.solver.solve import solve
from neuralode.training.modules.row_density import RowDensity
from neuralode.training.plots import HistoryPlot, make_axes, save_figure

HISTORY_PLOTS: Sequence[HistoryPlot] = (
    HistoryPlot("nats", "nats a row", {"train_nats": "training", "val_loss": "validation"}),
    HistoryPlot("evaluations", "evaluations of the field per solve", {"train_evaluations": "training"}),
)
MAX_COLUMNS = 5  # in a figure of pairs
POINTS = 2000  # rows and samples in a figure
GRID = 120  # grid points of a density along each axis
TOLERANCE = 1e-3  # of the solver, for figures
FRAMES, LAST_FRAMES = 24, 8  # of the animation, and repetitions of the last one
MARGIN = 0.15  # around the rows, as a fraction of their range
ROWS, SAMPLES = ("rows", "tab:blue"), ("samples", "tab:orange")  # label and colour


def plot_rows(density: RowDensity, values: Table, samples: Table, *, path: Path) -> Path:
    """Plot rows, samples and, for one or two columns, the density; return the file written.

    Parameters
    ----------
    density : RowDensity
        Density of the rows.
    values : array[rows, columns]
        The rows.
    samples : array[rows, columns]
        Samples of the density.
    path : Path
        File to write.
    """
    varies = density.standard.varies
    names = _modelled(density)
    chosen = np.random.default_rng(0).permutation(len(values))[:POINTS]
    values, samples = values[chosen][:, varies], samples[:POINTS, varies]
    draw = {1: _draw_line, 2: _draw_plane}.get(len(names), _draw_pairs)
    return save_figure(draw(density, values, samples), path)


def plot_flow(density: RowDensity, path: Path) -> Path:
    """Animate the first two columns of samples from base to data; return the file written."""
    positions = trajectories(density)
    figure = Figure(figsize=(4.2, 4.2), layout="constrained")
    axes = figure.add_subplot()
    limit = np.abs(positions).max() * 1.05
    names = [f"{name}, in deviations" for name in _modelled(density)]
    path.parent.mkdir(parents=True, exist_ok=True)
    writer = PillowWriter(fps=12)
    # Colour by the initial position, so that the deformation of space can be seen.
    start = positions[0]
    colour = np.arctan2(start[:, 1], start[:, 0]) if start.shape[1] > 1 else start[:, 0]
    with writer.saving(figure, str(path), dpi=80):
        for frame in [*range(FRAMES), *[FRAMES - 1] * LAST_FRAMES]:
            axes.clear()
            if start.shape[1] > 1:
                axes.scatter(*positions[frame].T[:2], c=colour, s=3, cmap="twilight_shifted")
                axes.set(xlim=(-limit, limit), ylim=(-limit, limit), ylabel=names[1])
            else:
                axes.hist(positions[frame, :, 0], bins=60, range=(-limit, limit), density=True, color="tab:blue")
                axes.set(xlim=(-limit, limit), ylabel="density")
            axes.set(xlabel=names[0], title=f"from base to data: {frame / (FRAMES - 1):.0%}")
            axes.set_aspect("equal" if start.shape[1] > 1 else "auto")
            writer.grab_frame()
    return path


def trajectories(density: RowDensity, count: int = 1000) -> Float[np.ndarray, "frames samples features"]:
    """Return standardised positions of samples between base and data, one set per frame."""
    flow = density.flow
    z = torch.randn(count, density.standard.features, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        ys: Any = solve(flow.field, z, torch.linspace(*flow.t, FRAMES), rtol=TOLERANCE, atol=TOLERANCE).ys
    return ys.numpy()


def _draw_line(density: RowDensity, values: Table, samples: Table) -> Figure:
    figure, [axes] = make_axes(1)
    grid = np.linspace(*_limits(values), 4 * GRID)
    limits = (grid[0, 0], grid[-1, 0])
    for column, (label, colour) in ((values[:, 0], ROWS), (samples[:, 0], SAMPLES)):
        axes.hist(column, bins=40, range=limits, density=True, alpha=0.4, color=colour, label=label)
    density_values = np.exp(density.log_density(_full_rows(density, grid), TOLERANCE))
    axes.plot(grid[:, 0], density_values, color="black", label="density")
    axes.set(xlabel=_modelled(density)[0], ylabel="density")
    axes.legend()
    return figure


def _draw_plane(density: RowDensity, values: Table, samples: Table) -> Figure:
    figure, panels = make_axes(3)
    names = _modelled(density)
    low, high = _limits(values)
    x, y = (np.linspace(a, b, GRID) for a, b in zip(low, high, strict=True))
    points = np.stack(np.meshgrid(x, y), -1).reshape(-1, 2)
    density_values = np.exp(density.log_density(_full_rows(density, points), TOLERANCE)).reshape(GRID, GRID)
    panels[0].scatter(*values.T, s=3, color=ROWS[1])
    panels[1].scatter(*samples.T, s=3, color=SAMPLES[1])
    panels[2].grid(visible=False)
    panels[2].pcolormesh(x, y, density_values, cmap="magma", shading="nearest", rasterized=True)
    for axes, title in zip(panels, ("rows", "samples", "density"), strict=True):
        axes.set(title=title, xlim=(low[0], high[0]), ylim=(low[1], high[1]), xlabel=names[0], ylabel=names[1])
    return figure


def _draw_pairs(density: RowDensity, values: Table, samples: Table) -> Figure:
    names = _modelled(density)
    shown = min(len(names), MAX_COLUMNS)
    low, high = _limits(values)
    size = 2.1 * shown + 0.6
    figure = Figure(figsize=(size, size), layout="constrained")
    grid = figure.subplots(shown, shown, squeeze=False)
    for row in range(shown):
        for column in range(shown):
            axes = grid[row, column]
            axes.spines[["top", "right"]].set_visible(False)
            if column > row:
                axes.set_axis_off()
                continue
            for data, (label, colour) in ((values, ROWS), (samples, SAMPLES)):
                if row == column:
                    limits = (low[row], high[row])
                    axes.hist(data[:, row], bins=30, range=limits, density=True, alpha=0.5, color=colour, label=label)
                else:
                    axes.scatter(data[:, column], data[:, row], s=2, alpha=0.5, color=colour)
                    axes.set_ylim(low[row], high[row])
            axes.set_xlim(low[column], high[column])
            if row == column:
                axes.set_yticks([])
            axes.set_xlabel(names[column] if row == shown - 1 else "")
            axes.set_ylabel(names[row] if column == 0 and row else "")
    note = f": {shown} of {len(names)} columns" if len(names) > shown else ""
    figure.legend(*grid[0, 0].get_legend_handles_labels(), loc="upper right", title=f"rows and samples{note}")
    return figure


def _modelled(density: RowDensity) -> list[str]:
    return [name for name, varies in zip(density.standard.names, density.standard.varies, strict=True) if varies]


def _limits(values: Table) -> tuple[np.ndarray, np.ndarray]:
    low, high = values.min(0), values.max(0)
    return low - MARGIN * (high - low), high + MARGIN * (high - low)


def _full_rows(density: RowDensity, points: Table) -> Table:
    """Return points of the varying columns as rows of the table, with the constants filled in."""
    rows = np.tile(density.standard.mean, (len(points), 1))
    rows[:, density.standard.varies] = points
    return rows
