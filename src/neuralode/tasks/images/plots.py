"""Figures of a run on images."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from neuralode.tasks.images.tolerance_sweep import Point
from neuralode.training.plots import HistoryPlot, make_axes, save_figure

HISTORY_PLOTS: Sequence[HistoryPlot] = (
    HistoryPlot("loss", "cross entropy", {"train_loss": "training", "val_loss": "validation"}),
    HistoryPlot("accuracy", "accuracy", {"train_accuracy": "training", "val_accuracy": "validation"}),
    HistoryPlot(
        "evaluations",
        "evaluations of the field per solve",
        {"train_evaluations": "forward", "backward_evaluations": "backward"},
    ),
)


def plot_tolerances(points: Sequence[Point], folder: Path) -> Path:
    """Plot numerical error and accuracy against evaluations, and return the file written."""
    points = sorted(points, key=lambda point: point.evaluations)
    figure, (error, accuracy) = make_axes(2)
    work = [point.evaluations for point in points]
    error.plot(work, [point.error for point in points], marker="o")
    error.set(xlabel="evaluations per solve", ylabel="relative error of the final state", yscale="log")
    error.margins(x=0.15)  # room for the last label
    percent = [100 * point.accuracy for point in points]
    accuracy.plot(work, percent, marker="o")
    accuracy.set(xlabel="evaluations per solve", ylabel="test accuracy, %", ylim=(min(percent) - 2, 100.2))
    for point in points:
        label = f"rtol {point.rtol:g}"
        error.annotate(label, (point.evaluations, point.error), textcoords="offset points", xytext=(6, 4), fontsize=8)
    return save_figure(figure, folder / "tolerance.png")
