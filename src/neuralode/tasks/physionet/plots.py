"""Figures of a run on PhysioNet."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from jaxtyping import Float, Int64
from torch import Tensor
from torchmetrics.functional.classification import binary_auroc, binary_roc

from neuralode.training.plots import HistoryPlot, make_axes, save_figure

MORTALITY_PLOTS: Sequence[HistoryPlot] = (
    HistoryPlot("loss", "cross entropy", {"train_loss": "training", "val_cross_entropy": "validation"}),
    HistoryPlot("auroc", "area under the ROC curve", {"val_auroc": "validation"}),
)
INTERPOLATION_PLOTS: Sequence[HistoryPlot] = (
    HistoryPlot("bound", "minus the evidence lower bound", {"train_loss": "training"}),
    HistoryPlot("error", "mean squared error", {"val_loss": "validation"}),
)


def plot_roc(probability: Float[Tensor, " series"], truth: Int64[Tensor, " series"], folder: Path) -> Path:
    """Plot the ROC curve, and return the file written."""
    false, true, _ = binary_roc(probability, truth)
    figure, [axes] = make_axes(1)
    axes.plot(false, true, label=f"area {float(binary_auroc(probability, truth)):.3f}")
    axes.plot([0, 1], [0, 1], color="grey", linestyle=":", label="by chance")
    axes.set(xlabel="false positive rate", ylabel="true positive rate", aspect="equal")
    axes.legend(loc="lower right")
    return save_figure(figure, folder / "roc.png")
