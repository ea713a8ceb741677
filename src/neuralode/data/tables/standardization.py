"""Standardization of the columns of a table, with findings about columns that have no density."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool, Float64

from neuralode.data.tables.cells import list_names
from neuralode.data.tables.rows import Rows, Table

CONSTANT = 1e-12  # relative range of a column that is rounding error, so that the column is constant
REPEATED = 0.5  # fraction of rows with a value that another row has, from which on a column is not continuous
DEPENDENT = 1e-8  # relative to √rows: the smallest singular value of linearly dependent columns
DEQUANTIZATION_SEED = 0


@dataclass(frozen=True, eq=False)
class Standardization:
    """Scaling of the columns to mean 0 and standard deviation 1, without the constant ones.

    Attributes
    ----------
    names : tuple of str
        Names of all columns.
    mean : array [columns]
        Means; the constant itself for constant columns.
    deviation : array [columns]
        Standard deviations; 0 for constant columns.
    reach : array [columns]
        Half-width of the uniform noise that dequantizes a column: half of the median gap between its distinct values
        if most rows repeat a value, else 0. Repeated values have no density, and the likelihood of a model that finds
        them is unbounded; with the noise it is bounded.

    Examples
    --------
    >>> table = np.array([[1.0, 7.0, 0.0], [2.5, 7.0, 1.0], [4.0, 7.0, 1.0], [3.1, 7.0, 0.0]])
    >>> standard = Standardization.fit(Rows(("size", "rate", "sold"), table))
    >>> standard.constant, standard.repeated
    (('rate',), ('sold',))
    >>> standard.apply(table).shape, bool(np.allclose(standard.invert(standard.apply(table)), table))
    ((4, 2), True)
    """

    names: tuple[str, ...]
    mean: Float64[np.ndarray, " columns"]
    deviation: Float64[np.ndarray, " columns"]
    reach: Float64[np.ndarray, " columns"]

    @classmethod
    def fit(cls, rows: Rows) -> Standardization:
        """Return the standardization of a table.

        Raises
        ------
        ValueError
            If all columns are constant.
        """
        values = rows.values
        low, high = values.min(0), values.max(0)
        varies = high - low > CONSTANT * np.abs(values).max(0)
        if not varies.any():
            raise ValueError(f"no column changes among {list_names(rows.names)}; wanted one that does.")
        # Relative to the range: squares of very large or very small values would overflow or underflow.
        width = np.where(varies, high - low, 1.0)
        relative = (values - low) / width
        reach = np.array([_dequantization_reach(column) for column in values.T])
        return cls(
            names=rows.names,
            mean=np.where(varies, low + width * relative.mean(0), low),
            deviation=np.where(varies, width * relative.std(0), 0.0),
            reach=np.where(varies, reach, 0.0),
        )

    @property
    def varies(self) -> Bool[np.ndarray, " columns"]:
        """Return which columns are not constant; these are modelled."""
        return self.deviation > 0

    @property
    def features(self) -> int:
        """Return the number of columns that are modelled."""
        return int(self.varies.sum())

    @property
    def constant(self) -> tuple[str, ...]:
        """Return the names of the constant columns."""
        return tuple(name for name, varies in zip(self.names, self.varies, strict=True) if not varies)

    @property
    def repeated(self) -> tuple[str, ...]:
        """Return the names of the columns in which most rows repeat a value."""
        return tuple(name for name, reach in zip(self.names, self.reach, strict=True) if reach)

    @property
    def log_volume(self) -> float:
        """Return the difference between log-densities of standardized values and of the values, in nats."""
        return float(np.log(self.deviation[self.varies]).sum())

    @property
    def scaled_reach(self) -> Float64[np.ndarray, " features"]:
        """Return the reach of the columns that are modelled, on the standardized scale."""
        return self.reach[self.varies] / self.deviation[self.varies]

    def apply(self, values: Table) -> Float64[np.ndarray, "rows features"]:
        """Return standardized values of the columns that are modelled."""
        return (values[:, self.varies] - self.mean[self.varies]) / self.deviation[self.varies]

    def invert(self, scaled: Float64[np.ndarray, "rows features"]) -> Table:
        """Return the values of all columns in their original units; constant columns have their constant."""
        values = np.tile(self.mean, (len(scaled), 1))
        values[:, self.varies] += scaled * self.deviation[self.varies]
        return values

    def dequantize(self, values: Table) -> Table:
        """Return the values with uniform noise in the columns that repeat values, the same noise on each call."""
        noise = np.random.default_rng(DEQUANTIZATION_SEED).uniform(-1, 1, values.shape)
        return values + self.reach * noise

    def matches_constants(self, values: Table) -> Bool[np.ndarray, " rows"]:
        """Return which rows have the constant in each constant column, up to rounding."""
        found, constant = values[:, ~self.varies], self.mean[~self.varies]
        # The constant is the smallest of values that differ by rounding themselves: allow twice the difference.
        close = np.abs(found - constant) <= 2 * CONSTANT * np.maximum(np.abs(found), np.abs(constant))
        return np.logical_and.reduce(close, axis=1)

    def remarks(self, rows: Rows, spread: bool = True) -> list[str]:
        """Return findings that matter to a reader of the density of these rows.

        Parameters
        ----------
        rows : Rows
            The table that was standardized.
        spread : bool, default=True
            Whether columns that repeat values are dequantized.

        Returns
        -------
        list of str
            A sentence for each finding.
        """
        findings = []
        if self.constant:
            findings.append(
                f"{_columns_are(self.constant)} constant in the training rows and left out: the density is that of the "
                "other columns, and rows with another value have density 0."
            )
        if self.repeated:
            repeat = f"most rows repeat a value in {list_names(self.repeated)}, so that there is no density: "
            findings.append(
                f"{repeat}uniform noise is added, up to half of the way to the next value, and nats refer to the rows "
                "with noise; scores are densities at the values themselves."
                if spread
                else f"{repeat}the likelihood is unbounded."
            )
        if self._is_dependent(rows):
            varying = list_names(np.array(self.names)[self.varies])
            findings.append(
                f"a column among {varying} is a linear combination of the others, so that there is no density: the "
                "likelihood is unbounded; leave the column out."
            )
        return findings

    def _is_dependent(self, rows: Rows) -> bool:
        """Return whether the columns are linearly dependent."""
        if self.features < 2 or len(rows) < self.features:
            return False
        singular_values = np.linalg.svd(self.apply(rows.values), compute_uv=False)
        return bool(singular_values[-1] < DEPENDENT * np.sqrt(len(rows)))

    def to_json(self) -> dict[str, Any]:
        """Return a dict that JSON can hold, for `from_json`."""
        return {name: value if name == "names" else value.tolist() for name, value in asdict(self).items()}

    @classmethod
    def from_json(cls, content: dict[str, Any]) -> Standardization:
        """Return the standardization that `to_json` described."""
        return cls(tuple(content["names"]), *(np.array(content[name]) for name in ("mean", "deviation", "reach")))


def _dequantization_reach(column: np.ndarray) -> float:
    """Return half of the median gap between distinct values if most rows repeat a value, else 0."""
    distinct, counts = np.unique(column, return_counts=True)
    repeated = counts[counts > 1].sum() / len(column)
    return float(np.median(np.diff(distinct)) / 2) if len(distinct) > 1 and repeated > REPEATED else 0.0


def _columns_are(names: Iterable[str]) -> str:
    names = list(names)
    return f"column{'s' * (len(names) > 1)} {list_names(names)} {'are' if len(names) > 1 else 'is'}"
