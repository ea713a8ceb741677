"""Lightning module of an image classifier."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torchmetrics.classification import MulticlassAccuracy

from neuralode.nn import ode_blocks
from neuralode.training.module import MetricsModule

Batch = tuple[Tensor, Tensor]  # images and labels


class ImageClassifierModule(MetricsModule):
    """Train a classifier with cross entropy, AdamW and a one-cycle schedule; log accuracy and field evaluations.

    Parameters
    ----------
    model : Module
        Maps images to logits.
    classes : int
        Number of classes.
    learning_rate : float
        Maximum of the schedule.
    weight_decay : float, default=1e-2
        As in `torch.optim.AdamW`.
    """

    def __init__(self, model: nn.Module, *, classes: int, learning_rate: float, weight_decay: float = 1e-2) -> None:
        super().__init__()
        self.model = model
        self.learning_rate = learning_rate
        self.weight_decay = weight_decay
        self.train_accuracy = MulticlassAccuracy(classes, average="micro")
        self.val_accuracy = MulticlassAccuracy(classes, average="micro")
        self.test_accuracy = MulticlassAccuracy(classes, average="micro")

    def training_step(self, batch: Batch, index: int) -> Tensor:  # noqa: D102
        return self._step(batch, "train", self.train_accuracy)

    def validation_step(self, batch: Batch, index: int) -> None:  # noqa: D102
        self._step(batch, "val", self.val_accuracy)

    def test_step(self, batch: Batch, index: int) -> None:  # noqa: D102
        self._step(batch, "test", self.test_accuracy)

    def on_after_backward(self) -> None:
        """Log the field evaluations of the backward pass."""
        if blocks := ode_blocks(self.model):
            evaluations = sum(block.stats.backward_evaluations for block in blocks if block.stats)
            self.log_mean("backward_evaluations", float(evaluations))

    def configure_optimizers(self) -> Any:
        """Return AdamW and a one-cycle schedule over the whole training."""
        optimizer = torch.optim.AdamW(self.parameters(), lr=self.learning_rate, weight_decay=self.weight_decay)
        schedule = torch.optim.lr_scheduler.OneCycleLR(
            optimizer, max_lr=self.learning_rate, total_steps=int(self.trainer.estimated_stepping_batches)
        )
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def _step(self, batch: Batch, stage: str, accuracy: MulticlassAccuracy) -> Tensor:
        images, labels = batch
        logits = self.model(images)
        loss = cross_entropy(logits, labels)
        accuracy(logits, labels)
        self.log_mean(f"{stage}_loss", loss, len(labels))
        self.log(f"{stage}_accuracy", accuracy, on_step=False, on_epoch=True, prog_bar=True)
        if ode_blocks(self.model):
            self.log_mean(f"{stage}_evaluations", mean_evaluations(self.model), len(labels))
        return loss


def mean_evaluations(model: nn.Module) -> float:
    """Return the field evaluations per sample in the last call of ``model``, summed over its ODEs.

    Examples
    --------
    >>> from torch import nn
    >>> mean_evaluations(nn.Linear(2, 1))
    0.0
    """
    return float(sum(block.stats.evaluations.double().mean() for block in ode_blocks(model) if block.stats))
