"""Tables that a forecaster reads: that of `fit`, and new ones in the same way. The former is saved with it."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple, cast

import numpy as np
import pandas as pd
import torch
from sklearn.base import BaseEstimator
from sklearn.utils.validation import validate_data
from torch import Tensor

from neuralode.data.tables import cells
from neuralode.data.tables.series import SeriesTable, read_series
from neuralode.data.tables.source import Source, read_table
from neuralode.data.tables.timestamps import Clock
from neuralode.estimators.forecaster.output_tables import RESERVED_COLUMNS


class InputTable(NamedTuple):
    """A table as it was read.

    Attributes
    ----------
    table : SeriesTable
        The observations.
    row_times : list of arrays
        The times of all rows of each series, including rows without any value.
    """

    table: SeriesTable
    row_times: Sequence[np.ndarray]


def read_training_table(
    estimator: BaseEstimator, X: Any, *, series: str | None, time: str | None, values: Iterable[str] | None
) -> tuple[InputTable, bool]:
    """Read the table that an estimator learns from.

    Arrays, and frames without a role for any column, are validated as scikit-learn does: the estimator records the
    number and the names of the columns, and other tables must match.

    Parameters
    ----------
    estimator : BaseEstimator
        Its ``n_features_in_`` and ``feature_names_in_`` are set.
    X : DataFrame, array or path
        The table.
    series, time, values
        As in `neuralode.estimators.LatentODEForecaster.fit`.

    Returns
    -------
    InputTable
        The table.
    by_name : bool
        Whether columns of other tables are selected by their names alone.

    Raises
    ------
    ValueError
        For a table that cannot be used.
    """
    columns = {"series": series, "time": time, "values": values}
    given = [name for name, column in columns.items() if column is not None]
    reserved = [role for role in ("series", "time") if re.fullmatch(RESERVED_COLUMNS, str(columns[role]))]
    if reserved:
        name = columns[reserved[0]]
        raise ValueError(f"{reserved[0]}={name!r} is the name of a column of predictions; wanted another name.")
    if isinstance(X, str | os.PathLike) or (isinstance(X, pd.DataFrame) and given):
        vars(estimator).pop("feature_names_in_", None)  # set by an earlier fit
        table = read_series(X, **columns)
        vars(estimator)["n_features_in_"] = len(table.channels)
        return InputTable(table, read_row_times(X, table)), True
    if given:
        raise ValueError(f"{given[0]} names a column, but X is a {type(X).__name__}; wanted a frame or a path.")
    source = _validate(estimator, X, reset=True)
    table = read_series(source)
    return InputTable(table, read_row_times(source, table)), False


def read_new_table(estimator: BaseEstimator, X: Any, *, like: SeriesTable, by_name: bool) -> InputTable:
    """Read a table with the channels of the one that an estimator learned from, ``like``."""
    options: dict[str, Any] = {"clock": like.clock, "new": True}
    if isinstance(X, str | os.PathLike) or (isinstance(X, pd.DataFrame) and by_name):
        source: Source = X
        columns = {"series": like.series_column, "time": like.time_column, "values": like.channels}
        table = read_series(source, **columns, **options)
    else:
        source = _validate(estimator, X, reset=False)
        table = read_series(source, channels=like.channels, **options)
    return InputTable(table, read_row_times(source, table))


def read_row_times(source: Source, table: SeriesTable) -> list[np.ndarray]:
    """Return the times of all rows of each series, including rows without any value.

    Parameters
    ----------
    source : DataFrame, array or path
        Where the table was read from.
    table : SeriesTable
        The table.

    Examples
    --------
    >>> rows = np.array([[1.0], [np.nan], [3.0]])
    >>> read_row_times(rows, read_series(rows))
    [array([0., 1., 2.])]
    """
    rows = read_table(source)
    roles = {table.series_column, table.time_column} - {None, *rows.columns}
    rows = rows.reset_index(level=[name for name in rows.index.names if name in roles]) if roles else rows
    codes = np.zeros(len(rows), dtype=np.int64)
    if table.series_column is not None:
        codes, _ = pd.factorize(cells.normalize(cast(pd.Series, rows[table.series_column]), table.series_column))
    if table.time_column is not None:
        times = table.clock.numbers(cast(pd.Series, rows[table.time_column]), table.time_column)
    elif isinstance(rows.index, pd.DatetimeIndex):
        times = table.clock.numbers(rows.index)
    else:
        times = pd.Series(codes).groupby(codes).cumcount().to_numpy(np.float64)
    order = np.argsort(codes, kind="stable")
    boundaries = np.searchsorted(codes[order], np.arange(1, len(table)))
    return [np.unique(part) for part in np.split(times[order], boundaries)]


def table_to_state(table: SeriesTable, row_times: Sequence[np.ndarray]) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Return a table and the times of all its rows as a dict that JSON can hold, and tensors."""
    config = {
        "names": list(table.names),
        "channels": list(table.channels),
        "clock": table.clock.to_json(),
        "series_column": table.series_column,
        "time_column": table.time_column,
        "lengths": [len(times) for times in table.times],
        "rows": [len(times) for times in row_times],
    }
    tensors = {
        "table.times": torch.tensor(np.concatenate(table.times)),
        "table.values": torch.tensor(np.concatenate(table.values)),
        "table.rows": torch.tensor(np.concatenate(row_times)),
    }
    return config, tensors


def table_from_state(config: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> InputTable:
    """Return the table that `table_to_state` described."""

    def split(part: str, lengths: str) -> list[np.ndarray]:
        return np.split(tensors[f"table.{part}"].numpy(), np.cumsum(config[lengths])[:-1])

    table = SeriesTable(
        names=tuple(config["names"]),
        times=tuple(split("times", "lengths")),
        values=tuple(split("values", "lengths")),
        channels=tuple(config["channels"]),
        clock=Clock.from_json(config["clock"]),
        series_column=config["series_column"],
        time_column=config["time_column"],
    )
    return InputTable(table, split("rows", "rows"))


def _validate(estimator: BaseEstimator, X: Any, reset: bool) -> Source:
    """Return a single series after scikit-learn's checks."""
    if isinstance(X, pd.DataFrame):  # cells are checked later, and the index may be the time
        validate_data(estimator, cast(Any, X), reset=reset, skip_check_array=True)
        return X
    checks: dict[str, Any] = {"ensure_all_finite": False, "ensure_min_samples": 2 if reset else 1}
    array = validate_data(estimator, X, reset=reset, dtype=np.float64, **checks)
    if np.isinf(array).any():
        raise ValueError("X contains infinity; wanted finite values, or NaN for a gap.")
    return np.asarray(array)
