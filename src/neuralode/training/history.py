"""One row of figures per epoch, kept in the run."""

from __future__ import annotations

import time
from collections.abc import Callable

import lightning as L
from lightning.pytorch.callbacks import Callback

from neuralode.training.run import Run


class History(Callback):
    """Add each epoch's figures to the run's ``metrics.csv``, and hand them to ``tell`` if it is given.

    Parameters
    ----------
    run : Run
        Where the rows go. When training is resumed, those of earlier epochs stay.
    tell : callable, optional
        For output that is not a terminal, where a progress bar cannot be drawn.
    """

    def __init__(self, run: Run, tell: Callable[[dict[str, float]], None] | None = None) -> None:
        self.run = run
        self.tell = tell
        self.started = 0.0
        self.before = 0.0  # seconds that the epoch had before it was cut off

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:  # noqa: D102
        self.started = time.perf_counter() - self.before

    def on_train_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:  # noqa: D102
        self.started = time.perf_counter()

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:  # noqa: D102
        if not trainer.is_global_zero:
            return
        row = {"epoch": trainer.current_epoch, "seconds": round(time.perf_counter() - self.started, 3)}
        row |= {name: round(float(value), 6) for name, value in sorted(trainer.callback_metrics.items())}
        self.run.write_metrics([old for old in self.run.metrics if old["epoch"] < row["epoch"]] + [row])
        if self.tell:
            self.tell(row)

    def state_dict(self) -> dict[str, float]:  # noqa: D102
        return {"seconds": time.perf_counter() - self.started}

    def load_state_dict(self, state_dict: dict[str, float]) -> None:  # noqa: D102
        self.before = float(state_dict["seconds"])
