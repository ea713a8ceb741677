"""Examples for flow matching: points of the plane, or handwritten digits with their classes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, cast

import lightning as L
import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from neuralode.data import digits
from neuralode.data.densities import find_density
from neuralode.training.resumable_loader import ResumableLoader

Batch = tuple[Tensor, ...]  # states [batch, *event], followed by labels [batch] if there are classes

DIGITS = "digits"
POINTS = (10_000, 2_000, 2_000)  # for training, validation and test
VALIDATION_ROWS = 5_000  # minimum number of (state, noise, time) triples per validation


@dataclass(frozen=True)
class Examples:
    """Training, validation and test examples, and their standardisation.

    Parameters
    ----------
    train, validation, test : tuple of Tensor
        Disjoint. States in their own units, followed by labels if there are classes.
    shift, scale : Tensor
        Standardised states are ``(x - shift) / scale``.
    classes : int
        Number of classes; 0 if there are none.

    Examples
    --------
    >>> moons = load_examples("moons", seed=0)
    >>> len(moons.train), moons.event, moons.classes
    (1, (2,), 0)
    >>> scaled = moons.standardize(moons.train)[0]
    >>> scaled.std(0).round(decimals=3).tolist()
    [1.0, 1.0]
    """

    train: Batch
    validation: Batch
    test: Batch
    shift: Tensor
    scale: Tensor
    classes: int

    @property
    def event(self) -> tuple[int, ...]:
        """Shape of a state."""
        return tuple(self.train[0].shape[1:])

    def standardize(self, batch: Batch) -> Batch:
        """Return a batch with standardised states."""
        x, *labels = batch
        return (x - self.shift) / self.scale, *labels

    def unstandardize(self, x: Tensor) -> Tensor:
        """Return standardised states in their own units."""
        return self.shift + self.scale * x


def load_examples(name: str, seed: int) -> Examples:
    """Return digits, or points drawn from a density of `neuralode.data.densities`.

    Examples
    --------
    >>> examples = load_examples("digits", seed=0)
    >>> examples.event, examples.classes, examples.standardize(examples.train)[0].min().item()
    ((1, 8, 8), 10, -1.0)
    """
    if name == DIGITS:
        split = digits(seed)
        train, validation, test = (part.tensors for part in (split.train, split.validation, split.test))
        half = torch.tensor(0.5)
        return Examples(train, validation, test=test, shift=half, scale=half, classes=10)
    generator = torch.Generator().manual_seed(seed)
    density = find_density(name)
    train, validation, test = ((density.sample(count, generator),) for count in POINTS)
    return Examples(train, validation, test=test, shift=train[0].mean(0), scale=train[0].std(0), classes=0)


class RandomBatches:
    """Batches of random rows, different in each epoch.

    Parameters
    ----------
    rows : tuple of Tensor
        All rows.
    batches : int
        Batches per epoch.
    size : int
        Rows per batch.
    seed : int
        Seed; together with the epoch it determines the batches, also when the training is resumed.
    epoch : callable
        Returns the current epoch.
    """

    def __init__(self, rows: Batch, *, batches: int, size: int, seed: int, epoch: Callable[[], int]) -> None:
        self.rows, self.batches, self.size, self.seed, self.epoch = rows, batches, size, seed, epoch

    def __len__(self) -> int:
        return self.batches

    def __iter__(self) -> Iterator[Batch]:
        rng = np.random.default_rng((self.seed, self.epoch()))
        count = len(self.rows[0])
        for _ in range(self.batches):
            # Cut from permutations of all rows, so that no row is drawn far more often than others.
            order = torch.as_tensor(rng.permutation(-(-self.size // count) * count)[: self.size] % count)
            yield tuple(part[order] for part in self.rows)


class FlowMatchingData(L.LightningDataModule):
    """Rows to train on, and rows to validate on, each repeated with different noise.

    Parameters
    ----------
    train : tuple of Tensor
        Standardised training rows.
    validation : tuple of Tensor
        Standardised validation rows.
    batches : int
        Batches per epoch.
    size : int
        Rows per batch.
    seed : int
        Seed of the batches.
    """

    def __init__(self, train: Batch, validation: Batch, *, batches: int, size: int, seed: int) -> None:
        super().__init__()
        self.train, self.batches, self.size, self.seed = train, batches, size, seed
        repeats = -(-VALIDATION_ROWS // len(validation[0]))
        self.validation = tuple(part.repeat(repeats, *[1] * (part.dim() - 1)) for part in validation)

    def train_dataloader(self) -> ResumableLoader[Batch]:  # noqa: D102
        trainer = self.trainer
        assert trainer is not None
        batches = RandomBatches(
            self.train, batches=self.batches, size=self.size, seed=self.seed, epoch=lambda: trainer.current_epoch
        )
        return ResumableLoader(batches)

    def val_dataloader(self) -> DataLoader:  # noqa: D102
        # Batches as large as those of the training, since optimal-transport couplings depend on the size.
        batches = list(zip(*(part.split(self.size) for part in self.validation), strict=True))
        return DataLoader(cast(Any, batches), batch_size=None)
