"""Lightning's view of a classifier: what is minimised, what is measured, how the weights move."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torchmetrics.classification import MulticlassAccuracy

from neuralode.nn import ode_blocks
from neuralode.training.module import MetricsModule

Batch = tuple[Tensor, Tensor]


class Classifier(MetricsModule):
    """Cross entropy by AdamW under a one-cycle schedule, with accuracy and evaluations of every ODE inside.

    Parameters
    ----------
    model : Module
        Images to logits.
    classes : int
        How many there are.
    learning_rate : float
        The highest of the cycle.
    weight_decay : float
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
        return self._measure("train", batch, self.train_accuracy)

    def validation_step(self, batch: Batch, index: int) -> None:  # noqa: D102
        self._measure("val", batch, self.val_accuracy)

    def test_step(self, batch: Batch, index: int) -> None:  # noqa: D102
        self._measure("test", batch, self.test_accuracy)

    def on_after_backward(self) -> None:
        """Read how often the gradient called the fields: known once it has run."""
        if blocks := ode_blocks(self.model):
            calls = sum(block.stats.backward_evaluations for block in blocks if block.stats)
            self.log_mean("backward_evaluations", float(calls))

    def configure_optimizers(self) -> Any:
        """AdamW, its rate rising and falling once over the whole training."""
        optimizer = torch.optim.AdamW(self.parameters(), lr=self.learning_rate, weight_decay=self.weight_decay)
        schedule = torch.optim.lr_scheduler.OneCycleLR(
            optimizer, max_lr=self.learning_rate, total_steps=int(self.trainer.estimated_stepping_batches)
        )
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def _measure(self, stage: str, batch: Batch, accuracy: MulticlassAccuracy) -> Tensor:
        images, labels = batch
        logits = self.model(images)
        loss = cross_entropy(logits, labels)
        accuracy(logits, labels)
        self.log_mean(f"{stage}_loss", loss, len(labels))
        self.log(f"{stage}_accuracy", accuracy, on_step=False, on_epoch=True, prog_bar=True)
        if ode_blocks(self.model):
            self.log_mean(f"{stage}_evaluations", evaluations(self.model), len(labels))
        return loss


def evaluations(model: nn.Module) -> float:
    """Return how often the fields in ``model`` were evaluated in its last call, per sample on average.

    Examples
    --------
    >>> from torch import nn
    >>> evaluations(nn.Linear(2, 1))
    0.0
    """
    return float(sum(block.stats.evaluations.double().mean() for block in ode_blocks(model) if block.stats))
