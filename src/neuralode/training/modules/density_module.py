"""Lightning's view of rows whose density is learned: maximum likelihood, on paths that are kept easy to follow."""

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
from neuralode.training.fit import Watched
from neuralode.training.resumable_loader import Resumable

Batch = Float[Tensor, "batch features"]

STEPS = 20  # of the optimizer in an epoch at least: small tables are passed over several times
JUDGED = 1e-4  # tolerance of what is validated, however training solves
AT_ONCE = 1 << 22  # numbers in the largest tensor of a batch where nothing is differentiated


class Batches:
    """Batches of rows, each pass in a new order; cut from a tensor at once rather than row by row.

    Parameters
    ----------
    rows : Tensor[rows, features]
        On the common scale.
    size : int
        Rows a batch.
    spread : Tensor[features]
        How far the numbers of each column are moved at most, evenly, and anew each time.

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
            for some in torch.randperm(len(self.rows)).split(self.size):
                batch = self.rows[some]
                yield batch + self.spread * (2 * torch.rand_like(batch) - 1)


class RowsData(L.LightningDataModule):
    """Rows to learn from, and rows to decide by which weights are kept."""

    def __init__(self, train: Batch, validation: Batch, size: int, spread: Float[Tensor, " features"]) -> None:
        super().__init__()
        self.train, self.validation, self.size, self.spread = train, validation, size, spread

    def train_dataloader(self) -> Resumable[Batch]:  # noqa: D102
        return Resumable(Batches(self.train, self.size, self.spread))

    def val_dataloader(self) -> Any:  # noqa: D102
        # a bare tuple would be taken for several loaders, one a batch, each of which gives row by row
        return DataLoader(cast(Any, self.validation.split(rows_at_once(self.validation.shape[1]))), batch_size=None)


class Likely(Watched):
    """Train a flow by maximum likelihood.

    Parameters
    ----------
    flow : CNF
        Of rows.
    log_volume : float
        What a log-density of these is more than one of the rows as they were in their table, in nats.
    learning_rate, weight_decay
        Of `Watched`.
    kinetic, frobenius : float
        Weights of ∫ |f|² dt and ∫ ‖∂f/∂x‖² dt along the paths (Finlay et al., *How to train your neural ODE*, 2020).
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
            path = self.kinetic * costs.kinetic.mean() + self.frobenius * costs.frobenius.mean()
        else:
            log_prob, path = self.flow.log_prob(batch).mean(), batch.new_zeros(())
        self.log_mean("train_nats", self.log_volume - log_prob, len(batch))
        assert self.flow.stats is not None
        evaluations = self.flow.stats.evaluations.double().mean().float()
        self.log_mean("train_evaluations", evaluations, len(batch))
        return path - log_prob

    def validation_step(self, batch: Batch, index: int) -> None:  # noqa: D102
        flow = solved_by(self.flow, method="tsit5", controller=None, step_size=None, rtol=JUDGED, atol=JUDGED)
        drawing = torch.Generator().manual_seed(index)  # the same probes each epoch, where divergences are estimated
        nats = self.log_volume - flow.log_prob(batch, generator=drawing).mean()
        self.log("val_loss", nats, on_epoch=True, batch_size=len(batch))


def solved_by(flow: CNF, **options: Any) -> CNF:
    """The same flow, weights and all, that solves in another way.

    Examples
    --------
    >>> from neuralode.nn.flows import ConcatSquashField
    >>> flow = CNF(ConcatSquashField(2, width=4), base=2)
    >>> exact = solved_by(flow, rtol=1e-8)
    >>> exact.field is flow.field, exact.rtol, flow.rtol
    (True, 1e-08, 1e-05)
    """
    other = copy.copy(flow)
    for name, value in options.items():
        setattr(other, name, value)
    return other


def rows_at_once(features: int, width: int = 256) -> int:
    """Rows in a batch where nothing is differentiated: exact divergences make a number a row, feature and unit.

    Examples
    --------
    >>> rows_at_once(2), rows_at_once(784)
    (8192, 6)
    """
    return max(1, min(8192, AT_ONCE // (features * max(width, features))))
