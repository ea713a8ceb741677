"""Train a network that maps table rows to classes or numbers."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import lightning as L
import numpy as np
import torch
from jaxtyping import Float, Float64
from lightning.pytorch.callbacks import Callback
from torch import Tensor
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader

from neuralode.nn import TabularODENet
from neuralode.training.fit import FitOptions, FitResult, fit, prepare_for_inference
from neuralode.training.module import TrainingModule

STEPS = 10  # minimum optimizer steps per epoch: small tables are passed over several times
AT_ONCE = 4096  # rows per batch without gradients
TOLERANCE = 1e-7  # of predictions, in double precision

Loss = Callable[[Tensor, Tensor], Float[Tensor, " batch"]]  # (outputs, targets) → loss of each row


def cross_entropies(logits: Float[Tensor, "batch classes"], codes: Tensor) -> Float[Tensor, " batch"]:
    """Return the cross entropy of each row, in nats."""
    return cross_entropy(logits, codes, reduction="none")


def squared_errors(outputs: Float[Tensor, "batch outputs"], targets: Tensor) -> Float[Tensor, " batch"]:
    """Return the mean squared error of each row over its outputs."""
    return (outputs - targets).square().mean(1)


class Part(NamedTuple):
    """Rows with their targets and weights.

    Parameters
    ----------
    rows : Tensor[rows, features]
        Standardised rows.
    targets : Tensor[rows] or Tensor[rows, outputs]
        Codes of classes, or standardised numbers.
    weights : Tensor[rows]
        Sample weights.
    """

    rows: Tensor
    targets: Tensor
    weights: Tensor

    def at(self, index: Tensor) -> Part:
        """Return the rows at these indices."""
        return Part(*(part[index] for part in self))

    def normalized(self) -> Part:
        """Return the same rows with weights of mean 1, so that batch means estimate the weighted mean."""
        return self._replace(weights=self.weights / self.weights.mean())


class Batches:
    """Batches of rows in a new order on each pass, selected by indexing whole tensors.

    Examples
    --------
    >>> batches = Batches(Part(torch.zeros(10, 2), torch.zeros(10), torch.ones(10)), 4)
    >>> [len(batch.rows) for batch in batches][:4], len(batches)
    ([4, 4, 2, 4], 12)
    """

    def __init__(self, part: Part, size: int) -> None:
        self.part, self.size = part, size
        self.passes = -(-STEPS // -(-len(part.rows) // size))

    def __len__(self) -> int:
        return self.passes * -(-len(self.part.rows) // self.size)

    def __iter__(self) -> Iterator[Part]:
        for _ in range(self.passes):
            for index in torch.randperm(len(self.part.rows)).split(self.size):
                yield self.part.at(index)


class TabularData(L.LightningDataModule):
    """Rows to train on and rows to validate on.

    Parameters
    ----------
    train : Part
        Training rows.
    validation : Part
        Validation rows.
    size : int
        Rows per training batch.
    """

    def __init__(self, train: Part, validation: Part, size: int) -> None:
        super().__init__()
        self.train, self.validation, self.size = train.normalized(), validation.normalized(), size

    def train_dataloader(self) -> Batches:  # noqa: D102
        return Batches(self.train, self.size)

    def val_dataloader(self) -> Any:  # noqa: D102
        indices: Any = torch.arange(len(self.validation.rows)).split(AT_ONCE)
        return DataLoader([self.validation.at(index) for index in indices], batch_size=None)  # pyright: ignore


class TabularModule(TrainingModule):
    """Train a network of table rows.

    Parameters
    ----------
    network : Module
        Maps rows to outputs.
    loss : callable
        ``loss(outputs, targets)`` returns the loss of each row.
    learning_rate : float, default=1e-2
        As in `TrainingModule`.
    weight_decay : float, default=0.0
        As in `TrainingModule`.
    """

    def __init__(
        self, network: torch.nn.Module, loss: Loss, *, learning_rate: float = 1e-2, weight_decay: float = 0.0
    ) -> None:
        super().__init__(learning_rate, weight_decay)
        self.network, self.loss = network, loss

    def training_step(self, batch: Part, index: int) -> Tensor:  # noqa: D102
        loss = self._weighted_loss(batch)
        self.log_mean("train_loss", loss, len(batch.rows))
        return loss

    def validation_step(self, batch: Part, index: int) -> None:  # noqa: D102
        self.log("val_loss", self._weighted_loss(batch), on_epoch=True, batch_size=len(batch.rows))

    def _weighted_loss(self, batch: Part) -> Tensor:
        return (batch.weights * self.loss(self.network(batch.rows), batch.targets)).mean()


@dataclass(frozen=True)
class Architecture:
    """Architecture and solver options of the network, as in `neuralode.ODENetClassifier`.

    Examples
    --------
    >>> Architecture(hidden=8).build(features=4, outputs=3).head
    Linear(in_features=8, out_features=3, bias=True)
    """

    hidden: int = 32
    width: int = 64
    layers: int = 1
    method: Any = "tsit5"
    rtol: float = 1e-3
    gradient: Any = "replay"

    def build(self, features: int, outputs: int) -> TabularODENet:
        """Return the network, initialised from torch's global generator."""
        solver = {"method": self.method, "rtol": self.rtol, "atol": self.rtol, "gradient": self.gradient}
        sizes = {"hidden": self.hidden, "width": self.width, "layers": self.layers}
        return TabularODENet(features, outputs, **sizes, **solver)


def train_tabular(
    network: TabularODENet,
    loss: Loss,
    *,
    train: Part,
    validation: Part,
    options: FitOptions,
    batch_size: int,
    learning_rate: float,
    weight_decay: float,
    callbacks: Sequence[Callback] = (),
    progress_bar: bool = False,
) -> FitResult:
    """Train a network of table rows and prepare it for inference.

    Parameters
    ----------
    network : TabularODENet
        The network to train, for standardised rows.
    loss : callable
        `cross_entropies` or `squared_errors`.
    train : Part
        Training rows.
    validation : Part
        Validation rows, which select the best epoch.
    options : FitOptions
        Number of epochs, device and the like.
    batch_size, learning_rate, weight_decay
        As in `neuralode.ODENetClassifier`.
    callbacks, progress_bar
        As in `neuralode.training.fit.fit`.

    Returns
    -------
    FitResult
        Number of epochs and best validation loss.

    Raises
    ------
    ValueError
        If the weights are not finite.
    """
    module = TabularModule(network, loss, learning_rate=learning_rate, weight_decay=weight_decay)
    data = TabularData(train, validation, batch_size)
    result = fit(module, data, options, callbacks=callbacks, progress_bar=progress_bar)
    prepare_for_inference(network, learning_rate)
    return result


def predict_rows(
    network: TabularODENet, rows: Float64[np.ndarray, "rows features"], tolerance: float = TOLERANCE
) -> Float64[np.ndarray, "rows outputs"]:
    """Return the outputs of a network in double precision, with separate steps for each row.

    The output of a row thus does not depend on the other rows.

    Examples
    --------
    >>> predict_rows(Architecture().build(2, 3), np.zeros((5, 2))).shape
    (5, 3)
    """
    network = copy.deepcopy(network).double().eval()
    network.ode.method, network.ode.rtol, network.ode.atol, network.ode.per_sample = "tsit5", tolerance, tolerance, True
    with torch.no_grad():
        parts = [network(part) for part in torch.as_tensor(rows).split(AT_ONCE)]
    return torch.cat(parts).numpy()
