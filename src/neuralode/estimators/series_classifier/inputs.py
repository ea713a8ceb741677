"""The forms of series that `SeriesClassifier` accepts, all read as `Observations` in float64."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from os import PathLike
from typing import Any, cast

import numpy as np
import pandas as pd
import torch

from neuralode.data.tables.series import read_series
from neuralode.data.tables.source import Source, check_column, read_table
from neuralode.data.tables.timestamps import Clock
from neuralode.nn import Observations


def is_table(X: object) -> bool:
    """Return whether X can be a table in long form, with a row for each time of a series."""
    return isinstance(X, str | PathLike | pd.DataFrame)


@dataclass(frozen=True)
class TableColumns:
    """The roles of the columns of a table in long form, so that other tables are read in the same way.

    Parameters
    ----------
    series : str
        Column that identifies the series.
    time : str or None
        Column of times; row numbers within the series if None.
    label : str or None
        Column of labels.
    values : tuple of str
        Columns of measurements.
    clock : Clock
        The conversion of times to numbers.
    """

    series: str
    time: str | None
    label: str | None
    values: tuple[str, ...]
    clock: Clock

    def read(self, source: Source) -> Observations:
        """Return the series of another table; columns without a role, and labels, are ignored."""
        table = read_series(source, series=self.series, time=self.time, values=self.values, clock=self.clock, new=True)
        return Observations.gather(table.pairs(), dtype=torch.float64)

    def to_json(self) -> dict[str, Any]:
        """Return a dict that JSON can hold, for `from_json`."""
        return asdict(self)

    @classmethod
    def from_json(cls, content: dict[str, Any]) -> TableColumns:
        """Return the columns that `to_json` described."""
        return cls(**{**content, "values": tuple(content["values"]), "clock": Clock.from_json(content["clock"])})


def read_training_table(
    source: Source, *, series: str | None, time: str | None, label: str | None, values: Iterable[str] | None
) -> tuple[Observations, TableColumns, np.ndarray | None]:
    """Return the series of a table in long form, the roles of its columns, and the labels if a column has them.

    Parameters
    ----------
    source : DataFrame or path
        The table.
    series, time, label, values
        As in `neuralode.estimators.SeriesClassifier.fit`.

    Raises
    ------
    ValueError
        For a table that cannot be read as series; the message names column and row.

    Examples
    --------
    >>> frame = pd.DataFrame({"who": [1, 1, 2], "day": [0, 1, 0], "pulse": [70.0, 80.0, 90.0], "ill": ["y", "y", "n"]})
    >>> observed, columns, labels = read_training_table(frame, series="who", time="day", label="ill", values=None)
    >>> len(observed), columns.values, labels.tolist()
    (2, ('pulse',), ['y', 'n'])
    """
    if series is None:
        raise ValueError("series is not given; wanted the column of the table that identifies the series.")
    table = read_table(source)
    values = [values] if isinstance(values, str) else None if values is None else list(values)
    if label is not None:
        if label in (series, time, *(values or ())):
            raise ValueError(f"column {label!r} is given for label and for another role; wanted one role a column.")
        check_column(table, label, "label")
    if values is None and label is not None:
        values = [name for name in table.columns if name not in (series, time, label)]
    read = read_series(table, series=series, time=time, values=values)
    columns = TableColumns(series=series, time=time, label=label, values=read.channels, clock=read.clock)
    labels = None if label is None else read_labels(table, series, label)
    return Observations.gather(read.pairs(), dtype=torch.float64), columns, labels


def read_labels(source: Source, series: str, label: str) -> np.ndarray:
    """Return the label of each series of a table, in the order of their first rows.

    Raises
    ------
    ValueError
        If a series has no label, or more than one.
    """
    table = read_table(source)
    check_column(table, label, "label")
    if series in table.index.names and series not in table.columns:
        table = table.reset_index(level=series)
    codes, ids = pd.factorize(cast(pd.Series, table[series]))
    column = cast(pd.Series, table[label])
    classes, first = pd.factorize(column)[0], np.unique(codes, return_index=True)[1]
    invalid = (classes < 0) | (classes != classes[first][codes])
    if invalid.any():
        row = int(np.argmax(invalid))
        has = "no label" if classes[row] < 0 else f"{column.iloc[row]!r} after another label"
        series_id = ids.tolist()[codes[row]]
        raise ValueError(
            f"column {label!r} has {has} at row {row + 1} (series {series_id!r}); wanted one for all rows of a series."
        )
    return np.asarray(column.to_numpy()[first])


def series_from_sequences(X: Any) -> Observations | None:
    """Return the series in X, or None where X is a two-dimensional array or frame with a row for each series.

    Parameters
    ----------
    X : Observations, array [series, steps, channels], or list of (times, values) pairs or of arrays [steps, channels]
        NaN is a missing value. Arrays without times have the times 0, 1, 2, ….

    Examples
    --------
    >>> series_from_sequences([([0.0, 0.5], [1.0, 2.0]), ([0.1], [3.0])]).values.shape
    torch.Size([2, 2, 1])
    >>> series_from_sequences([np.zeros((3, 2)), np.zeros((5, 2))]).lengths.tolist()
    [3, 5]
    >>> series_from_sequences([[1.0, 2.0], [3.0, 4.0]]) is None
    True
    """
    if isinstance(X, Observations):
        return _drop_empty_steps(X.to(torch.float64).to("cpu"))
    X = X.detach().cpu().numpy() if isinstance(X, torch.Tensor) else X
    if isinstance(X, np.ndarray):
        return series_from_grid(X.astype(np.float64)) if X.ndim == 3 else None
    if not isinstance(X, list | tuple) or not X:
        return None
    try:
        timed = isinstance(X[0], tuple) and len(X[0]) == 2 and np.ndim(X[0][1]) > 0
        dimensions = 0 if timed else np.ndim(X[0])
        ragged = dimensions == 1 and len({len(x) for x in X}) > 1
    except (ValueError, TypeError) as error:  # numpy cannot make an array of it
        raise ValueError("X[0] is not an array; wanted series as (times, values) tuples or as arrays.") from error
    if not (timed or dimensions == 2 or ragged):
        return None
    pairs = [_pair(x, timed, row) for row, x in enumerate(X)]
    channels = {values.shape[1] for _, values in pairs}
    if len(channels) > 1:
        raise ValueError(f"the series have {' or '.join(map(str, sorted(channels)))} channels; wanted the same in all.")
    return _drop_empty_steps(Observations.gather(pairs, dtype=torch.float64))


def series_from_grid(values: np.ndarray) -> Observations:
    """Return the series in an array [series, steps, channels] at the times 0, 1, 2, …; NaN is a missing value."""
    series, steps = values.shape[:2]
    if not values.size:
        raise ValueError(f"X has shape {list(values.shape)}; wanted at least one series, step and channel.")
    if np.isinf(values).any():
        raise ValueError("X contains infinity; wanted finite values, or NaN for a gap.")
    x = torch.tensor(values, dtype=torch.float64)
    seen = ~x.isnan()
    times = torch.arange(steps, dtype=torch.float64).expand(series, steps)
    lengths, start = torch.full((series,), steps), torch.zeros(series, dtype=torch.float64)
    return _drop_empty_steps(
        Observations(times=times, values=torch.where(seen, x, 0), seen=seen, lengths=lengths, start=start)
    )


def _pair(x: Any, timed: bool, row: int) -> tuple[np.ndarray, np.ndarray]:
    try:
        values = np.array(x[1] if timed else x, dtype=np.float64)
        times = np.array(x[0], dtype=np.float64) if timed else np.arange(len(values), dtype=np.float64)
    except (ValueError, TypeError, IndexError) as error:
        raise ValueError(f"series {row} of X is not like the first: {error}.") from error
    if np.isinf(values).any():
        raise ValueError(f"series {row} of X contains infinity; wanted finite values, or NaN for a gap.")
    return times, values[:, None] if values.ndim == 1 else values


def _drop_empty_steps(observed: Observations) -> Observations:
    """Return the series without the steps at which no channel was observed: they would only cost time."""
    keep = observed.seen.any(-1)
    if not bool(keep.any(1).all()):
        row = int((~keep.any(1)).nonzero()[0])
        raise ValueError(f"series {row} of X has no values; wanted at least one that is not NaN.")
    return observed if bool((keep == observed.inside).all()) else observed.keeping(keep)
