"""How far a training is: a bar on a terminal, a line per epoch elsewhere."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable, Mapping

from lightning.fabric.utilities.rank_zero import rank_zero_only
from lightning.pytorch.callbacks import Callback, RichProgressBar

from neuralode.cli.screen import console

Tell = Callable[[Mapping[str, float]], None]


def progress(epochs: int) -> tuple[list[Callback], Tell | None]:
    """Return Lightning callbacks and a function for each epoch's figures; one of them shows where training is."""
    # What Lightning says besides (hardware it found, advice on data loading workers) would drown that.
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    warnings.filterwarnings("ignore", module="lightning")
    if console.is_terminal:
        return [RichProgressBar(leave=False)], None
    return [], lambda row: console.print(_line(row, epochs))


def is_global_zero() -> bool:
    """Whether this process, of those that train together, is the one that writes and speaks."""
    return getattr(rank_zero_only, "rank", 0) == 0


def _line(row: Mapping[str, float], epochs: int) -> str:
    parts = [
        f"epoch {row['epoch'] + 1:.0f}/{epochs}",
        f"loss {row['train_loss']:.4f}",
        f"validation accuracy {row['val_accuracy']:.4f}",
        f"{row['seconds']:.1f} s",
    ]
    if "train_evaluations" in row:
        parts.insert(3, f"{row['train_evaluations']:.1f} evaluations")
    return ", ".join(parts)
