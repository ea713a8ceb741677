"""Rows of a table or of a known density: read, split, and standardised."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Int64
from sklearn.model_selection import train_test_split

from neuralode.data.densities import DENSITIES, find_density
from neuralode.data.tables.rows import Rows, Table, check_enough, read_rows
from neuralode.data.tables.standardization import Standardization
from neuralode.tasks.density.config import DensityConfig

TEST, VALIDATION = 1 / 5, 1 / 8  # fraction of all rows, and of the rows that are not for the test


class Split(NamedTuple):
    """Row numbers from 0, in the order of the table.

    Parameters
    ----------
    train, validation, test : array[rows]
        Disjoint.
    """

    train: Int64[np.ndarray, " train"]
    validation: Int64[np.ndarray, " validation"]
    test: Int64[np.ndarray, " test"]

    @property
    def known(self) -> Int64[np.ndarray, " known"]:
        """Rows for training and validation."""
        return np.concatenate((self.train, self.validation))


@dataclass(frozen=True, eq=False)
class DensityRows:
    """The rows of a run.

    Parameters
    ----------
    values : array[rows, columns]
        The table.
    smoothed : array[rows, columns]
        The table for likelihoods: repeated values are spread out, unless ``spread`` is False.
    standard : Standardization
        Standardisation, from the training and validation rows.
    split : Split
        Training, validation and test rows.
    scored : array[rows]
        Test rows whose density is not 0: no constant column has another value.
    digest : str
        SHA-256 of the values.
    """

    values: Table
    smoothed: Table
    standard: Standardization
    split: Split
    scored: Int64[np.ndarray, " scored"]
    digest: str

    def remarks(self, spread: bool) -> list[str]:
        """Return sentences about columns, values and test rows that are treated specially."""
        rows = Rows(self.standard.names, self.values)
        return [*self.standard.remarks(rows, spread), *_unscored(len(self.split.test), len(self.scored))]


def load_rows(config: DensityConfig) -> DensityRows:
    """Read, split and standardise the rows of a config.

    Raises
    ------
    ValueError
        If the table is invalid, has too few rows, or fewer than two test rows have a density.
    FileNotFoundError
        If there is no such file.
    """
    rows = read(config)
    check_enough(rows)
    split = split_rows(len(rows), config.seed)
    standard = Standardization.fit(Rows(rows.names, rows.values[split.known]))
    return DensityRows(
        values=rows.values,
        smoothed=standard.dequantize(rows.values) if config.spread else rows.values,
        standard=standard,
        split=split,
        scored=_scored_rows(standard, rows.values, split.test),
        digest=hashlib.sha256(rows.values.tobytes()).hexdigest(),
    )


def read(config: DensityConfig) -> Rows:
    """Return the rows of a file, or rows drawn from a known density.

    Examples
    --------
    >>> rows = read(DensityConfig("moons", rows=20))
    >>> rows.names, rows.values.shape
    (('x0', 'x1'), (20, 2))
    """
    if config.data in DENSITIES or not (Path(config.data).suffix or Path(config.data).exists()):
        generator = torch.Generator().manual_seed(config.seed)
        return read_rows(find_density(config.data).sample(config.rows, generator).double().numpy(), config.columns)
    return read_rows(config.data, config.columns)


def split_rows(count: int, seed: int) -> Split:
    """Split row numbers at random.

    Examples
    --------
    >>> [len(part) for part in split_rows(100, seed=0)]
    [70, 10, 20]
    """
    rest, test = train_test_split(np.arange(count), test_size=TEST, random_state=seed)
    train, validation = train_test_split(rest, test_size=VALIDATION, random_state=seed)
    return Split(*(np.sort(part) for part in (train, validation, test)))


def _scored_rows(
    standard: Standardization, values: Table, test: Int64[np.ndarray, " test"]
) -> Int64[np.ndarray, " scored"]:
    scored = test[standard.matches_constants(values[test])]
    if len(scored) < 2:
        raise ValueError(
            f"of columns that are the same in all rows to learn from ({', '.join(map(repr, standard.constant))}), "
            f"{len(test) - len(scored)} of the {len(test)} test rows have another value; wanted another seed, or such "
            "columns left out."
        )
    return scored


def _unscored(test: int, scored: int) -> list[str]:
    differ = test - scored
    return [] if not differ else [
        f"{differ} of the {test} test rows differ in a column that is left out: their density is 0 (a score of -inf), "
        f"and test_nats and gaussian_nats are of the other {scored}."
    ]  # fmt: skip
