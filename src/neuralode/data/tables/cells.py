"""The cells of a column: as numbers, and the sentence for the first one that is wrong."""

from __future__ import annotations

from typing import Any

import numpy as np

from neuralode.core.extras import require

require("series", "pandas", "pyarrow")

import pandas as pd  # noqa: E402  (after the sentence above)
from pandas.api import types  # noqa: E402


def tidy(column: pd.Series | pd.Index, name: str) -> pd.Series:
    """The column under a name and by row number; blank text is missing."""
    column = pd.Series(column, name=name).reset_index(drop=True)
    if types.is_numeric_dtype(column) or types.is_datetime64_any_dtype(column):
        return column
    blank = column.astype("string").str.strip() == ""
    return column.astype(object).mask(blank.fillna(False).astype(bool))


def numbers(column: pd.Series) -> np.ndarray:
    """Float64, NaN where there is none: numbers, True and False, and text that is a number."""
    column = column.convert_dtypes() if column.dtype == object else column  # True and False with gaps are objects
    if not types.is_numeric_dtype(column) or types.is_complex_dtype(column):
        column = pd.Series(pd.to_numeric(column.astype("string"), errors="coerce"))
    return column.to_numpy(dtype=np.float64, na_value=np.nan)


def refuse(wrong: Any, column: pd.Series, has: str, wanted: str, ids: pd.Series | None = None) -> None:
    """Raise for the first row that is wrong, if any; ``{}`` in what it has is the cell."""
    wrong = np.asarray(wrong, dtype=bool)
    if wrong.any():
        row = int(np.argmax(wrong))
        found = has.format(shown(column.iloc[row]))
        raise ValueError(f"column {column.name!r} has {found} at {place(row, ids)}; wanted {wanted}.")


def place(row: int, ids: pd.Series | None) -> str:
    """Which row that is, as people count, and of which series."""
    return f"row {row + 1}" if ids is None else f"row {row + 1} (series {shown(ids.iloc[row : row + 1].tolist()[0])})"


def shown(cell: object) -> str:
    """A cell as a sentence quotes it."""
    text = repr(cell) if isinstance(cell, str) else str(cell)
    return text if len(text) <= 60 else f"{text[:59]}…"
