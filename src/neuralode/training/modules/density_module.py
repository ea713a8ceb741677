"""Train a continuous normalizing flow on rows of numbers, by maximum likelihood with regularised trajectories."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any, cast

import lightning as L
import torch
from jaxtyping import Float
from torch import Tensor
from torch.utils.data import DataLoader

from neuralode.nn import CNF
from neuralode.training.module import TrainingModule
from neuralode.training.resumable_loader import ResumableLoader

Batch = Float[Tensor, "batch features"]

STEPS = 20  # minimum optimizer steps per epoch: small tables are passed over several times
VALIDATION_TOLERANCE = 1e-4  # whatever the solver of the training
MOST_NUMBERS = 1 << 22  # in the largest tensor of a batch without gradients


class Batches:
    """Batches of rows in a new order on each pass, selected by indexing the whole tensor.

    Parameters
    ----------
    rows : Tensor[rows, features]
        Standardised rows.
    size : int
        Rows per batch.
    spread : Tensor[features]
        Half width of the uniform noise added to each column.

    Examples
    --------
    >>> batches = Batches(torch.zeros(10, 2), 4, torch.tensor([0.0, 0.5]))
    >>> [len(batch) for batch in batches][:4], len(batches)
    ([4, 4, 2, 4], 21)
    """

    def __init__(self, rows: Batch, size: int, spread: Float[Tensor, " features"]) -> None:
        self.rows, self.size, self.spread = rows, size, spread
        self.passes = -(-STEPS // -(-len(rows) // size))

    def __len__(self) -> int:
        return self.passes * -(-len(self.rows) // self.size)

    def __iter__(self) -> Iterator[Batch]:
        for _ in range(self.passes):
            for index in torch.randperm(len(self.rows)).split(self.size):
                batch = self.rows[index]
                yield batch + self.spread * (2 * torch.rand_like(batch) - 1)


class RowsData(L.LightningDataModule):
    """Rows to train on and rows to validate on.

    Parameters
    ----------
    train : Tensor[rows, features]
        Standardised training rows.
    validation : Tensor[rows, features]
        Standardised validation rows.
    size : int
        Rows per training batch.
    spread : Tensor[features]
        Half width of the uniform noise added to each column of the training rows.
    """

    def __init__(self, train: Batch, validation: Batch, *, size: int, spread: Float[Tensor, " features"]) -> None:
        super().__init__()
        self.train, self.validation, self.size, self.spread = train, validation, size, spread

    def train_dataloader(self) -> ResumableLoader[Batch]:  # noqa: D102
        return ResumableLoader(Batches(self.train, self.size, self.spread))

    def val_dataloader(self) -> Any:  # noqa: D102
        # Wrapped in a DataLoader: Lightning takes a bare tuple for several loaders that yield single rows.
        batches = self.validation.split(max_batch_size(self.validation.shape[1]))
        return DataLoader(cast(Any, batches), batch_size=None)


class DensityModule(TrainingModule):
    """Train a continuous normalizing flow by maximum likelihood.

    Parameters
    ----------
    flow : CNF
        The flow to train.
    log_volume : float, default=0.0
        Log-density of standardised rows minus that of rows in the units of the table, in nats.
    learning_rate : float, default=1e-2
        As in `TrainingModule`.
    weight_decay : float, default=0.0
        As in `TrainingModule`.
    kinetic : float, default=0.0
        Weight of ∫ |f|² dt along trajectories (Finlay et al., *How to train your neural ODE*, 2020).
    frobenius : float, default=0.0
        Weight of ∫ ‖∂f/∂x‖² dt along trajectories, from the same source.
    """

    def __init__(
        self,
        flow: CNF,
        *,
        log_volume: float = 0.0,
        learning_rate: float = 1e-2,
        weight_decay: float = 0.0,
        kinetic: float = 0.0,
        frobenius: float = 0.0,
    ) -> None:
        super().__init__(learning_rate, weight_decay)
        self.flow, self.log_volume = flow, log_volume
        self.kinetic, self.frobenius = kinetic, frobenius

    def training_step(self, batch: Batch, index: int) -> Tensor:  # noqa: D102
        if self.kinetic or self.frobenius:
            costs = self.flow.costs(batch)
            log_prob = costs.log_prob.mean()
            penalty = self.kinetic * costs.kinetic.mean() + self.frobenius * costs.frobenius.mean()
        else:
            log_prob, penalty = self.flow.log_prob(batch).mean(), batch.new_zeros(())
        self.log_mean("train_nats", self.log_volume - log_prob, len(batch))
        assert self.flow.stats is not None
        evaluations = self.flow.stats.evaluations.double().mean().float()
        self.log_mean("train_evaluations", evaluations, len(batch))
        return penalty - log_prob

    def validation_step(self, batch: Batch, index: int) -> None:  # noqa: D102
        solver = {"method": "tsit5", "controller": None, "step_size": None}
        flow = with_solver(self.flow, **solver, rtol=VALIDATION_TOLERANCE, atol=VALIDATION_TOLERANCE)
        generator = torch.Generator().manual_seed(index)  # the same probes in every epoch
        nats = self.log_volume - flow.log_prob(batch, generator=generator).mean()
        self.log("val_loss", nats, on_epoch=True, batch_size=len(batch))


def with_solver(flow: CNF, **options: Any) -> CNF:
    """Return a copy of the flow that shares its weights and has other solver options.

    Examples
    --------
    >>> from neuralode.nn.flows import ConcatSquashField
    >>> flow = CNF(ConcatSquashField(2, width=4), base=2)
    >>> exact = with_solver(flow, rtol=1e-8)
    >>> exact.field is flow.field, exact.rtol, flow.rtol
    (True, 1e-08, 1e-05)
    """
    other = copy.copy(flow)
    for name, value in options.items():
        setattr(other, name, value)
    return other


def max_batch_size(features: int, width: int = 256) -> int:
    """Return the number of rows per batch without gradients; exact divergences need rows × features × width numbers.

    Examples
    --------
    >>> max_batch_size(2), max_batch_size(784)
    (8192, 6)
    """
    return max(1, min(8192, MOST_NUMBERS // (features * max(width, features))))
