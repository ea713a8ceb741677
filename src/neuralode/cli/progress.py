"""How far a training is: a bar on a terminal, a line per epoch elsewhere."""

from __future__ import annotations

import logging
import os
import time
import warnings
from collections.abc import Callable, Mapping

import lightning as L
import torch
from lightning.fabric.utilities.rank_zero import rank_zero_only
from lightning.pytorch.callbacks import Callback, RichProgressBar

from neuralode.cli.screen import console

Tell = Callable[[Mapping[str, float]], None]


def telling(epochs: int) -> tuple[list[Callback], Tell | None]:
    """Return Lightning callbacks and a function for each epoch's figures; one of them shows where training is."""
    # What Lightning says besides (hardware it found, advice on data loading workers) would drown that.
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    warnings.filterwarnings("ignore", module="lightning")
    if console.is_terminal:
        return [RichProgressBar(leave=False)], None
    return [], lambda row: console.print(_line(row, epochs))


def progress(epochs: int, every: int = 1) -> list[Callback]:
    """Lightning callbacks that show where a training is, by themselves."""
    callbacks, tell = telling(epochs)
    return callbacks if tell is None else [Lines(epochs, every)]


def one_thread() -> None:
    """Let this process compute on one thread, for models of small arrays.

    There, threads cost more than they bring; and where other programs use the cores, those that spin while they wait
    make a training ten times slower. The variable by which people ask for more is heeded.
    """
    if "OMP_NUM_THREADS" not in os.environ:
        torch.set_num_threads(1)


def is_global_zero() -> bool:
    """Whether this process, of those that train together, is the one that writes and speaks."""
    return getattr(rank_zero_only, "rank", 0) == 0


class Lines(Callback):
    """A line every few epochs, for output that is not a terminal and training that keeps no history of its own."""

    def __init__(self, epochs: int, every: int) -> None:
        self.epochs, self.every, self.started = epochs, every, 0.0

    def on_train_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:  # noqa: D102
        self.started = time.perf_counter()

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:  # noqa: D102
        if (trainer.current_epoch + 1) % self.every == 0:
            figures = {name: float(value) for name, value in trainer.callback_metrics.items()}
            row = {"epoch": trainer.current_epoch, "seconds": time.perf_counter() - self.started, **figures}
            console.print(_line(row, self.epochs))


# What a line tells of an epoch, if there is such a figure.
FIGURES = {
    "train_loss": "loss {:.4f}",
    "val_accuracy": "validation accuracy {:.4f}",
    "val_auroc": "validation area under the curve {:.4f}",
    "val_loss": "validation loss {:.4f}",
    "train_evaluations": "{:.1f} evaluations",
    "seconds": "{:.1f} s",
}


def _line(row: Mapping[str, float], epochs: int) -> str:
    figures = [told.format(row[name]) for name, told in FIGURES.items() if name in row]
    return ", ".join((f"epoch {row['epoch'] + 1:.0f}/{epochs}", *figures))
