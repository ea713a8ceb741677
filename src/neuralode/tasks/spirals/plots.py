"""Figures of a run on spirals."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from jaxtyping import Float
from matplotlib.figure import Figure
from torch import Tensor

from neuralode.data.spirals import WINDOW, Spirals
from neuralode.training.plots import HistoryPlot, save_figure

HISTORY_PLOTS: Sequence[HistoryPlot] = (
    HistoryPlot("bound", "training loss", {"train_loss": "training"}),
    HistoryPlot("error", "squared error of forecasts", {"val_loss": "validation"}),
    HistoryPlot("inconsistency", "inconsistency of states", {"train_inconsistency": "training"}),
)
SHOWN = 6  # series


def plot_forecasts(
    test: Spirals,
    forecast: Float[Tensor, "series steps 2"],
    sampled: Float[Tensor, "samples series steps 2"] | None,
    *,
    folder: Path,
) -> Path:
    """Plot curves, observations and forecasts of the first series, and return the file written.

    Parameters
    ----------
    test : Spirals
        The series.
    forecast : Tensor[series, steps, 2]
        Expected points within the window and beyond.
    sampled : Tensor[samples, series, steps, 2] or None
        Samples from the posterior.
    folder : Path
        Folder of the figure.
    """
    figure = Figure(figsize=(11, 7.2), layout="constrained")
    for row, axes in enumerate(figure.subplots(2, SHOWN // 2).flat):
        for curve in () if sampled is None else sampled[:, row]:
            axes.plot(*curve.T, color="tab:orange", alpha=0.15, linewidth=1)
        axes.plot(*test.truth[row].T, color="black", linewidth=1, linestyle="--", label="curve")
        axes.plot(*forecast[row, :WINDOW].T, color="tab:blue", label="within the window")
        axes.plot(*forecast[row, WINDOW:].T, color="tab:red", label="forecast")
        seen = test.observed.values[row][test.observed.seen[row].all(-1)]
        axes.plot(*seen.T, color="grey", linestyle="", marker=".", markersize=4, label="observed")
        axes.set_aspect("equal", adjustable="datalim")
        axes.spines[["top", "right"]].set_visible(False)
    figure.legend(*figure.axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=4)
    return save_figure(figure, folder / "forecasts.png")
