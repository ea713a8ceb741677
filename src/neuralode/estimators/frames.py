"""Between a forecaster and its tables: times that are asked about, frames of answers, and a table taken to pieces."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from neuralode.data.tables import SeriesTable
from neuralode.data.timeline import Clock

QUANTILES = (0.05, 0.5, 0.95)


def wanted_times(table: SeriesTable, times: Any) -> list[np.ndarray]:
    """The times asked of each series, as numbers: of one collection for all, or of a mapping with one for each.

    Raises
    ------
    ValueError
        For a series that is not there or left out, no time, or one before the first observation.
    """
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
    if not len(quantiles) or any(not 0 < q < 1 for q in quantiles):
        raise ValueError(f"quantiles={tuple(quantiles)!r}; wanted numbers between 0 and 1.")
    frames, channels = [], len(table.channels)
    for name, at, (means, values) in zip(table.names, wanted, drawn, strict=True):
        columns: dict[str, Any] = {}
        if table.series_column is not None:
            columns[table.series_column] = [name] * (len(at) * channels)
        columns[table.time_column or "time"] = table.clock.labels(at).repeat(channels)
        columns["channel"] = np.tile(np.array(table.channels, dtype=object), len(at))
        columns["mean"] = means.mean(0).reshape(-1)
        for q, row in zip(quantiles, np.quantile(values, list(quantiles), axis=0), strict=True):
            columns[quantile_name(q)] = row.reshape(-1)
        frames.append(pd.DataFrame(columns))
    return pd.concat(frames, ignore_index=True)


def quantile_name(q: float) -> str:
    """What the column of a quantile is called.

    Examples
    --------
    >>> quantile_name(0.05), quantile_name(0.975)
    ('q05', 'q97.5')
    """
    percent = round(100 * q, 6)
    return f"q{percent:02.0f}" if percent == round(percent) else f"q{percent:g}"


def table_parts(table: SeriesTable) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """A table as plain JSON and tensors."""
    told = {
        "names": list(table.names),
        "channels": list(table.channels),
        "clock": table.clock.to_json(),
        "series_column": table.series_column,
        "time_column": table.time_column,
        "lengths": [len(times) for times in table.times],
    }
    tensors = {
        "table.times": torch.tensor(np.concatenate(table.times)),
        "table.values": torch.tensor(np.concatenate(table.values)),
    }
    return told, tensors


def table_from_parts(told: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> SeriesTable:
    """The table that `table_parts` took to pieces."""
    cuts = np.cumsum(told["lengths"])[:-1]
    times, values = (tuple(np.split(tensors[f"table.{part}"].numpy(), cuts)) for part in ("times", "values"))
    return SeriesTable(
        tuple(told["names"]),
        times,
        values,
        tuple(told["channels"]),
        Clock.from_json(told["clock"]),
        told["series_column"],
        told["time_column"],
    )


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
