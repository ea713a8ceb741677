"""How far a training is: a bar on a terminal, a line per epoch elsewhere."""

from __future__ import annotations

import logging
import os
import time
import warnings
from collections.abc import Callable, Mapping
from typing import Any

import lightning as L
import torch
from lightning.pytorch.callbacks import Callback, RichProgressBar

from neuralode.cli.screen import console
from neuralode.training.fit import is_global_zero

__all__ = ["Tell", "is_global_zero", "one_thread", "progress", "telling"]

Tell = Callable[[Mapping[str, float]], None]

QUIET = 30.0  # seconds without a line, at most


def telling(epochs: int) -> tuple[list[Callback], Tell | None]:
    """Return Lightning callbacks and a function for each epoch's figures; one of them shows where training is."""
    # What Lightning says besides (hardware it found, advice on data loading workers) would drown that.
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    warnings.filterwarnings("ignore", module="lightning")
    if console.is_terminal:
        return [RichProgressBar(leave=False)], None
    return [Within(epochs)], lambda row: console.print(_line(row, epochs))


def progress(epochs: int, every: int = 1) -> list[Callback]:
    """Lightning callbacks that show where a training is, by themselves."""
    callbacks, tell = telling(epochs)
    return callbacks if tell is None else [*callbacks, Lines(epochs, every)]


def one_thread() -> None:
    """Let this process compute on one thread, for models of small arrays.

    There, threads cost more than they bring; and where other programs use the cores, those that spin while they wait
    make a training ten times slower. The variable by which people ask for more is heeded.
    """
    if "OMP_NUM_THREADS" not in os.environ:
        torch.set_num_threads(1)


class Lines(Callback):
    """A line every few epochs, for output that is not a terminal and training that keeps no history of its own."""

    def __init__(self, epochs: int, every: int) -> None:
        self.epochs, self.every, self.started = epochs, every, 0.0

    def on_train_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self.started = time.perf_counter()

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if (trainer.current_epoch + 1) % self.every == 0:
            figures = {name: float(value) for name, value in trainer.callback_metrics.items()}
            row = {"epoch": trainer.current_epoch, "seconds": time.perf_counter() - self.started, **figures}
            console.print(_line(row, self.epochs))


class Within(Callback):
    """A line every half a minute of a long epoch, for output that is not a terminal."""

    def __init__(self, epochs: int) -> None:
        self.epochs, self.last = epochs, 0.0

    def on_train_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self.last = time.monotonic()

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self.last = time.monotonic()

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if time.monotonic() - self.last < QUIET or not is_global_zero():
            return
        self.last = time.monotonic()
        where = f"batch {batch_idx + 1:,}/{trainer.num_training_batches:,}"
        console.print(f"epoch {trainer.current_epoch + 1}/{self.epochs}, {where}, loss {float(outputs['loss']):.4f}")


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
