"""Tables of irregular time series: reading and validation."""

from __future__ import annotations

from collections.abc import Hashable, Iterable
from dataclasses import dataclass
from typing import cast

import numpy as np

from neuralode.core.extras import require
from neuralode.data.tables import cells
from neuralode.data.tables.cells import list_names
from neuralode.data.tables.source import Source, check_column, read_table
from neuralode.data.tables.timestamps import Clock

require("series", "pandas", "pyarrow")

import pandas as pd  # noqa: E402  (needs the extra above)


@dataclass(frozen=True, eq=False)
class SeriesTable:
    """Series with the same channels and individual times; NaN is a missing value.

    Parameters
    ----------
    names : tuple of ids
        Ids of the series in the order of their first rows; ``(None,)`` for a table without a series column.
    times : tuple of arrays [n]
        Increasing times in float64.
    values : tuple of arrays [n, channels]
        Values in float64; every row has at least one value.
    channels : tuple of str
        Names of the channels.
    clock : Clock
        The conversion of times to numbers.
    series_column : str or None, default=None
        Column of the ids; None for a single series.
    time_column : str or None, default=None
        Column of the times; None if times come from the index or are row numbers.
    """

    names: tuple[Hashable, ...]
    times: tuple[np.ndarray, ...]
    values: tuple[np.ndarray, ...]
    channels: tuple[str, ...]
    clock: Clock
    series_column: str | None = None
    time_column: str | None = None

    def __len__(self) -> int:
        """Return the number of series."""
        return len(self.names)

    def pairs(self) -> list[tuple[np.ndarray, np.ndarray]]:
        """Return (times, values) of each series, as `neuralode.nn.Observations.gather` takes them."""
        return list(zip(self.times, self.values, strict=True))

    @property
    def binary(self) -> tuple[int, ...]:
        """Return the channels that take both values 0 and 1, and no other.

        Examples
        --------
        >>> read_series(np.array([[1, 1.0, 0], [0, 1.0, 2]])).binary
        (0,)
        """
        values = np.concatenate(self.values)
        ones, zeros = values == 1, values == 0
        binary = (ones | zeros | np.isnan(values)).all(0) & ones.any(0) & zeros.any(0)
        return tuple(np.flatnonzero(binary).tolist())

    def frame(self) -> pd.DataFrame:
        """Return the table in long form.

        Times without a column become the index, which is called ``row`` for row numbers.

        Examples
        --------
        >>> read_series(np.array([[1.0], [np.nan], [3.0]])).frame()["x0"].to_dict()
        {0.0: 1.0, 2.0: 3.0}
        """
        times = pd.Index(self.clock.labels(np.concatenate(self.times)))
        table = pd.DataFrame(np.concatenate(self.values), columns=pd.Index(self.channels))
        if self.time_column is not None:
            table.insert(0, self.time_column, times)
        else:
            table.index = times if self.clock.kind == "timestamp" else times.rename("row")
        if self.series_column is not None:
            ids = pd.Index(list(self.names), tupleize_cols=False).repeat([len(times) for times in self.times])
            table.insert(0, self.series_column, ids)
        return table


def read_series(
    source: Source,
    *,
    series: str | None = None,
    time: str | None = None,
    values: Iterable[str] | None = None,
    channels: Iterable[str] | None = None,
    clock: Clock | None = None,
    new: bool = False,
) -> SeriesTable:
    """Read a table in long form, with a row for each time of each series.

    Parameters
    ----------
    source : DataFrame, array [rows, channels] or path of a .csv, .tsv or .parquet file
        The table, see `neuralode.data.tables.source.read_table`.
    series : str, optional
        Column (or index level) that identifies the series; the table is a single series unless given.
    time : str, optional
        Column (or index level) of numbers or timestamps. Unless given, times come from a `pandas.DatetimeIndex`, or
        are row numbers within the series, from 0.
    values : iterable of str, optional
        Columns of measurements: numbers, or True and False, with missing values. All remaining columns unless given;
        other columns are ignored.
    channels : iterable of str, optional
        A name for each channel; the names of the columns unless given.
    clock : Clock, optional
        The conversion of times to numbers, of an earlier table; times of another kind are rejected.
    new : bool, default=False
        Whether the table is for predictions, not for learning: channels without values and single rows are allowed.

    Returns
    -------
    SeriesTable
        The series, sorted by time, without rows that have no value.

    Raises
    ------
    ValueError
        For a table that does not fit; the message names the column and the row, counted from 1.

    Examples
    --------
    >>> visits = pd.DataFrame({"who": ["b", "a", "b"], "day": [2, 1, 0], "pulse": [70, 80, None], "ill": [1, 0, 1]})
    >>> table = read_series(visits, series="who", time="day")
    >>> table.names, table.channels, [t.tolist() for t in table.times], table.values[0].tolist()
    (('b', 'a'), ('pulse', 'ill'), [[0.0, 2.0], [1.0]], [[nan, 1.0], [70.0, 1.0]])
    >>> visits["pulse"] = ["70", "n/a?", "80"]
    >>> read_series(visits, series="who", time="day")
    Traceback (most recent call last):
    ...
    ValueError: column 'pulse' has 'n/a?' at row 2 (series 'a'); wanted a number, or nothing for a gap.
    """
    series, time = (None if name is None else str(name) for name in (series, time))
    table = _read_with_index(source, {series, time})
    columns = _value_columns(table, series=series, time=time, values=values)
    names = _channel_names(channels, columns, roles={series, time})

    ids = None if series is None else _column(table, series)
    codes, known = _encode_ids(ids, len(table))
    when = _time_column(table, time, codes)
    clock = clock or Clock.of(when, str(when.name), ids)
    times = clock.numbers(when, str(when.name), ids)
    numbers = np.column_stack([_measurements(_column(table, name), ids, new) for name in columns])

    observed = np.isfinite(numbers).any(axis=1)
    empty = np.setdiff1d(codes, codes[observed])
    if len(empty):
        which = "the table" if ids is None else f"series {cells.quote(known[empty[0]])}"
        raise ValueError(f"{which} has no values in {list_names(columns)}; wanted at least one, or none of its rows.")
    if observed.sum() == 1 and not new:
        raise ValueError("the table has values in a single row, from which nothing can be learnt; wanted two or more.")
    rows = np.flatnonzero(observed)
    rows = rows[np.lexsort((times[rows], codes[rows]))]
    codes, times = codes[rows], times[rows]
    duplicated = (np.diff(codes) == 0) & (np.diff(times) == 0)
    if duplicated.any():
        first = int(np.argmax(duplicated))
        raise _duplicate_time(when, ids, rows=rows[first : first + 2])
    boundaries = np.flatnonzero(np.diff(codes)) + 1
    return SeriesTable(
        names=known,
        times=tuple(np.split(times, boundaries)),
        values=tuple(np.split(numbers[rows], boundaries)),
        channels=names,
        clock=clock,
        series_column=series,
        time_column=time,
    )


def _read_with_index(source: Source, roles: set[str | None]) -> pd.DataFrame:
    """Return a table with columns for the index levels that have a role."""
    table = read_table(source)
    if not len(table):
        raise ValueError(
            f"the table has no rows, only the columns {list_names(table.columns)}; wanted one for each time."
        )
    levels = [name for name in table.index.names if name in roles - {None, *table.columns}]
    return table.reset_index(level=levels) if levels else table


def _value_columns(
    table: pd.DataFrame, *, series: str | None, time: str | None, values: Iterable[str] | None
) -> list[str]:
    """Return the columns of measurements, after checking that every column exists and has one role."""
    given = [] if values is None else _strings(values)
    roles: dict[str, str] = {}
    for role, name in [("series", series), ("time", time), *(("values", name) for name in given)]:
        if name is None:
            continue
        check_column(table, name, role)
        if name in roles:
            raise ValueError(f"column {name!r} is given for {roles[name]} and for {role}; wanted one role a column.")
        roles[name] = role
    columns = [name for name in table.columns if name not in roles] if values is None else given
    if not columns:
        raise ValueError(f"no column is left for values among {list_names(table.columns)}; wanted at least one.")
    return columns


def _channel_names(channels: Iterable[str] | None, columns: list[str], *, roles: set[str | None]) -> tuple[str, ...]:
    names = tuple(columns if channels is None else _strings(channels))
    if len(names) != len(columns) or len(set(names)) != len(names) or roles & set(names):
        raise ValueError(f"channels={names!r} does not name {list_names(columns)}; wanted a different name for each.")
    return names


def _encode_ids(ids: pd.Series | None, rows: int) -> tuple[np.ndarray, tuple[Hashable, ...]]:
    """Return the index of each row's series, and the ids in the order of their first rows."""
    if ids is None:
        return np.zeros(rows, dtype=np.int64), (None,)
    cells.check_cells(ids, ids.isna(), found="no series id", wanted="one in every row")
    try:
        codes, known = pd.factorize(ids)
    except TypeError as error:
        raise ValueError(f"column {ids.name!r} has ids that cannot be hashed; wanted text or numbers.") from error
    return codes, tuple(known.tolist())


def _time_column(table: pd.DataFrame, time: str | None, codes: np.ndarray) -> pd.Series:
    if time is not None:
        return _column(table, time)
    if isinstance(table.index, pd.DatetimeIndex):
        return cells.normalize(table.index, "index")
    return pd.Series(codes, name="row number").groupby(codes).cumcount().rename("row number")


def _measurements(column: pd.Series, ids: pd.Series | None, new: bool) -> np.ndarray:
    """Return a column of measurements as float64; NaN is a missing value."""
    numbers = cells.to_numbers(column)
    text = np.isnan(numbers) & ~column.isna()
    cells.check_cells(column, text, found="{}", wanted="a number, or nothing for a gap", ids=ids)
    infinite, finite = "an infinite value", "a finite number, or nothing for a gap"
    cells.check_cells(column, np.isinf(numbers), found=infinite, wanted=finite, ids=ids)
    if np.isnan(numbers).all() and not new:
        raise ValueError(f"column {column.name!r} has no values; wanted at least one, or leave it out of values.")
    return numbers


def _duplicate_time(when: pd.Series, ids: pd.Series | None, *, rows: np.ndarray) -> ValueError:
    """Return the error for two rows of a series with the same time."""
    first, second = rows
    once = "once (series= names the column that identifies the series)" if ids is None else "once a series"
    time, again = cells.quote(when.iloc[first]), cells.row_label(second, ids)
    return ValueError(
        f"column {when.name!r} has {time} at row {first + 1} and again at {again}; wanted each time {once}."
    )


def _column(table: pd.DataFrame, name: str) -> pd.Series:
    return cells.normalize(cast(pd.Series, table[name]), name)


def _strings(names: Iterable[str]) -> list[str]:
    return [names] if isinstance(names, str) else [str(name) for name in names]
