"""Figures of a run of flow matching."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from jaxtyping import Float
from matplotlib.figure import Figure
from torch import Tensor
from torch.nn.functional import pad

from neuralode.training.plots import HistoryPlot, save_figure

HISTORY_PLOTS: Sequence[HistoryPlot] = (
    HistoryPlot("loss", "squared error of the velocity", {"train_loss": "training", "val_loss": "validation"}),
)
SIDE = 4.0  # inches of one panel


def plot_points(samples: Float[Tensor, "points 2"], real: Float[Tensor, "points 2"], folder: Path) -> Path:
    """Plot samples beside real points, and return the file written."""
    figure = Figure(figsize=(2 * SIDE, SIDE), layout="constrained")
    panels = figure.subplots(1, 2, sharex=True, sharey=True)
    for axes, points, title in zip(panels, (samples, real), ("samples", "data"), strict=True):
        axes.plot(*points.T, linestyle="", marker=".", markersize=2, alpha=0.4)
        axes.set(title=title, aspect="equal")
        axes.spines[["top", "right"]].set_visible(False)
    return save_figure(figure, folder / "samples.png")


def plot_images(images: Float[Tensor, "classes each height width"], folder: Path) -> Path:
    """Plot samples, one row per class, and return the file written."""
    classes, each = images.shape[:2]
    figure = Figure(figsize=(0.4 * each, 0.4 * classes))
    axes = figure.add_axes((0, 0, 1, 1))
    framed = pad(images, (0, 1, 0, 1))
    sheet = framed.transpose(1, 2).flatten(2).flatten(0, 1).numpy()
    axes.imshow(sheet, cmap="gray", vmin=0, vmax=1, interpolation="nearest")
    axes.set_axis_off()
    return save_figure(figure, folder / "samples.png")
