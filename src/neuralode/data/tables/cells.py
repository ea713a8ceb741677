"""The cells of a column: conversion to numbers, and error messages that name the first invalid cell."""

from __future__ import annotations

from typing import Any

import numpy as np

from neuralode.core.extras import require

require("series", "pandas", "pyarrow")

# These imports need the extra above.
import pandas as pd  # noqa: E402
from pandas.api import types  # noqa: E402

QUOTED_LENGTH = 60  # characters of a cell in an error message, at most


def normalize(column: pd.Series | pd.Index, name: str) -> pd.Series:
    """Return the column under ``name``, indexed by row number; blank text becomes missing."""
    column = pd.Series(column, name=name).reset_index(drop=True)
    if types.is_numeric_dtype(column) or types.is_datetime64_any_dtype(column):
        return column
    blank = column.astype("string").str.strip() == ""
    return column.astype(object).mask(blank.fillna(False).astype(bool))


def to_numbers(column: pd.Series) -> np.ndarray:
    """Return the numbers in a column as float64: numeric cells, True and False, and numeric text; NaN elsewhere."""
    column = column.convert_dtypes() if column.dtype == object else column  # booleans with gaps are objects
    if not types.is_numeric_dtype(column) or types.is_complex_dtype(column):
        column = pd.Series(pd.to_numeric(column.astype("string"), errors="coerce"))
    return column.to_numpy(dtype=np.float64, na_value=np.nan)


def check_cells(column: pd.Series, invalid: Any, *, found: str, wanted: str, ids: pd.Series | None = None) -> None:
    """Raise `ValueError` for the first invalid cell of a column.

    Parameters
    ----------
    column : Series
        The column.
    invalid : array [rows] of bool
        Which cells are invalid.
    found : str
        What the cell holds, for the message; ``{}`` stands for the cell itself.
    wanted : str
        What is expected, for the message.
    ids : Series, optional
        Ids of the series, which the message names as well.

    Examples
    --------
    >>> pulse = pd.Series([71.0, -1.0], name="pulse")
    >>> check_cells(pulse, pulse < 0, found="{}", wanted="a positive number")
    Traceback (most recent call last):
    ...
    ValueError: column 'pulse' has -1.0 at row 2; wanted a positive number.
    """
    invalid = np.asarray(invalid, dtype=bool)
    if invalid.any():
        row = int(np.argmax(invalid))
        content = found.format(quote(column.iloc[row]))
        raise ValueError(f"column {column.name!r} has {content} at {row_label(row, ids)}; wanted {wanted}.")


def row_label(row: int, ids: pd.Series | None) -> str:
    """Return the row number counted from 1, with the id of its series."""
    return f"row {row + 1}" if ids is None else f"row {row + 1} (series {quote(ids.iloc[row : row + 1].tolist()[0])})"


def quote(cell: object) -> str:
    """Return a cell as error messages quote it."""
    text = repr(cell) if isinstance(cell, str) else str(cell)
    return text if len(text) <= QUOTED_LENGTH else f"{text[: QUOTED_LENGTH - 1]}…"


def list_names(names: Any) -> str:
    """Return names as error messages list them."""
    return ", ".join(repr(str(name)) for name in names)
