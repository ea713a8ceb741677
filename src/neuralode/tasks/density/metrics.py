"""Evaluate a density: mean log-densities, and those of a normal distribution for comparison."""

from __future__ import annotations

import math

import numpy as np

from neuralode.data.tables.rows import Table
from neuralode.data.tables.standardization import Standardization
from neuralode.tasks.density.data import Split
from neuralode.training.run import Run, write_csv

RIDGE = 1e-6  # added to variances of standardised columns, so that linearly dependent columns have a normal density


def nats(log_densities: np.ndarray, split: Split, features: int) -> dict[str, float]:
    """Return the mean negative log-density of each part, with the standard error on the test rows.

    Parameters
    ----------
    log_densities : array[rows]
        Log-density of each row, in nats.
    split : Split
        Training, validation and test rows.
    features : int
        Number of columns that are modelled.

    Examples
    --------
    >>> split = Split(np.array([0, 1]), np.array([2]), np.array([3, 4]))
    >>> figures = nats(np.array([-1.0, -2.0, -3.0, -3.5, -4.5]), split, features=2)
    >>> figures["test_nats"], figures["test_nats_error"], round(figures["test_bits_per_dimension"], 3)
    (4.0, 0.5, 2.885)
    """
    test = -log_densities[split.test]
    figures = {
        "test_nats": test.mean(),
        "test_nats_error": test.std(ddof=1) / math.sqrt(len(test)),
        "test_bits_per_dimension": test.mean() / features / math.log(2),
        "validation_nats": -log_densities[split.validation].mean(),
        "train_nats": -log_densities[split.train].mean(),
    }
    return {name: round(float(value), 6) for name, value in figures.items()}


def gaussian_nats(standard: Standardization, known: Table, test: Table) -> float:
    """Return the mean negative log-density of ``test`` rows under the normal distribution fitted to ``known`` rows.

    Examples
    --------
    >>> from neuralode.data.tables.rows import Rows
    >>> draws = np.random.default_rng(0).normal(0.0, 10.0, (20_000, 1))
    >>> standard = Standardization.fit(Rows(("a",), draws))
    >>> entropy = math.log(10.0 * math.sqrt(2 * math.pi * math.e))
    >>> abs(gaussian_nats(standard, draws[:10_000], draws[10_000:]) - entropy) < 0.02
    True
    """
    known, test = standard.apply(known), standard.apply(test)
    mean = known.mean(0)
    factor = np.linalg.cholesky(np.atleast_2d(np.cov(known.T)) + RIDGE * np.eye(standard.features))
    square = (np.linalg.solve(factor, (test - mean).T) ** 2).sum(0).mean()
    volume = np.log(factor.diagonal()).sum() + standard.log_volume
    return float(square / 2 + standard.features * math.log(2 * math.pi) / 2 + volume)


def write_scores(run: Run, log_densities: np.ndarray, split: Split) -> None:
    """Write the log-density and the part of each row, counted from 1, to ``scores.csv``."""
    part_of = {int(row): name for name, rows in split._asdict().items() for row in rows}
    write_csv(
        run.folder / "scores.csv",
        [
            {"row": row + 1, "log_density": float(score), "part": part_of[row]}
            for row, score in enumerate(log_densities)
        ],
    )
