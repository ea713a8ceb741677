"""Trainings that are cut off, and what they come to when they are gone on with."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
from lightning.pytorch.callbacks import Callback

from neuralode.tasks.runner import train


class Cut(BaseException):
    """What nothing in the training expects."""


class CutOff(Callback):
    """Cut the training off once so many steps are done: before a checkpoint of the last of them is written."""

    def __init__(self, step: int, at: str = "batch") -> None:
        self.step, self.at = step, at

    def on_train_batch_end(self, trainer: Any, *rest: Any) -> None:
        if self.at == "batch" and trainer.global_step == self.step:
            raise Cut

    def on_validation_end(self, trainer: Any, module: Any) -> None:
        if self.at == "validation" and trainer.global_step == self.step:
            raise Cut

    def on_train_epoch_end(self, trainer: Any, module: Any) -> None:
        if self.at == "epoch" and trainer.global_step == self.step:
            raise Cut


def assert_cuts_leave_no_trace(task_type: Any, config: Any, home: Path, *, steps: Iterable[int]) -> None:
    """A run that is cut off at these steps comes to the weights and the figures of one that is left alone."""
    through = train(task_type, config, home / "through", on_epoch=lambda row: None)
    folder = home / "cut"
    for step in steps:
        with pytest.raises(Cut):
            train(task_type, config, folder, resume=folder.exists(), callbacks=[CutOff(step)], on_epoch=print)
    done = train(task_type, config, folder, resume=True, on_epoch=lambda row: None)
    weights, uninterrupted = (run.folder / "weights.safetensors" for run in (done, through))
    assert weights.read_bytes() == uninterrupted.read_bytes()
    figures = [[{**row, "seconds": 0} for row in run.metrics] for run in (done, through)]
    assert figures[0] == figures[1]
