"""Train a classifier of series: cross entropy, accuracy, and for two classes the area under the ROC curve."""

from __future__ import annotations

from collections.abc import Iterator

import lightning as L
import torch
from jaxtyping import Int64
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torchmetrics.classification import BinaryAUROC, MulticlassAccuracy

from neuralode.nn import Observations
from neuralode.training.module import TrainingModule
from neuralode.training.resumable_loader import ResumableLoader

Batch = tuple[Observations, Int64[Tensor, " series"]]

POOL = 16  # batches within which series are sorted by length


class Batches:
    """Batches of labelled series, selected by indexing whole tensors instead of single rows.

    Parameters
    ----------
    observed : Observations
        All series.
    labels : LongTensor[series]
        Their classes.
    size : int
        Series per batch.
    shuffle : bool
        Draw a new order in each epoch. Series of similar length share a batch, to reduce padding.
    """

    def __init__(self, observed: Observations, labels: Tensor, size: int, *, shuffle: bool) -> None:
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
        # Sort by length within random pools, then shuffle the batches.
        pools = torch.randperm(count).split(self.size * POOL)
        sorted_pools = [pool[self.observed.lengths[pool].argsort(stable=True)] for pool in pools]
        batches = torch.cat(sorted_pools).split(self.size)
        return [batches[index] for index in torch.randperm(len(batches)).tolist()]


class SeriesClassificationData(L.LightningDataModule):
    """Series to train on and series to validate on.

    Parameters
    ----------
    train : (Observations, LongTensor[series])
        Training series and their classes.
    validation : (Observations, LongTensor[series])
        Validation series and their classes.
    size : int
        Series per training batch.
    """

    def __init__(self, train: Batch, validation: Batch, size: int) -> None:
        super().__init__()
        self.train, self.validation, self.size = train, validation, size

    def train_dataloader(self) -> ResumableLoader[Batch]:  # noqa: D102
        return ResumableLoader(Batches(*self.train, self.size, shuffle=True))

    def val_dataloader(self) -> Batches:  # noqa: D102
        return Batches(*self.validation, 4 * self.size, shuffle=False)


class SeriesClassificationModule(TrainingModule):
    """Train a classifier of series with cross entropy.

    Parameters
    ----------
    model : Module
        Maps observations to logits.
    classes : int
        Number of classes.
    learning_rate : float, default=1e-2
        As in `TrainingModule`.
    weight_decay : float, default=0.0
        As in `TrainingModule`.
    by : {"loss", "auroc"}, default="loss"
        Validation loss: the cross entropy, or for two classes one minus the area under the ROC curve.
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
        """Log the area under the ROC curve, which is defined only over all series."""
        if self.auroc is not None:
            area = self.auroc.compute()
            self.auroc.reset()
            self.log("val_auroc", area)
            if self.by == "auroc":
                self.log("val_loss", 1 - area)
