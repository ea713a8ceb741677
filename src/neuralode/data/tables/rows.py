"""Tables of numbers without missing values, such as densities are learned from: reading and validation."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import cast

import numpy as np
from jaxtyping import Float64

from neuralode.core.extras import require
from neuralode.data.tables import cells
from neuralode.data.tables.cells import list_names
from neuralode.data.tables.series import Source, check_column, read_table

require("series", "pandas", "pyarrow")

import pandas as pd  # noqa: E402  (needs the extra above)

Table = Float64[np.ndarray, "rows columns"]

MIN_ROWS = 10  # to learn a density from


@dataclass(frozen=True, eq=False)
class Rows:
    """A table of finite numbers.

    Attributes
    ----------
    names : tuple of str
        Names of the columns.
    values : array [rows, columns]
        The numbers, in float64.
    """

    names: tuple[str, ...]
    values: Table

    def __len__(self) -> int:
        """Return the number of rows."""
        return len(self.values)


def read_rows(source: Source, columns: Iterable[str] | None = None) -> Rows:
    """Read a table of numbers without missing values.

    Parameters
    ----------
    source : DataFrame, array [rows, columns] or path of a .csv, .tsv or .parquet file
        The table, see `neuralode.data.tables.source.read_table`. Text that is a number is converted.
    columns : iterable of str, optional
        Columns to read; all of them unless given. Other columns are ignored.

    Returns
    -------
    Rows
        The numbers.

    Raises
    ------
    ValueError
        For a table that does not fit; the message names the column and the row, counted from 1.

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
            f"the table has no rows, only the columns {list_names(table.columns)}; wanted some to learn from."
        )
    names = list(table.columns) if columns is None else _select_columns(table, columns)
    if not names:
        raise ValueError("the table has no columns; wanted one or more of numbers.")
    values = [_read_column(cells.normalize(cast(pd.Series, table[name]), name)) for name in names]
    return Rows(tuple(names), np.ascontiguousarray(np.column_stack(values)))


def check_enough(rows: Rows) -> None:
    """Raise `ValueError` if there are too few rows to learn a density from.

    Examples
    --------
    >>> check_enough(Rows(("a",), np.arange(3.0)[:, None]))
    Traceback (most recent call last):
    ...
    ValueError: the table has 3 rows of 1 column; wanted at least 10 rows.
    """
    columns = len(rows.names)
    wanted = max(MIN_ROWS, columns + 1)  # fewer rows lie in a hyperplane, which has no volume
    if len(rows) < wanted:
        counted = f"{len(rows)} row{'s' * (len(rows) != 1)} of {columns} column{'s' * (columns != 1)}"
        raise ValueError(f"the table has {counted}; wanted at least {wanted} rows.")


def _read_column(column: pd.Series) -> np.ndarray:
    logical = pd.api.types.is_bool_dtype(column) | column.map(lambda cell: isinstance(cell, bool | np.bool_))
    number = "a number, or the column left out by naming the others"
    cells.check_cells(column, logical, found="{}", wanted=number)
    cells.check_cells(column, column.isna(), found="nothing", wanted="a number: fill gaps or leave such rows out")
    numbers = cells.to_numbers(column)
    cells.check_cells(column, np.isnan(numbers), found="{}", wanted=number)
    cells.check_cells(
        column, np.isinf(numbers), found="an infinite value", wanted="a finite number: leave such rows out"
    )
    return numbers


def _select_columns(table: pd.DataFrame, columns: Iterable[str]) -> list[str]:
    names = [columns] if isinstance(columns, str) else [str(name) for name in columns]
    for index, name in enumerate(names):
        check_column(table, name)
        if name in names[:index]:
            raise ValueError(f"column {name!r} is named twice; wanted each once.")
    return names
