"""What flow matching is taught from: points of the plane, or handwritten digits with their classes."""

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

Batch = tuple[Tensor, ...]  # states [batch, *event], and a class each where there are any

DIGITS = "digits"
POINTS = (10_000, 2_000, 2_000)  # to learn from, to choose by, to report on
JUDGED = 5_000  # rows of noise and times at least that a validation looks at


@dataclass(frozen=True)
class Examples:
    """Examples in three parts, and the scale on which a field sees them.

    Attributes
    ----------
    train, validation, test : tuple of tensors
        Disjoint. States in their own units, and labels if there are classes.
    shift, scale : Tensor
        ``(x - shift) / scale`` is what the field sees.
    classes : int
        How many; 0 if there are none.

    Examples
    --------
    >>> moons = examples("moons", seed=0)
    >>> len(moons.train), moons.event, moons.classes
    (1, (2,), 0)
    >>> seen = moons.seen(moons.train)[0]
    >>> seen.std(0).round(decimals=3).tolist()
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
        """Of one state."""
        return tuple(self.train[0].shape[1:])

    def seen(self, batch: Batch) -> Batch:
        """A batch on the scale of the field."""
        x, *labels = batch
        return (x - self.shift) / self.scale, *labels

    def unseen(self, x: Tensor) -> Tensor:
        """States of the field in their own units."""
        return self.shift + self.scale * x


def examples(name: str, seed: int) -> Examples:
    """Those of a density of `neuralode.data.densities`, or the digits, drawn or split by ``seed``.

    Examples
    --------
    >>> some = examples("digits", seed=0)
    >>> some.event, some.classes, some.seen(some.train)[0].min().item()
    ((1, 8, 8), 10, -1.0)
    """
    if name == DIGITS:
        split = digits(seed)
        train, validation, test = (part.tensors for part in (split.train, split.validation, split.test))
        half = torch.tensor(0.5)
        return Examples(train, validation, test, half, half, classes=10)
    drawing = torch.Generator().manual_seed(seed)
    density = find_density(name)
    train, validation, test = ((density.sample(count, drawing),) for count in POINTS)
    return Examples(train, validation, test, train[0].mean(0), train[0].std(0), classes=0)


class Draws:
    """Batches of rows drawn at random: each epoch others.

    Parameters
    ----------
    rows : tuple of tensors
        All rows.
    batches, size : int
        Batches an epoch, rows a batch.
    seed : int
        Of what is drawn.
    epoch : callable
        Which it is: so training that is resumed draws what it would have drawn.
    """

    def __init__(self, rows: Batch, batches: int, size: int, seed: int, epoch: Callable[[], int]) -> None:
        self.rows, self.batches, self.size, self.seed, self.epoch = rows, batches, size, seed, epoch

    def __len__(self) -> int:
        return self.batches

    def __iter__(self) -> Iterator[Batch]:
        rng = np.random.default_rng((self.seed, self.epoch()))
        count = len(self.rows[0])
        for _ in range(self.batches):
            # whole passes, as far as a batch goes, so that no row is seen far more often than others
            order = torch.as_tensor(rng.permutation(-(-self.size // count) * count)[: self.size] % count)
            yield tuple(part[order] for part in self.rows)


class MatchingData(L.LightningDataModule):
    """Rows to learn from, and rows to decide by which weights are kept: several times, each with its own noise."""

    def __init__(self, train: Batch, validation: Batch, batches: int, size: int, seed: int) -> None:
        super().__init__()
        self.train, self.batches, self.size, self.seed = train, batches, size, seed
        times = -(-JUDGED // len(validation[0]))
        self.validation = tuple(part.repeat(times, *[1] * (part.dim() - 1)) for part in validation)

    def train_dataloader(self) -> ResumableLoader[Batch]:  # noqa: D102
        trainer = self.trainer
        assert trainer is not None
        return ResumableLoader(Draws(self.train, self.batches, self.size, self.seed, lambda: trainer.current_epoch))

    def val_dataloader(self) -> DataLoader:  # noqa: D102
        # as large as those of training: what a coupling finds depends on it
        batches = list(zip(*(part.split(self.size) for part in self.validation), strict=True))
        return DataLoader(cast(Any, batches), batch_size=None)
