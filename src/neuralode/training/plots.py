"""The pictures of a run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

# What is drawn over the epochs: file, title, and a label for each column of metrics.csv that the run has.
Pictures = Sequence[tuple[str, str, Mapping[str, str]]]
HISTORY: Pictures = (
    ("loss", "cross entropy", {"train_loss": "training", "val_loss": "validation"}),
    ("accuracy", "accuracy", {"train_accuracy": "training", "val_accuracy": "validation"}),
    (
        "evaluations",
        "evaluations of the field per solve",
        {"train_evaluations": "forward", "backward_evaluations": "backward"},
    ),
)


def plot_history(rows: Sequence[Mapping[str, float]], folder: Path, pictures: Pictures = HISTORY) -> list[Path]:
    """Draw figures over the epochs, loss, accuracy and evaluations unless told; return the files written.

    Parameters
    ----------
    rows : sequence of mapping
        One per epoch, as in ``metrics.csv``.
    folder : Path
        Where the pictures go.
    pictures : sequence of (file, title, labels of columns)
        Which there are; one without figures is left out.
    """
    written = []
    for name, title, labels in pictures:
        columns = [column for column in labels if any(column in row for row in rows)]
        if not columns:
            continue
        figure, [axes] = blank(1)
        for column in columns:
            have = [row for row in rows if column in row]
            axes.plot(
                [row["epoch"] + 1 for row in have], [row[column] for row in have], marker=".", label=labels[column]
            )
        axes.set(xlabel="epoch", ylabel=title)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        if name == "loss":
            axes.set_yscale("log")
        axes.legend()
        written.append(save(figure, folder / f"{name}.png"))
    return written


def blank(columns: int) -> tuple[Figure, list[Axes]]:
    """Return axes side by side to draw on."""
    # Figure without pyplot: no window system, no state shared with the user's own plots.
    figure = Figure(figsize=(5.2 * columns, 3.6), layout="constrained")
    figure.subplots(1, columns)
    for axes in figure.axes:
        axes.grid(alpha=0.3)
        axes.spines[["top", "right"]].set_visible(False)
    return figure, figure.axes


def save(figure: Figure, path: Path) -> Path:
    """Write a picture, and the folders it lies in; return its path."""
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=150)
    return path
