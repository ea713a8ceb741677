"""Interrupt trainings, and compare their results with those of uninterrupted ones."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
from lightning.pytorch.callbacks import Callback

from neuralode.tasks.runner import train


class Interruption(BaseException):
    """An exception that no code handles."""


class InterruptAt(Callback):
    """Interrupt a training after a number of steps, before the checkpoint of the last one is written."""

    def __init__(self, step: int, at: str = "batch") -> None:
        self.step, self.at = step, at

    def on_train_batch_end(self, trainer: Any, *rest: Any) -> None:
        if self.at == "batch" and trainer.global_step == self.step:
            raise Interruption

    def on_validation_end(self, trainer: Any, module: Any) -> None:
        if self.at == "validation" and trainer.global_step == self.step:
            raise Interruption

    def on_train_epoch_end(self, trainer: Any, module: Any) -> None:
        if self.at == "epoch" and trainer.global_step == self.step:
            raise Interruption


def assert_interruptions_change_nothing(task_type: Any, config: Any, home: Path, *, steps: Iterable[int]) -> None:
    """Check that a run interrupted at each step has the weights and metrics of an uninterrupted one."""
    uninterrupted = train(task_type, config, home / "uninterrupted", on_epoch=print)
    folder = home / "interrupted"
    for step in steps:
        with pytest.raises(Interruption):
            train(task_type, config, folder, resume=folder.exists(), callbacks=[InterruptAt(step)], on_epoch=print)
    resumed = train(task_type, config, folder, resume=True, on_epoch=print)
    runs = (resumed, uninterrupted)
    weights = [(run.folder / "weights.safetensors").read_bytes() for run in runs]
    assert weights[0] == weights[1]
    metrics = [[{**row, "seconds": 0} for row in run.metrics] for run in runs]
    assert metrics[0] == metrics[1]
