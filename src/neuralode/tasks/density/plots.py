"""The pictures of a density: rows and samples side by side, the density itself, and how the flow makes it."""

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

PICTURES: Sequence[HistoryPlot] = (
    HistoryPlot("nats", "nats a row", {"train_nats": "training", "val_loss": "validation"}),
    HistoryPlot("evaluations", "evaluations of the field per solve", {"train_evaluations": "training"}),
)
COLUMNS = 5  # that a picture of pairs has room for
POINTS = 2000  # that are drawn
GRID = 120  # points of a drawn density along each side
DRAWN = 1e-3  # tolerance of what is only looked at
FRAMES, REST = 24, 8  # from base to data; and how often the last one is shown
MARGIN = 0.15  # of the range of the rows, around it


def plot_rows(density: RowDensity, values: Table, samples: Table, folder: Path) -> Path:
    """Draw rows, samples and, of one or two columns, the density; return the file written.

    Parameters
    ----------
    density : RowDensity
        Of the rows.
    values, samples : array[rows, columns]
        What was learned from, and what was drawn from the density.
    folder : Path
        Where the picture goes.
    """
    varies = density.standard.varies
    names = _modelled(density)
    some = np.random.default_rng(0).permutation(len(values))[:POINTS]
    values, samples = values[some][:, varies], samples[:POINTS, varies]
    draw = {1: _draw_line, 2: _draw_plane}.get(len(names), _draw_pairs)
    return save_figure(draw(density, values, samples, names), folder / "density.png")


def plot_flow(density: RowDensity, folder: Path) -> Path:
    """Draw samples as they move from the base to the data, the first two columns of them; return the file written."""
    paths = trajectories(density)
    figure = Figure(figsize=(4.2, 4.2), layout="constrained")
    axes = figure.add_subplot()
    reach = np.abs(paths).max() * 1.05
    names = [f"{name}, in deviations" for name in _modelled(density)]
    path = folder / "flow.gif"
    path.parent.mkdir(parents=True, exist_ok=True)
    writer = PillowWriter(fps=12)
    # where a sample began is its colour, so that one sees how space is carried along
    colour = np.arctan2(paths[0, :, 1], paths[0, :, 0]) if paths.shape[2] > 1 else paths[0, :, 0]
    with writer.saving(figure, str(path), dpi=80):
        for frame in [*range(FRAMES), *[FRAMES - 1] * REST]:
            axes.clear()
            if paths.shape[2] > 1:
                axes.scatter(*paths[frame].T[:2], c=colour, s=3, cmap="twilight_shifted")
                axes.set(xlim=(-reach, reach), ylim=(-reach, reach), ylabel=names[1])
            else:
                axes.hist(paths[frame, :, 0], bins=60, range=(-reach, reach), density=True, color="tab:blue")
                axes.set(xlim=(-reach, reach), ylabel="density")
            axes.set(xlabel=names[0], title=f"from base to data: {frame / (FRAMES - 1):.0%}")
            axes.set_aspect("equal" if paths.shape[2] > 1 else "auto")
            writer.grab_frame()
    return path


def trajectories(density: RowDensity, count: int = 1000) -> Float[np.ndarray, "frames samples features"]:
    """Where samples are on their way from base to data, on the common scale."""
    flow = density.flow
    z = torch.randn(count, density.standard.features, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        ys: Any = solve(flow.field, z, torch.linspace(*flow.t, FRAMES), rtol=DRAWN, atol=DRAWN).ys
    return ys.numpy()


def _draw_line(density: RowDensity, values: Table, samples: Table, names: list[str]) -> Figure:
    figure, [axes] = make_axes(1)
    grid = np.linspace(*_range(values), 4 * GRID)
    for what, colour, label in ((values, "tab:blue", "rows"), (samples, "tab:orange", "samples")):
        axes.hist(
            what[:, 0], bins=40, range=(grid[0, 0], grid[-1, 0]), density=True, alpha=0.4, color=colour, label=label
        )
    axes.plot(grid[:, 0], np.exp(density.log_density(_whole(density, grid), DRAWN)), color="black", label="density")
    axes.set(xlabel=names[0], ylabel="density")
    axes.legend()
    return figure


def _draw_plane(density: RowDensity, values: Table, samples: Table, names: list[str]) -> Figure:
    figure, panels = make_axes(3)
    low, high = _range(values)
    x, y = (np.linspace(a, b, GRID) for a, b in zip(low, high, strict=True))
    points = np.stack(np.meshgrid(x, y), -1).reshape(-1, 2)
    found = np.exp(density.log_density(_whole(density, points), DRAWN)).reshape(GRID, GRID)
    panels[0].scatter(*values.T, s=3, color="tab:blue")
    panels[1].scatter(*samples.T, s=3, color="tab:orange")
    panels[2].grid(visible=False)
    panels[2].pcolormesh(x, y, found, cmap="magma", shading="nearest", rasterized=True)
    for axes, title in zip(panels, ("rows", "samples", "density"), strict=True):
        axes.set(title=title, xlim=(low[0], high[0]), ylim=(low[1], high[1]), xlabel=names[0], ylabel=names[1])
    return figure


def _draw_pairs(density: RowDensity, values: Table, samples: Table, names: list[str]) -> Figure:
    shown = min(len(names), COLUMNS)
    low, high = _range(values)
    figure = Figure(figsize=(2.1 * shown + 0.6, 2.1 * shown + 0.6), layout="constrained")
    grid = figure.subplots(shown, shown, squeeze=False)
    for row in range(shown):
        for column in range(shown):
            axes = grid[row, column]
            axes.spines[["top", "right"]].set_visible(False)
            if column > row:
                axes.set_axis_off()
                continue
            for what, colour, label in ((values, "tab:blue", "rows"), (samples, "tab:orange", "samples")):
                if row == column:
                    limits = (low[row], high[row])
                    axes.hist(what[:, row], bins=30, range=limits, density=True, alpha=0.5, color=colour, label=label)
                else:
                    axes.scatter(what[:, column], what[:, row], s=2, alpha=0.5, color=colour)
                    axes.set_ylim(low[row], high[row])
            axes.set_xlim(low[column], high[column])
            axes.set_yticks([]) if row == column else None
            axes.set_xlabel(names[column] if row == shown - 1 else "")
            axes.set_ylabel(names[row] if column == 0 and row else "")
    more = f": {shown} of {len(names)} columns" if len(names) > shown else ""
    figure.legend(*grid[0, 0].get_legend_handles_labels(), loc="upper right", title=f"rows and samples{more}")
    return figure


def _modelled(density: RowDensity) -> list[str]:
    return [name for name, varies in zip(density.standard.names, density.standard.varies, strict=True) if varies]


def _range(values: Table) -> tuple[np.ndarray, np.ndarray]:
    low, high = values.min(0), values.max(0)
    return low - MARGIN * (high - low), high + MARGIN * (high - low)


def _whole(density: RowDensity, points: Table) -> Table:
    """Points of the columns that change as rows of the table."""
    rows = np.tile(density.standard.mean, (len(points), 1))
    rows[:, density.standard.varies] = points
    return rows
