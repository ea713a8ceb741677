"""Rows of a table and what belongs to each: a network between the two, and how it is come by."""

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
from neuralode.training.fit import Effort, Fitted, Watched, fit, settle

STEPS = 10  # of the optimizer in an epoch at least: small tables are passed over several times
AT_ONCE = 4096  # rows in a batch where nothing is differentiated
ANSWERED = 1e-7  # tolerance of answers that are told, in double precision

Loss = Callable[[Tensor, Tensor], Float[Tensor, " batch"]]  # of answers and targets


def cross_entropies(logits: Float[Tensor, "batch classes"], codes: Tensor) -> Float[Tensor, " batch"]:
    """Of each row, in nats."""
    return cross_entropy(logits, codes, reduction="none")


def squared_errors(answers: Float[Tensor, "batch outputs"], targets: Tensor) -> Float[Tensor, " batch"]:
    """Of each row, on average over its outputs."""
    return (answers - targets).square().mean(1)


class Part(NamedTuple):
    """Rows with what belongs to each.

    Attributes
    ----------
    rows : Tensor[rows, features]
        On the common scale.
    targets : Tensor[rows] or Tensor[rows, outputs]
        Codes of classes, or numbers on a common scale.
    weights : Tensor[rows]
        How much each row counts.
    """

    rows: Tensor
    targets: Tensor
    weights: Tensor

    def at(self, places: Tensor) -> Part:
        """The rows at these places."""
        return Part(*(part[places] for part in self))

    def weighed(self) -> Part:
        """The same with weights of mean 1, so that the mean over batches is the weighted mean over rows."""
        return self._replace(weights=self.weights / self.weights.mean())


class Batches:
    """Batches of rows, each pass in a new order; cut from tensors at once rather than row by row.

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
            for some in torch.randperm(len(self.part.rows)).split(self.size):
                yield self.part.at(some)


class TabularData(L.LightningDataModule):
    """Rows to learn from, and rows to decide by which weights are kept."""

    def __init__(self, train: Part, validation: Part, size: int) -> None:
        super().__init__()
        self.train, self.validation, self.size = train.weighed(), validation.weighed(), size

    def train_dataloader(self) -> Batches:  # noqa: D102
        return Batches(self.train, self.size)

    def val_dataloader(self) -> Any:  # noqa: D102
        places: Any = torch.arange(len(self.validation.rows)).split(AT_ONCE)
        return DataLoader([self.validation.at(some) for some in places], batch_size=None)  # pyright: ignore


class Tabular(Watched):
    """Train a network to answer for rows.

    Parameters
    ----------
    network : Module
        From rows to answers.
    loss : callable
        Of answers and targets, for each row.
    learning_rate, weight_decay
        Of `Watched`.
    """

    def __init__(
        self, network: torch.nn.Module, loss: Loss, *, learning_rate: float = 1e-2, weight_decay: float = 0.0
    ) -> None:
        super().__init__(learning_rate, weight_decay)
        self.network, self.loss = network, loss

    def training_step(self, batch: Part, index: int) -> Tensor:  # noqa: D102
        loss = self._weighted(batch)
        self.log_mean("train_loss", loss, len(batch.rows))
        return loss

    def validation_step(self, batch: Part, index: int) -> None:  # noqa: D102
        self.log("val_loss", self._weighted(batch), on_epoch=True, batch_size=len(batch.rows))

    def _weighted(self, batch: Part) -> Tensor:
        return (batch.weights * self.loss(self.network(batch.rows), batch.targets)).mean()


@dataclass(frozen=True)
class Architecture:
    """What a network of rows is made of, as `neuralode.ODENetClassifier` has it.

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
        """The network, its weights by torch's random state."""
        solver = {"method": self.method, "rtol": self.rtol, "atol": self.rtol, "gradient": self.gradient}
        sizes = {"hidden": self.hidden, "width": self.width, "layers": self.layers}
        return TabularODENet(features, outputs, **sizes, **solver)


def learn(
    network: TabularODENet,
    loss: Loss,
    train: Part,
    validation: Part,
    effort: Effort,
    *,
    batch_size: int,
    learning_rate: float,
    weight_decay: float,
    callbacks: Sequence[Callback] = (),
    progress_bar: bool = False,
) -> Fitted:
    """Train a network of rows; it is left on the CPU, to be evaluated, without gradients.

    Parameters
    ----------
    network : TabularODENet
        On the common scale.
    loss : callable
        `cross_entropies` or `squared_errors`.
    train, validation : Part
        What to learn from, and what to decide by which epoch is kept. Weights count relative to each other.
    effort : Effort
        How long, and on what.
    batch_size, learning_rate, weight_decay
        As `neuralode.ODENetClassifier` has them.
    callbacks, progress_bar
        As in `neuralode.training.fit.fit`.

    Raises
    ------
    ValueError
        Where it came to weights that are not finite.
    """
    task = Tabular(network, loss, learning_rate=learning_rate, weight_decay=weight_decay)
    data = TabularData(train, validation, batch_size)
    done = fit(task, data, effort, callbacks=callbacks, progress_bar=progress_bar)
    settle(network, learning_rate)
    return done


def answers(
    network: TabularODENet, rows: Float64[np.ndarray, "rows features"], tolerance: float = ANSWERED
) -> Float64[np.ndarray, "rows outputs"]:
    """What a network says of each row, in double precision, each at its own steps: no row depends on the others.

    Examples
    --------
    >>> answers(Architecture().build(2, 3), np.zeros((5, 2))).shape
    (5, 3)
    """
    network = copy.deepcopy(network).double().eval()
    network.ode.method, network.ode.rtol, network.ode.atol, network.ode.per_sample = "tsit5", tolerance, tolerance, True
    with torch.no_grad():
        found = [network(some) for some in torch.as_tensor(rows).split(AT_ONCE)]
    return torch.cat(found).numpy()
