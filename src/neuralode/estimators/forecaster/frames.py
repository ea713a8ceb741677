"""Between a forecaster and its tables: how they are read, times asked about, frames of answers, tables in pieces."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, cast

import numpy as np
import pandas as pd
import torch
from sklearn.base import BaseEstimator
from sklearn.utils.validation import validate_data
from torch import Tensor

from neuralode.data.tables import cells
from neuralode.data.tables.series import SeriesTable, Source, read_series, read_table
from neuralode.data.tables.timeline import Clock

QUANTILES = (0.05, 0.5, 0.95)
OURS = r"channel|mean|q\d+(\.\d+)?"  # columns of answers, which ids and times stand beside


def first_table(
    estimator: BaseEstimator, X: Any, series: str | None, time: str | None, values: Iterable[str] | None
) -> tuple[SeriesTable, Source, bool]:
    """The table that an estimator learns from; where it was read; and whether its columns go by their names alone.

    Other tables, arrays and frames without a role for any column, are checked in scikit-learn's way: the estimator
    remembers how many columns they have, and what these are called.
    """
    columns = {"series": series, "time": time, "values": values}
    given = [name for name, column in columns.items() if column is not None]
    taken = [name for name in ("series", "time") if re.fullmatch(OURS, str(columns[name]))]
    if taken:
        name = columns[taken[0]]
        raise ValueError(f"{taken[0]}={name!r} is what a column of every answer is called; wanted it under another.")
    if isinstance(X, str | os.PathLike) or (isinstance(X, pd.DataFrame) and given):
        vars(estimator).pop("feature_names_in_", None)  # of an earlier fit
        table = read_series(X, **columns)
        vars(estimator)["n_features_in_"] = len(table.channels)
        return table, X, True
    if given:
        raise ValueError(f"{given[0]} names a column, but X is a {type(X).__name__}; wanted a frame or a path.")
    source = _checked(estimator, X, reset=True)
    return read_series(source), source, False


def next_table(estimator: BaseEstimator, X: Any, first: SeriesTable, named: bool) -> tuple[SeriesTable, Source]:
    """Another table, with the channels of the ``first`` one, and where it was read."""
    alike: dict[str, Any] = {"clock": first.clock, "new": True}
    if isinstance(X, str | os.PathLike) or (isinstance(X, pd.DataFrame) and named):
        columns = {"series": first.series_column, "time": first.time_column, "values": first.channels}
        return read_series(X, **columns, **alike), X
    source = _checked(estimator, X, reset=False)
    return read_series(source, channels=first.channels, **alike), source


def _checked(estimator: BaseEstimator, X: Any, reset: bool) -> Source:
    """A single series as scikit-learn would have it checked."""
    if isinstance(X, pd.DataFrame):  # its cells are read, and its index may be the time
        validate_data(estimator, cast(Any, X), reset=reset, skip_check_array=True)
        return X
    array = validate_data(
        estimator, X, reset=reset, dtype=np.float64, ensure_all_finite=False, ensure_min_samples=2 if reset else 1
    )
    if np.isinf(array).any():
        raise ValueError("X contains infinity; wanted finite values, or NaN for a gap.")
    return np.asarray(array)


def row_times(source: Source, table: SeriesTable) -> list[np.ndarray]:
    """The times of all rows of where a table was read, series by series, also of those without any value.

    Examples
    --------
    >>> rows = np.array([[1.0], [np.nan], [3.0]])
    >>> row_times(rows, read_series(rows))
    [array([0., 1., 2.])]
    """
    rows = read_table(source)
    roles = {table.series_column, table.time_column} - {None, *rows.columns}
    rows = rows.reset_index(level=[name for name in rows.index.names if name in roles]) if roles else rows
    codes = np.zeros(len(rows), dtype=np.int64)
    if table.series_column is not None:
        codes, _ = pd.factorize(cells.tidy(cast(pd.Series, rows[table.series_column]), table.series_column))
    if table.time_column is not None:
        when = table.clock.numbers(cast(pd.Series, rows[table.time_column]), table.time_column)
    elif isinstance(rows.index, pd.DatetimeIndex):
        when = table.clock.numbers(rows.index)
    else:
        when = pd.Series(codes).groupby(codes).cumcount().to_numpy(np.float64)
    order = np.argsort(codes, kind="stable")
    cuts = np.searchsorted(codes[order], np.arange(1, len(table)))
    return [np.unique(times) for times in np.split(when[order], cuts)]


def time_name(table: SeriesTable) -> str:
    """What the column of times is called in answers about a table, also where it has none."""
    return table.time_column or free_name("time", () if table.series_column is None else (table.series_column,))


def free_name(name: str, taken: Iterable[str]) -> str:
    """The name, behind as many underscores as tell it from those that are taken.

    Examples
    --------
    >>> free_name("time", ["time", "_time"])
    '__time'
    """
    taken = set(taken)
    while name in taken:
        name = f"_{name}"
    return name


def wanted_times(table: SeriesTable, times: Any) -> list[np.ndarray]:
    """The times asked of each series, as numbers: of one collection for all, or of a mapping with one for each.

    Raises
    ------
    ValueError
        For a series that is not there or left out, no time, or one before the first observation.
    """
    if not isinstance(times, Iterable) or isinstance(times, str):
        raise ValueError(f"times={times!r}; wanted a collection of times, or a mapping with one for each series.")
    wanted = []
    for name, first, at in zip(table.names, table.times, _of_each(table, times), strict=True):
        column = pd.Series(list(at), name="times")
        whose = "" if name is None else f" of series {name!r}"
        if not len(column):
            raise ValueError(f"times is empty{whose}; wanted at least one.")
        numbers = table.clock.numbers(column, "times")
        if (numbers < first[0]).any():
            told = table.clock.labels(np.array([numbers.min(), first[0]]))
            raise ValueError(f"times has {told[0]}, before the first observation{whose} at {told[1]}.")
        wanted.append(numbers)
    return wanted


def answers_frame(
    table: SeriesTable,
    wanted: Sequence[np.ndarray],
    drawn: Sequence[tuple[np.ndarray, np.ndarray]],
    quantiles: Sequence[float],
) -> pd.DataFrame:
    """A row for each series, time and channel: the mean of the means drawn, quantiles of the observations drawn."""
    frames, channels = [], len(table.channels)
    for name, at, (means, values) in zip(table.names, wanted, drawn, strict=True):
        columns: dict[str, Any] = {}
        if table.series_column is not None:
            columns[table.series_column] = [name] * (len(at) * channels)
        columns[time_name(table)] = table.clock.labels(at).repeat(channels)
        columns["channel"] = np.tile(np.array(table.channels, dtype=object), len(at))
        columns["mean"] = means.mean(0).reshape(-1)
        for q, row in zip(quantiles, np.quantile(values, list(quantiles), axis=0), strict=True):
            columns[quantile_name(q)] = row.reshape(-1)
        frames.append(pd.DataFrame(columns))
    return pd.concat(frames, ignore_index=True)


def filled_frame(
    table: SeriesTable, rows: Sequence[np.ndarray], asked: Sequence[np.ndarray], means: Sequence[np.ndarray]
) -> pd.DataFrame:
    """A table in long form, its gaps filled: all ``rows``, what was seen, and else the means at times ``asked``."""
    filled = []
    for at, seen_at, seen, wanted, mean in zip(rows, table.times, table.values, asked, means, strict=True):
        values = np.full((len(at), len(table.channels)), np.nan)
        values[np.searchsorted(at, wanted)] = mean
        places = np.searchsorted(at, seen_at)
        values[places] = np.where(np.isnan(seen), values[places], seen)
        filled.append(values)
    return replace(table, times=tuple(rows), values=tuple(filled)).frame()


def check_quantiles(quantiles: Sequence[float]) -> None:
    """Refuse what are no quantiles."""
    if not len(quantiles) or any(not 0 < q < 1 for q in quantiles):
        raise ValueError(f"quantiles={tuple(quantiles)!r}; wanted numbers between 0 and 1.")


def quantile_name(q: float) -> str:
    """What the column of a quantile is called.

    Examples
    --------
    >>> quantile_name(0.05), quantile_name(0.975)
    ('q05', 'q97.5')
    """
    percent = round(100 * q, 6)
    return f"q{percent:02.0f}" if percent == round(percent) else f"q{percent:g}"


def table_parts(table: SeriesTable, rows: Sequence[np.ndarray]) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """A table, and the times of all its rows, as plain JSON and tensors."""
    told = {
        "names": list(table.names),
        "channels": list(table.channels),
        "clock": table.clock.to_json(),
        "series_column": table.series_column,
        "time_column": table.time_column,
        "lengths": [len(times) for times in table.times],
        "rows": [len(times) for times in rows],
    }
    tensors = {
        "table.times": torch.tensor(np.concatenate(table.times)),
        "table.values": torch.tensor(np.concatenate(table.values)),
        "table.rows": torch.tensor(np.concatenate(rows)),
    }
    return told, tensors


def table_from_parts(told: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> tuple[SeriesTable, list[np.ndarray]]:
    """The table, and the times of all its rows, that `table_parts` took to pieces."""

    def split(part: str, lengths: str) -> list[np.ndarray]:
        return np.split(tensors[f"table.{part}"].numpy(), np.cumsum(told[lengths])[:-1])

    table = SeriesTable(
        tuple(told["names"]),
        tuple(split("times", "lengths")),
        tuple(split("values", "lengths")),
        tuple(told["channels"]),
        Clock.from_json(told["clock"]),
        told["series_column"],
        told["time_column"],
    )
    return table, split("rows", "rows")


def _of_each(table: SeriesTable, times: Any) -> list[Any]:
    if not isinstance(times, Mapping):
        return [times] * len(table.names)
    unknown = [name for name in times if name not in table.names]
    missing = [name for name in table.names if name not in times]
    if unknown:
        raise ValueError(f"times names series {unknown[0]!r}, which the table does not have.")
    if missing:
        raise ValueError(f"times has nothing for series {missing[0]!r}; wanted a collection of times for each.")
    return [times[name] for name in table.names]
