"""Lightning's view of naming series: cross entropy, accuracy, and for two classes the area under the ROC curve."""

from __future__ import annotations

from collections.abc import Iterator

import lightning as L
import torch
from jaxtyping import Int64
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torchmetrics.classification import BinaryAUROC, MulticlassAccuracy

from neuralode.nn import Observations
from neuralode.training.fit import Watched
from neuralode.training.resumable_loader import Resumable

Batch = tuple[Observations, Int64[Tensor, " series"]]


class Batches:
    """Batches of labelled series, each epoch in a new order; cut from tensors at once rather than row by row.

    Parameters
    ----------
    observed : Observations
        All series.
    labels : LongTensor[series]
        A class each.
    size : int
        Series a batch.
    shuffle : bool
        In a new order each epoch; series of like length stay together, so that a batch carries little padding.
    """

    def __init__(self, observed: Observations, labels: Tensor, size: int, shuffle: bool) -> None:
        self.observed, self.labels, self.size, self.shuffle = observed, labels, size, shuffle

    def __len__(self) -> int:
        return -(-len(self.labels) // self.size)

    def __iter__(self) -> Iterator[Batch]:
        for rows in self._order():
            yield self.observed[rows], self.labels[rows]

    def _order(self) -> list[Tensor]:
        count = len(self.labels)
        if not self.shuffle:
            return list(torch.arange(count).split(self.size))
        mixed = torch.randperm(count)
        pools = mixed.split(self.size * 16)  # sorted within a pool: chance decides with whom, length in which batch
        sorted_pools = [pool[self.observed.lengths[pool].argsort(stable=True)] for pool in pools]
        batches = torch.cat(sorted_pools).split(self.size)
        return [batches[place] for place in torch.randperm(len(batches)).tolist()]


class LabelledSeries(L.LightningDataModule):
    """Series to learn from, and series to decide by which weights are kept."""

    def __init__(self, train: Batch, validation: Batch, size: int) -> None:
        super().__init__()
        self.parts = {"train": train, "validation": validation}
        self.size = size

    def train_dataloader(self) -> Resumable[Batch]:  # noqa: D102
        return Resumable(Batches(*self.parts["train"], self.size, shuffle=True))

    def val_dataloader(self) -> Batches:  # noqa: D102
        return Batches(*self.parts["validation"], 4 * self.size, shuffle=False)


class Labelling(Watched):
    """Train a model from series to logits.

    Parameters
    ----------
    model : Module
        Observations to logits.
    classes : int
        How many.
    learning_rate, weight_decay
        Of `Watched`.
    by : {"loss", "auroc"}
        What validation judges by: the cross entropy, or one minus the area under the ROC curve (of two classes).
    """

    def __init__(
        self,
        model: nn.Module,
        *,
        classes: int,
        learning_rate: float = 1e-2,
        weight_decay: float = 0.0,
        by: str = "loss",
    ) -> None:
        super().__init__(learning_rate, weight_decay)
        self.model, self.by = model, by
        self.accuracy = MulticlassAccuracy(classes, average="micro")
        self.auroc = BinaryAUROC() if classes == 2 else None

    def training_step(self, batch: Batch, index: int) -> Tensor:  # noqa: D102
        observed, labels = batch
        loss = cross_entropy(self.model(observed), labels)
        self.log_mean("train_loss", loss, len(labels))
        return loss

    def validation_step(self, batch: Batch, index: int) -> None:  # noqa: D102
        observed, labels = batch
        logits = self.model(observed)
        loss = cross_entropy(logits, labels)
        self.accuracy(logits, labels)
        self.log("val_accuracy", self.accuracy, on_epoch=True)
        name = "val_loss" if self.by == "loss" else "val_cross_entropy"
        self.log(name, loss, on_epoch=True, batch_size=len(labels))
        if self.auroc is not None:
            self.auroc.update(logits.softmax(-1)[:, 1], labels)

    def on_validation_epoch_end(self) -> None:
        """The area under the curve wants all series at once."""
        if self.auroc is not None:
            area = self.auroc.compute()
            self.auroc.reset()
            self.log("val_auroc", area)
            if self.by == "auroc":
                self.log("val_loss", 1 - area)
