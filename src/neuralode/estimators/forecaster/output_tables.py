"""Tables that a forecaster returns, and the target times and quantiles that they are requested for."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd

from neuralode.data.tables.series import SeriesTable
from neuralode.estimators.forecaster.prediction import Draws

QUANTILES = (0.05, 0.5, 0.95)
RESERVED_COLUMNS = r"channel|mean|q\d+(\.\d+)?"  # of predictions, beside those of ids and times


def predictions_frame(
    table: SeriesTable, targets: Sequence[np.ndarray], draws: Sequence[Draws], *, quantiles: Sequence[float]
) -> pd.DataFrame:
    """Return a row for each series, time and channel, with the mean and quantiles of what would be observed."""
    frames, channels = [], len(table.channels)
    for name, times, (means, values) in zip(table.names, targets, draws, strict=True):
        columns: dict[str, Any] = {}
        if table.series_column is not None:
            columns[table.series_column] = [name] * (len(times) * channels)
        columns[time_column_name(table)] = table.clock.labels(times).repeat(channels)
        columns["channel"] = np.tile(np.array(table.channels, dtype=object), len(times))
        columns["mean"] = means.mean(0).reshape(-1)
        for q, row in zip(quantiles, np.quantile(values, list(quantiles), axis=0), strict=True):
            columns[quantile_name(q)] = row.reshape(-1)
        frames.append(pd.DataFrame(columns))
    return pd.concat(frames, ignore_index=True)


def imputed_frame(
    table: SeriesTable,
    row_times: Sequence[np.ndarray],
    *,
    targets: Sequence[np.ndarray],
    means: Sequence[np.ndarray],
) -> pd.DataFrame:
    """Return the table in long form, at all ``row_times``: observed values, and else the means at the targets."""
    imputed = []
    for index, times in enumerate(row_times):
        values = np.full((len(times), len(table.channels)), np.nan)
        values[np.searchsorted(times, targets[index])] = means[index]
        rows, observed = np.searchsorted(times, table.times[index]), table.values[index]
        values[rows] = np.where(np.isnan(observed), values[rows], observed)
        imputed.append(values)
    return replace(table, times=tuple(row_times), values=tuple(imputed)).frame()


def parse_target_times(table: SeriesTable, times: Any) -> list[np.ndarray]:
    """Return the target times of each series as numbers.

    Parameters
    ----------
    table : SeriesTable
        The series.
    times : collection, or mapping from series to collections
        One collection for all series, or one for each.

    Raises
    ------
    ValueError
        For series that are unknown or missing, no times, or times before the first observation.
    """
    if not isinstance(times, Iterable) or isinstance(times, str):
        raise ValueError(f"times={times!r}; wanted a collection of times, or a mapping with one for each series.")
    targets = []
    for name, observed, at in zip(table.names, table.times, _for_each_series(table, times), strict=True):
        column = pd.Series(list(at), name="times")
        of_series = "" if name is None else f" of series {name!r}"
        if not len(column):
            raise ValueError(f"times is empty{of_series}; wanted at least one.")
        numbers = table.clock.numbers(column, "times")
        if (numbers < observed[0]).any():
            earliest, first = table.clock.labels(np.array([numbers.min(), observed[0]]))
            raise ValueError(f"times has {earliest}, before the first observation{of_series} at {first}.")
        targets.append(numbers)
    return targets


def check_quantiles(quantiles: Sequence[float]) -> None:
    """Raise `ValueError` unless there are quantiles, all between 0 and 1."""
    if not len(quantiles) or any(not 0 < q < 1 for q in quantiles):
        raise ValueError(f"quantiles={tuple(quantiles)!r}; wanted numbers between 0 and 1.")


def quantile_name(q: float) -> str:
    """Return the name of the column of a quantile.

    Examples
    --------
    >>> quantile_name(0.05), quantile_name(0.975)
    ('q05', 'q97.5')
    """
    percent = round(100 * q, 6)
    return f"q{percent:02.0f}" if percent == round(percent) else f"q{percent:g}"


def time_column_name(table: SeriesTable) -> str:
    """Return the name of the column of times in predictions for a table, which may have no such column itself."""
    return table.time_column or unused_name("time", () if table.series_column is None else (table.series_column,))


def unused_name(name: str, used: Iterable[str]) -> str:
    """Return ``name`` with as many underscores before it as distinguish it from the names that are used.

    Examples
    --------
    >>> unused_name("time", ["time", "_time"])
    '__time'
    """
    used = set(used)
    while name in used:
        name = f"_{name}"
    return name


def _for_each_series(table: SeriesTable, times: Any) -> list[Any]:
    if not isinstance(times, Mapping):
        return [times] * len(table.names)
    unknown = [name for name in times if name not in table.names]
    missing = [name for name in table.names if name not in times]
    if unknown:
        raise ValueError(f"times names series {unknown[0]!r}, which the table does not have.")
    if missing:
        raise ValueError(f"times has nothing for series {missing[0]!r}; wanted a collection of times for each.")
    return [times[name] for name in table.names]
