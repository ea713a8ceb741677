"""Show the progress of a training: a bar on a terminal, lines elsewhere."""

from __future__ import annotations

import logging
import os
import time
import warnings
from collections.abc import Mapping
from typing import Any

import lightning as L
import torch
from lightning.pytorch.callbacks import Callback, RichProgressBar

from neuralode.terminal.console import console
from neuralode.training.history import OnEpoch

QUIET = 30.0  # longest time in seconds without a line


def epoch_progress(epochs: int) -> tuple[list[Callback], OnEpoch | None]:
    """Return callbacks, and a function that receives the metrics of each epoch; one of them shows the progress."""
    # Lightning's messages on hardware and data loading would bury the progress.
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    warnings.filterwarnings("ignore", module="lightning")
    if console.is_terminal:
        return [RichProgressBar(leave=False)], None
    return [BatchLines(epochs)], lambda row: console.print(_line(row, epochs))


def progress(epochs: int, every: int = 1) -> list[Callback]:
    """Return callbacks that show the progress of a training without metrics of its own."""
    callbacks, on_epoch = epoch_progress(epochs)
    return callbacks if on_epoch is None else [*callbacks, EpochLines(epochs, every)]


def use_one_thread() -> None:
    """Limit torch to one thread, unless OMP_NUM_THREADS is set.

    For small arrays, threads cost more than they gain. Where other programs use the same cores, threads that spin while
    waiting can slow a training down tenfold.
    """
    if "OMP_NUM_THREADS" not in os.environ:
        torch.set_num_threads(1)


class EpochLines(Callback):
    """Print a line every few epochs, for output that is not a terminal."""

    def __init__(self, epochs: int, every: int) -> None:
        self.epochs, self.every, self.started = epochs, every, 0.0

    def on_train_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:  # noqa: D102
        self.started = time.perf_counter()

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:  # noqa: D102
        if (trainer.current_epoch + 1) % self.every == 0:
            metrics = {name: float(value) for name, value in trainer.callback_metrics.items()}
            row = {"epoch": trainer.current_epoch, "seconds": time.perf_counter() - self.started, **metrics}
            console.print(_line(row, self.epochs))


class BatchLines(Callback):
    """Print a line every half minute within long epochs, for output that is not a terminal."""

    def __init__(self, epochs: int) -> None:
        self.epochs, self.last = epochs, 0.0

    def on_train_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:  # noqa: D102
        self.last = time.monotonic()

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:  # noqa: D102
        self.last = time.monotonic()

    def on_train_batch_end(  # noqa: D102
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if time.monotonic() - self.last < QUIET or not trainer.is_global_zero:
            return
        self.last = time.monotonic()
        batches = f"batch {batch_idx + 1:,}/{trainer.num_training_batches:,}"
        console.print(f"epoch {trainer.current_epoch + 1}/{self.epochs}, {batches}, loss {float(outputs['loss']):.4f}")


# Metrics in the line of an epoch, if present.
FORMATS = {
    "train_loss": "loss {:.4f}",
    "val_accuracy": "validation accuracy {:.4f}",
    "val_auroc": "validation area under the curve {:.4f}",
    "val_loss": "validation loss {:.4f}",
    "train_evaluations": "{:.1f} evaluations",
    "seconds": "{:.1f} s",
}


def _line(row: Mapping[str, float], epochs: int) -> str:
    metrics = [text.format(row[name]) for name, text in FORMATS.items() if name in row]
    return ", ".join((f"epoch {row['epoch'] + 1:.0f}/{epochs}", *metrics))
