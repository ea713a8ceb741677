"""Figures of a run: metrics over epochs, and functions shared by all figures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator


class HistoryPlot(NamedTuple):
    """A figure of metrics over epochs.

    Parameters
    ----------
    name : str
        File name without suffix. A figure named "loss" has a logarithmic scale.
    ylabel : str
        Label of the y axis.
    labels : mapping of str to str
        Columns of ``metrics.csv`` and their labels in the legend. Columns that a run lacks are left out.
    """

    name: str
    ylabel: str
    labels: Mapping[str, str]


def plot_history(rows: Sequence[Mapping[str, float]], folder: Path, history_plots: Sequence[HistoryPlot]) -> list[Path]:
    """Plot metrics over epochs and return the files written.

    Parameters
    ----------
    rows : sequence of mapping
        One row per epoch, as in ``metrics.csv``.
    folder : Path
        Folder of the figures.
    history_plots : sequence of HistoryPlot
        The figures. Those without data are left out.
    """
    written = []
    for name, ylabel, labels in history_plots:
        columns = [column for column in labels if any(column in row for row in rows)]
        if not columns:
            continue
        figure, [axes] = make_axes(1)
        for column in columns:
            present = [row for row in rows if column in row]
            epochs = [row["epoch"] + 1 for row in present]
            axes.plot(epochs, [row[column] for row in present], marker=".", label=labels[column])
        axes.set(xlabel="epoch", ylabel=ylabel)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        if name == "loss":
            axes.set_yscale("log")
        axes.legend()
        written.append(save_figure(figure, folder / f"{name}.png"))
    return written


def make_axes(columns: int) -> tuple[Figure, list[Axes]]:
    """Return a figure and its axes side by side."""
    # Figure without pyplot: no window system, no state shared with the user's own plots.
    figure = Figure(figsize=(5.2 * columns, 3.6), layout="constrained")
    figure.subplots(1, columns)
    for axes in figure.axes:
        axes.grid(alpha=0.3)
        axes.spines[["top", "right"]].set_visible(False)
    return figure, figure.axes


def save_figure(figure: Figure, path: Path) -> Path:
    """Write a figure, creating its folder, and return the path."""
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=150)
    return path
