"""Windows of spirals for training, validation and test."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any, cast

import lightning as L
import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from neuralode.data.spirals import WINDOW, Spirals, spirals
from neuralode.nn import Observations
from neuralode.tasks.spirals.config import SpiralsConfig
from neuralode.training.resumable_loader import ResumableLoader

Batch = tuple[Observations, Observations]  # observations to encode, and observations to explain

SCALE = 5.0  # unit of the points that models receive, about the radius of the curves
SHORTEST = 30  # minimum length of the encoded part of a window, in points
TEST_SERIES, TEST_SEED = 500, 10_000  # the latter is added to the seed, so that test series differ from the others
LAST_TEST = 300  # last point of a curve at which a test window starts: the curve covers window and forecast
VALIDATION = 10  # one in this many series validates


def load_training_series(config: SpiralsConfig) -> Observations:
    """Return the scaled series for training and validation."""
    return scale(spirals(config.series, config.observed, last=config.last, seed=config.seed).observed)


def load_test_series(config: SpiralsConfig) -> Spirals:
    """Return the series for the test."""
    return spirals(TEST_SERIES, config.observed, last=LAST_TEST, seed=TEST_SEED + config.seed)


def validation_mask(series: int) -> Tensor:
    """Return which series validate, as many of each curve; even and odd series are of different curves.

    Examples
    --------
    >>> validation_mask(40).nonzero()[:, 0].tolist()
    [0, 11, 20, 31]
    """
    index = torch.arange(series)
    return index % VALIDATION == index // VALIDATION % 2


def scale(observed: Observations) -> Observations:
    """Return observations with points in units of `SCALE`."""
    return replace(observed, values=observed.values / SCALE)


def crop(observed: Observations, begin: int, end: int) -> Batch:
    """Return the observations between two points of the windows, and all from the first of them on.

    Times are relative to that point. Series without an observation between the points are left out.

    Examples
    --------
    >>> batch = Observations.gather([([0.1, 0.4, 0.8], [[1.0], [2.0], [3.0]]), ([0.9], [[4.0]])], start=0.0)
    >>> encoded, targets = crop(batch, 30, 50)
    >>> [round(t, 2) for t in encoded.times[0].tolist()], [round(t, 2) for t in targets.times[0].tolist()]
    ([0.1], [0.1, 0.5])
    """
    points = (observed.times * WINDOW).round()
    rows = ((points >= begin) & (points < end) & observed.inside).any(1).nonzero()[:, 0]
    observed, points = observed[rows], points[rows][:, : int(observed.lengths[rows].max())]
    shifted = replace(observed, times=observed.times - begin / WINDOW)
    later = points >= begin
    return shifted.keeping(later & (points < end)), shifted.keeping(later)


class CroppedWindows:
    """Batches of windows, some of them shortened, different in each epoch.

    Parameters
    ----------
    observed : Observations
        All windows.
    batches : int
        Batches per epoch.
    size : int
        Windows per batch.
    shorter : float
        Fraction of shortened batches. A model with less to encode has more to forecast.
    seed : int
        Seed; together with the epoch it determines the batches, also when the training is resumed.
    epoch : callable
        Returns the current epoch.
    """

    def __init__(
        self,
        observed: Observations,
        *,
        batches: int,
        size: int,
        shorter: float,
        seed: int,
        epoch: Callable[[], int],
    ) -> None:
        self.observed, self.batches, self.size, self.shorter = observed, batches, size, shorter
        self.seed, self.epoch = seed, epoch

    def __len__(self) -> int:
        return self.batches

    def __iter__(self) -> Iterator[Batch]:
        rng = np.random.default_rng((self.seed, self.epoch()))
        for _ in range(self.batches):
            rows = torch.as_tensor(rng.permutation(len(self.observed))[: self.size])
            begin, end = 0, WINDOW
            if rng.random() < self.shorter:
                begin = int(rng.integers(0, WINDOW // 2 + 1))
                end = int(rng.integers(begin + SHORTEST, WINDOW + 1))
            yield crop(self.observed[rows], begin, end)


class SpiralsData(L.LightningDataModule):
    """Windows to train on, and windows to validate on: their second half is forecast from the first.

    Parameters
    ----------
    train : Observations
        Training windows.
    validation : Observations
        Validation windows.
    batches, size, shorter, seed
        As in `CroppedWindows`.
    """

    def __init__(
        self,
        train: Observations,
        validation: Observations,
        *,
        batches: int,
        size: int,
        shorter: float,
        seed: int,
    ) -> None:
        super().__init__()
        self.train, self.validation = train, validation
        self.batches, self.size, self.shorter, self.seed = batches, size, shorter, seed

    def train_dataloader(self) -> ResumableLoader[Batch]:  # noqa: D102
        trainer = self.trainer
        assert trainer is not None
        windows = CroppedWindows(
            self.train,
            batches=self.batches,
            size=self.size,
            shorter=self.shorter,
            seed=self.seed,
            epoch=lambda: trainer.current_epoch,
        )
        return ResumableLoader(windows)

    def val_dataloader(self) -> DataLoader:  # noqa: D102
        return DataLoader(cast(Any, [crop(self.validation, 0, WINDOW // 2)]), batch_size=None)
