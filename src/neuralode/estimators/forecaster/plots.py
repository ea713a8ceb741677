"""Plots of forecasts and imputations: observations, means and prediction intervals."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from neuralode.data.tables.series import SeriesTable
from neuralode.estimators.forecaster.output_tables import time_column_name

MAX_SERIES, MAX_CHANNELS = 4, 4  # in one figure


def plot_predictions(
    table: SeriesTable, predictions: pd.DataFrame, path: Path, *, low: str = "q05", high: str = "q95", title: str = ""
) -> Path:
    """Plot the observations of a table and predictions for it, and return the path of the figure.

    Parameters
    ----------
    table : SeriesTable
        The observations.
    predictions : DataFrame
        Predictions of `LatentODEForecaster.predict`, with the quantiles ``low`` and ``high``.
    path : Path
        File to write.
    low : str, default='q05'
        Column of the lower bound of the interval.
    high : str, default='q95'
        Column of the upper bound of the interval.
    title : str, default=''
        Title of the figure.
    """
    time = time_column_name(table)
    names, channels = table.names[:MAX_SERIES], table.channels[:MAX_CHANNELS]
    figure = Figure(figsize=(4.8 * len(names) + 0.6, 2.3 * len(channels) + 0.7), layout="constrained")
    grid = figure.subplots(len(channels), len(names), squeeze=False, sharex="col")
    for column, name in enumerate(names):
        rows = predictions if table.series_column is None else predictions.loc[predictions[table.series_column] == name]
        for row, channel in enumerate(channels):
            axes: Axes = grid[row, column]
            predicted = rows.loc[rows["channel"] == channel].sort_values(by=time)
            at = _without_zone(predicted[time])
            axes.fill_between(at, predicted[low], predicted[high], alpha=0.25, color="C0", lw=0, label="90 % of draws")
            axes.plot(at, predicted["mean"], color="C0", label="mean")
            _plot_observations(axes, table, series=column, channel=row)
            if not column:
                axes.set_ylabel(channel)
            if not row and name is not None:
                axes.set_title(f"{table.series_column} {name}")
        _label_times(grid[-1, column], table, series=column)
    grid[0, 0].legend(fontsize=8, loc="best")
    omitted = _omitted(table)
    if title or omitted:
        figure.suptitle(title + omitted, fontsize=10)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=150)
    return path


def _plot_observations(axes: Axes, table: SeriesTable, *, series: int, channel: int) -> None:
    times, values = _without_zone(table.clock.labels(table.times[series])), table.values[series][:, channel]
    observed = np.isfinite(values)
    axes.plot(times[observed], values[observed], "o", ms=3, color="0.2", label="observed")
    axes.grid(alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)


def _label_times(axes: Axes, table: SeriesTable, *, series: int) -> None:
    axes.set_xlabel(time_column_name(table))
    if table.clock.kind == "timestamp":
        axes.tick_params(axis="x", rotation=30)
    elif not (table.times[series] % 1).any():
        axes.xaxis.set_major_locator(MaxNLocator("auto", integer=True))


def _without_zone(times: Any) -> np.ndarray:
    """Return local times without their time zone: matplotlib would convert them to UTC."""
    index = pd.Index(times)
    return np.asarray(index.tz_localize(None) if isinstance(index, pd.DatetimeIndex) else index)


def _omitted(table: SeriesTable) -> str:
    counts = ((len(table.names), MAX_SERIES, "series"), (len(table.channels), MAX_CHANNELS, "channels"))
    parts = [f"{shown} of {count} {what}" for count, shown, what in counts if count > shown]
    return f" ({', '.join(parts)})" if parts else ""
