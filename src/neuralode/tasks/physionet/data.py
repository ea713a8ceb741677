"""Patients of PhysioNet 2012, split and scaled."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Bool
from sklearn.model_selection import train_test_split
from torch import Tensor

from neuralode.data.physionet import Patients, physionet
from neuralode.tasks.physionet.config import PhysioNetConfig
from neuralode.training.modules.series_classification import Batch

TEST, VALIDATION = 1 / 5, 1 / 8  # fraction of all patients, and of those that are not for the test


class Split(NamedTuple):
    """Row numbers of patients.

    Parameters
    ----------
    train, validation, test : LongTensor[patients]
        Disjoint.
    """

    train: Tensor
    validation: Tensor
    test: Tensor


@dataclass(frozen=True, eq=False)
class SplitPatients:
    """Scaled patients, split into training, validation and test.

    Parameters
    ----------
    patients : Patients
        All patients.
    split : Split
        Their row numbers.
    """

    patients: Patients
    split: Split

    @property
    def train(self) -> Batch:
        """Observations and labels of the training patients."""
        return self._labelled(self.split.train)

    @property
    def validation(self) -> Batch:
        """Observations and labels of the validation patients."""
        return self._labelled(self.split.validation)

    @property
    def test(self) -> Patients:
        """The test patients."""
        return self.patients[self.split.test]

    @property
    def channels(self) -> int:
        """Number of channels."""
        return self.patients.observed.channels

    @property
    def covariates(self) -> int:
        """Number of static covariates."""
        static = self.patients.observed.static
        return 0 if static is None else static.shape[1]

    def _labelled(self, rows: Tensor) -> Batch:
        return self.patients.observed[rows], self.patients.died[rows].long()


def load_patients(config: PhysioNetConfig, scale: Callable[[Patients, Tensor], Patients]) -> SplitPatients:
    """Return the patients of a config.

    Parameters
    ----------
    config : PhysioNetConfig
        Sets, rounding of times, seed, and the limit on training patients.
    scale : callable
        ``scale(patients, train)`` returns the patients as the model receives them, given the training rows.
    """
    patients = physionet(config.sets, config.every)
    split = split_patients(patients.died, config.seed)
    if config.batches is not None:
        split = split._replace(train=split.train[: config.batches * config.batch_size])
    return SplitPatients(scale(patients, split.train), split)


def split_patients(died: Bool[Tensor, " patients"], seed: int) -> Split:
    """Split patients at random, with the same mortality in each part.

    Examples
    --------
    >>> split = split_patients(torch.arange(400) % 10 == 0, seed=0)
    >>> [len(part) for part in split], sorted(torch.cat(split).tolist()) == list(range(400))
    ([280, 40, 80], True)
    """
    rows = np.arange(len(died))
    rest, test = train_test_split(rows, test_size=TEST, stratify=died.numpy(), random_state=seed)
    train, validation = train_test_split(rest, test_size=VALIDATION, stratify=died[rest].numpy(), random_state=seed)
    return Split(*(torch.as_tensor(part) for part in (train, validation, test)))
