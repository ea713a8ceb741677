"""Pictures of forecasts and fillings: what was seen, what is expected, and how sure of it one can be."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from neuralode.data.tables.series import SeriesTable
from neuralode.estimators.forecaster.frames import time_name

SERIES, CHANNELS = 4, 4  # that one picture has room for


def plot_answers(
    table: SeriesTable, answers: pd.DataFrame, path: Path, *, low: str = "q05", high: str = "q95", title: str = ""
) -> Path:
    """Draw the observations of a table and, over them, answers of a forecaster; return the file written.

    Parameters
    ----------
    table : SeriesTable
        What was seen.
    answers : DataFrame
        As `LatentODEForecaster.predict` gives them, with the quantiles ``low`` and ``high``.
    path : Path
        Where the picture goes.
    """
    time = time_name(table)
    names, channels = table.names[:SERIES], table.channels[:CHANNELS]
    figure = Figure(figsize=(4.8 * len(names) + 0.6, 2.3 * len(channels) + 0.7), layout="constrained")
    grid = figure.subplots(len(channels), len(names), squeeze=False, sharex="col")
    for column, name in enumerate(names):
        seen_at = np.asarray(_wall(table.clock.labels(table.times[column])))
        own = answers if table.series_column is None else answers.loc[answers[table.series_column] == name]
        for row, channel in enumerate(channels):
            axes: Any = grid[row, column]
            told = own.loc[own["channel"] == channel].sort_values(by=time)
            at = np.asarray(_wall(told[time]))
            axes.fill_between(at, told[low], told[high], alpha=0.25, color="C0", lw=0, label="90 % of draws")
            axes.plot(at, told["mean"], color="C0", label="mean")
            values = table.values[column][:, row]
            seen = np.isfinite(values)
            axes.plot(seen_at[seen], values[seen], "o", ms=3, color="0.2", label="observed")
            axes.grid(alpha=0.3)
            axes.spines[["top", "right"]].set_visible(False)
            if not column:
                axes.set_ylabel(channel)
            if not row and name is not None:
                axes.set_title(f"{table.series_column} {name}")
        grid[-1, column].set_xlabel(time)
        if table.clock.kind == "timestamp":
            grid[-1, column].tick_params(axis="x", rotation=30)
        elif not (table.times[column] % 1).any():
            grid[-1, column].xaxis.set_major_locator(MaxNLocator("auto", integer=True))
    grid[0, 0].legend(fontsize=8, loc="best")
    more = _left_out(table)
    if title or more:
        figure.suptitle(title + more, fontsize=10)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=150)
    return path


def _wall(times: Any) -> pd.DatetimeIndex | pd.Index:
    """Timestamps as clocks on the wall show them: axes would turn those of a zone into UTC."""
    index = pd.Index(times)
    return index.tz_localize(None) if isinstance(index, pd.DatetimeIndex) else index


def _left_out(table: SeriesTable) -> str:
    kinds: Sequence[tuple[int, int, str]] = (
        (len(table.names), SERIES, "series"),
        (len(table.channels), CHANNELS, "channels"),
    )
    parts = [f"{most} of {count} {what}" for count, most, what in kinds if count > most]
    return f" ({', '.join(parts)})" if parts else ""
