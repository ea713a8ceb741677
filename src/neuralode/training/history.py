"""Append one row of metrics per epoch to the run."""

from __future__ import annotations

import time
from collections.abc import Callable

import lightning as L
from lightning.pytorch.callbacks import Callback

from neuralode.training.run import Run

OnEpoch = Callable[[dict[str, float]], None]  # receives the metrics of an epoch when it ends


class History(Callback):
    """Write the metrics of each epoch to the run's ``metrics.csv``.

    Parameters
    ----------
    run : Run
        Run to write to. A resumed training keeps the rows of earlier epochs.
    on_epoch : callable, default=None
        Called with each row, for output without a progress bar.
    """

    def __init__(self, run: Run, on_epoch: OnEpoch | None = None) -> None:
        self.run = run
        self.on_epoch = on_epoch
        self.started = 0.0
        self.seconds_before = 0.0  # spent on this epoch before it was interrupted

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:  # noqa: D102
        self.started = time.perf_counter() - self.seconds_before

    def on_train_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:  # noqa: D102
        self.started = time.perf_counter()

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:  # noqa: D102
        if not trainer.is_global_zero:
            return
        row = {"epoch": trainer.current_epoch, "seconds": round(time.perf_counter() - self.started, 3)}
        row |= {name: round(float(value), 6) for name, value in sorted(trainer.callback_metrics.items())}
        self.run.write_metrics([old for old in self.run.metrics if old["epoch"] < row["epoch"]] + [row])
        if self.on_epoch:
            self.on_epoch(row)

    def state_dict(self) -> dict[str, float]:  # noqa: D102
        return {"seconds": time.perf_counter() - self.started}

    def load_state_dict(self, state_dict: dict[str, float]) -> None:  # noqa: D102
        self.seconds_before = float(state_dict["seconds"])
