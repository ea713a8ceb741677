"""Someone's table of rows that are alike: read, checked cell by cell, and put on a common scale."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any, cast

import numpy as np
from jaxtyping import Bool, Float64

from neuralode.core.extras import require
from neuralode.data.tables import cells
from neuralode.data.tables.series import Source, check_column, read_table

require("series", "pandas", "pyarrow")

import pandas as pd  # noqa: E402  (after the sentence above)

Table = Float64[np.ndarray, "rows columns"]

LEAST = 10  # rows, below which nothing is learned of a density
EXACT = 1e-12  # of the largest value in a column: a smaller range is rounding, and the column a constant
REPEATED = 0.5  # of the rows have a value that another row has too: from here on a column is no continuous one
DEPENDENT = 1e-8  # of the largest singular value of what is on the common scale


@dataclass(frozen=True, eq=False)
class Rows:
    """A table of finite numbers.

    Attributes
    ----------
    names : tuple of str
        Of the columns.
    values : array[rows, columns]
        Float64.
    """

    names: tuple[str, ...]
    values: Table

    def __len__(self) -> int:
        """How many rows."""
        return len(self.values)


def read_rows(source: Source, columns: Iterable[str] | None = None) -> Rows:
    """Read a table of numbers without gaps.

    Parameters
    ----------
    source : DataFrame, array [rows, columns] or path of a .csv, .tsv or .parquet file
        See `neuralode.data.tables.series.read_table`. Whole numbers and numbers that are written as text will do.
    columns : names, optional
        Those to read; all of them unless given. Others are not looked at.

    Raises
    ------
    ValueError
        For a table that does not fit the above; the sentence names the column and the row, counted from 1.

    Examples
    --------
    >>> flowers = pd.DataFrame({"length": [5.1, 4.9], "width": [3, 2], "kind": ["setosa", "setosa"]})
    >>> read_rows(flowers, ["length", "width"]).values.tolist()
    [[5.1, 3.0], [4.9, 2.0]]
    >>> read_rows(flowers)
    Traceback (most recent call last):
    ...
    ValueError: column 'kind' has 'setosa' at row 1; wanted a number, or the column left out by naming the others.
    """
    table = read_table(source)
    if not len(table):
        raise ValueError(
            f"the table has no rows, only the columns {_listed(table.columns)}; wanted some to learn from."
        )
    names = list(table.columns) if columns is None else _chosen(table, columns)
    if not names:
        raise ValueError("the table has no columns; wanted one or more of numbers.")
    values = [_column(cells.tidy(cast(pd.Series, table[name]), name)) for name in names]
    return Rows(tuple(names), np.ascontiguousarray(np.column_stack(values)))


@dataclass(frozen=True, eq=False)
class Standard:
    """Columns with mean 0 and deviation 1, without those that never change; and back.

    Attributes
    ----------
    names : tuple of str
        Of all columns.
    mean, deviation : array[columns]
        Of the values. A constant column has deviation 0, and its mean is the constant.
    reach : array[columns]
        Half of the typical gap between the values of a column that are next to each other where most rows repeat a
        value, else 0. Such a column has no density, and the likelihood of a model that finds its values out has no
        bound; spread evenly over this much on both sides, it has.

    Examples
    --------
    >>> table = np.array([[1.0, 7.0, 0.0], [2.5, 7.0, 1.0], [4.0, 7.0, 1.0], [3.1, 7.0, 0.0]])
    >>> standard = Standard.of(Rows(("size", "rate", "sold"), table))
    >>> standard.constant, standard.repeated
    (('rate',), ('sold',))
    >>> standard.apply(table).shape, bool(np.allclose(standard.undo(standard.apply(table)), table))
    ((4, 2), True)
    """

    names: tuple[str, ...]
    mean: Float64[np.ndarray, " columns"]
    deviation: Float64[np.ndarray, " columns"]
    reach: Float64[np.ndarray, " columns"]

    @classmethod
    def of(cls, rows: Rows) -> Standard:
        """Fit to rows.

        Raises
        ------
        ValueError
            For a table in which no column changes.
        """
        values = rows.values
        reach = np.array([_reach(column) for column in values.T])
        low, high = values.min(0), values.max(0)
        varies = high - low > EXACT * np.abs(values).max(0)
        if not varies.any():
            raise ValueError(f"no column changes among {_listed(rows.names)}; wanted one that does.")
        width = np.where(varies, high - low, 1.0)
        # from the range first: squares of very large or small values would not be numbers
        inside = (values - low) / width
        mean = np.where(varies, low + width * inside.mean(0), low)
        return cls(rows.names, mean, np.where(varies, width * inside.std(0), 0.0), np.where(varies, reach, 0.0))

    @property
    def varies(self) -> Bool[np.ndarray, " columns"]:
        """Which columns are modelled."""
        return self.deviation > 0

    @property
    def features(self) -> int:
        """How many those are."""
        return int(self.varies.sum())

    @property
    def constant(self) -> tuple[str, ...]:
        """Columns that are left out."""
        return tuple(name for name, varies in zip(self.names, self.varies, strict=True) if not varies)

    @property
    def repeated(self) -> tuple[str, ...]:
        """Columns in which most rows repeat a value."""
        return tuple(name for name, reach in zip(self.names, self.reach, strict=True) if reach)

    def alike(self, values: Table) -> Bool[np.ndarray, " rows"]:
        """Which rows have the constants in the columns that are left out, but for rounding."""
        found, constant = values[:, ~self.varies], self.mean[~self.varies]
        # twice, as the constant is the least of values that differ by so much themselves
        near = np.abs(found - constant) <= 2 * EXACT * np.maximum(np.abs(found), np.abs(constant))
        return np.logical_and.reduce(near, axis=1)

    @property
    def log_volume(self) -> float:
        """What a log-density on the common scale is more than one of the values themselves, in nats."""
        return float(np.log(self.deviation[self.varies]).sum())

    @property
    def spread(self) -> Float64[np.ndarray, " features"]:
        """The reach of the columns that are modelled, on the common scale."""
        return self.reach[self.varies] / self.deviation[self.varies]

    def apply(self, values: Table) -> Float64[np.ndarray, "rows features"]:
        """To the common scale."""
        return (values[:, self.varies] - self.mean[self.varies]) / self.deviation[self.varies]

    def spread_out(self, values: Table) -> Table:
        """The rows that nats are of: values that rows repeat are moved evenly within their reach, alike each time."""
        return values + self.reach * np.random.default_rng(0).uniform(-1, 1, values.shape)

    def undo(self, scaled: Float64[np.ndarray, "rows features"]) -> Table:
        """Back to the scale of the table; a constant is itself again."""
        values = np.tile(self.mean, (len(scaled), 1))
        values[:, self.varies] += scaled * self.deviation[self.varies]
        return values

    def remarks(self, rows: Rows, spread: bool = True) -> list[str]:
        """What whoever reads a density of these rows, spread or not, should know: sentences, or none."""
        found = []
        if self.constant:
            found.append(
                f"{_columns(self.constant)} the same in every row that was learned from: left out, the density is of "
                "the others, and that of a row with another value is 0."
            )
        if self.repeated:
            repeat = f"most rows repeat a value in {_listed(self.repeated)}, as rows of a density do not: "
            found.append(
                f"{repeat}they are spread evenly to both sides, half of the way to the next value, and nats are of the "
                "spread rows; scores are densities at the values themselves."
                if spread
                else f"{repeat}the likelihood of such rows has no bound."
            )
        *_, last = np.linalg.svd(self.apply(rows.values), compute_uv=False) if len(rows) >= self.features else (1.0,)
        if self.features > 1 and last < DEPENDENT * np.sqrt(len(rows)):
            found.append(
                f"a column among {_listed(np.array(self.names)[self.varies])} follows from the others by a sum of "
                "multiples: such rows have no density, and the figures no bound; leave it out."
            )
        return found

    def to_json(self) -> dict[str, Any]:
        """As plain lists."""
        return {name: value if name == "names" else value.tolist() for name, value in asdict(self).items()}

    @classmethod
    def from_json(cls, content: dict[str, Any]) -> Standard:
        """Of plain lists."""
        return cls(tuple(content["names"]), *(np.array(content[name]) for name in ("mean", "deviation", "reach")))


def check_enough(rows: Rows) -> None:
    """Raise a ValueError for rows too few to have a density that can be learned.

    Examples
    --------
    >>> check_enough(Rows(("a",), np.arange(3.0)[:, None]))
    Traceback (most recent call last):
    ...
    ValueError: the table has 3 rows of 1 column; wanted at least 10 rows.
    """
    columns = len(rows.names)
    wanted = max(LEAST, columns + 1)  # as many rows as columns lie in a plane, which has no volume
    if len(rows) < wanted:
        counted = f"{len(rows)} row{'s' * (len(rows) != 1)} of {columns} column{'s' * (columns != 1)}"
        raise ValueError(f"the table has {counted}; wanted at least {wanted} rows.")


def _column(column: pd.Series) -> np.ndarray:
    """One column as float64."""
    logical = pd.api.types.is_bool_dtype(column) | column.map(lambda cell: isinstance(cell, bool | np.bool_))
    leave = "the column left out by naming the others"
    cells.refuse(logical, column, "{}", f"a number, or {leave}")
    cells.refuse(column.isna(), column, "nothing", "a number: fill gaps or leave such rows out")
    numbers = cells.numbers(column)
    cells.refuse(np.isnan(numbers), column, "{}", f"a number, or {leave}")
    cells.refuse(np.isinf(numbers), column, "an infinite value", "a finite number: leave such rows out")
    return numbers


def _chosen(table: pd.DataFrame, columns: Iterable[str]) -> list[str]:
    names = [columns] if isinstance(columns, str) else [str(name) for name in columns]
    for place, name in enumerate(names):
        check_column(table, name)
        if name in names[:place]:
            raise ValueError(f"column {name!r} is named twice; wanted each once.")
    return names


def _reach(column: np.ndarray) -> float:
    """Half of the median gap between values, where most rows repeat one; else 0."""
    distinct, counts = np.unique(column, return_counts=True)
    shared = counts[counts > 1].sum() / len(column)
    return float(np.median(np.diff(distinct)) / 2) if len(distinct) > 1 and shared > REPEATED else 0.0


def _columns(names: Iterable[str]) -> str:
    names = list(names)
    return f"column{'s' * (len(names) > 1)} {_listed(names)} {'are' if len(names) > 1 else 'is'}"


def _listed(names: Iterable[str]) -> str:
    return ", ".join(repr(str(name)) for name in names)
