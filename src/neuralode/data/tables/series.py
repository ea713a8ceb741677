"""Someone's table of irregular measurements: read, checked cell by cell, and cut into series."""

from __future__ import annotations

import re
import warnings
from collections.abc import Hashable, Iterable
from dataclasses import dataclass
from difflib import get_close_matches
from functools import partial
from io import StringIO
from os import PathLike
from pathlib import Path
from typing import cast

import numpy as np

from neuralode.core.extras import require
from neuralode.data.tables import cells
from neuralode.data.tables.timeline import Clock

require("series", "pandas", "pyarrow")

import pandas as pd  # noqa: E402  (after the sentence above)
from pyarrow import ArrowException  # noqa: E402

Source = pd.DataFrame | np.ndarray | str | PathLike


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
    """Read a table with one row for each time of a series into series that are sorted by time.

    Parameters
    ----------
    source : DataFrame, array [rows, channels] or path of a .csv, .tsv or .parquet file
        See `read_table`.
    series : str, optional
        The column that says which series a row belongs to; the table is a single series unless given.
    time : str, optional
        The column (or named index) of numbers or timestamps. Unless given: the table's `pandas.DatetimeIndex` if it has
        one, else the row number within the series, from 0.
    values : names, optional
        The columns of measurements: numbers, or True and False, with gaps. All that remain unless given; columns that
        are not named are not looked at.
    channels : names, optional
        What to call the values, one name for each; as their columns unless given.
    clock : Clock, optional
        Count time as an earlier table did, and refuse times of another kind.
    new : bool
        The table is one to predict for, not to learn from: a channel without values, or a single row, will do.

    Raises
    ------
    ValueError
        For a table that does not fit the above; the sentence names the column and the row, counted from 1.

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
    table = read_table(source)
    if not len(table):
        raise ValueError(f"the table has no rows, only the columns {_listed(table.columns)}; wanted one for each time.")
    series, time = (None if name is None else str(name) for name in (series, time))
    named = [name for name in table.index.names if name in {series, time} - {None, *table.columns}]
    table = table.reset_index(level=named) if named else table
    wanted = _value_columns(table, series, time, values)
    names = _channel_names(channels, wanted, {series, time})

    ids = None if series is None else _column(table, series)
    codes, known = _coded(ids, len(table))
    when = _times(table, time, codes)
    clock = clock or Clock.of(when, str(when.name), ids)
    seconds = clock.numbers(when, str(when.name), ids)
    numbers = np.column_stack([_measured(_column(table, name), ids, new) for name in wanted])

    kept = np.isfinite(numbers).any(axis=1)
    empty = np.setdiff1d(codes, codes[kept])
    if len(empty):
        whose = "the table" if ids is None else f"series {cells.shown(known[empty[0]])}"
        raise ValueError(f"{whose} has no values in {_listed(wanted)}; wanted at least one, or none of its rows.")
    if kept.sum() == 1 and not new:
        raise ValueError("the table has values in a single row, from which nothing can be learnt; wanted two or more.")
    rows = np.flatnonzero(kept)
    rows = rows[np.lexsort((seconds[rows], codes[rows]))]
    codes, seconds = codes[rows], seconds[rows]
    twice = (np.diff(codes) == 0) & (np.diff(seconds) == 0)
    if twice.any():
        first, second = rows[np.argmax(twice)], rows[np.argmax(twice) + 1]
        once = "once (series= names a column that tells series apart)" if ids is None else "once a series"
        places = f"row {first + 1} and again at {cells.place(second, ids)}"
        raise ValueError(
            f"column {when.name!r} has {cells.shown(when.iloc[first])} at {places}; wanted each time {once}."
        )
    cuts = np.flatnonzero(np.diff(codes)) + 1
    times, tables = np.split(seconds, cuts), np.split(numbers[rows], cuts)
    return SeriesTable(known, tuple(times), tuple(tables), names, clock, series, time)


def read_table(source: Source) -> pd.DataFrame:
    """Return a table from where it is, its columns named by strings that differ.

    In .csv and .tsv files lines that begin with ``#`` are comments, spaces before a cell are skipped, and what pandas
    takes for missing (an empty cell, ``NA``, ``nan``, …) is missing. The columns of an array are ``x0``, ``x1``, ….

    Raises
    ------
    FileNotFoundError, TypeError, ValueError
        For no such file, for what is no table, and for a file that cannot be read as its ending says.

    Examples
    --------
    >>> read_table(np.ones((1, 2))).to_dict("list")
    {'x0': [1.0], 'x1': [1.0]}
    """
    if isinstance(source, pd.DataFrame):
        return _named(source, [str(name) for name in source.columns])
    if isinstance(source, np.ndarray):
        if source.ndim != 2:
            raise ValueError(f"the array has shape {list(source.shape)}; wanted [rows, channels].")
        return pd.DataFrame(source, columns=[f"x{channel}" for channel in range(source.shape[1])])
    if not isinstance(source, str | PathLike):
        kind = type(source).__name__
        raise TypeError(f"the table is a {kind}; wanted a DataFrame, an array or the path of a .csv, .tsv or .parquet.")
    path = Path(source)
    if not path.is_file():
        raise FileNotFoundError(f"there is no file {str(path)!r}; wanted a .csv, .tsv or .parquet file.")
    ending = path.suffix.lower()
    if ending not in (".csv", ".tsv", ".parquet"):
        raise ValueError(f"{str(path)!r} ends in {ending!r}; wanted .csv, .tsv or .parquet.")
    try:
        if ending == ".parquet":
            table = pd.read_parquet(path)
            return _named(table, [str(name) for name in table.columns])
        return _delimited(path.read_text(encoding="utf-8-sig"), "," if ending == ".csv" else "\t")
    except (ValueError, OSError, ArrowException) as error:
        reason = " ".join(str(error).split()).rstrip(".")
        raise ValueError(f"{str(path)!r} cannot be read as {ending}: {reason}.") from error


@dataclass(frozen=True, eq=False)
class SeriesTable:
    """Series of the same channels, each at its own times, with NaN for what was not seen.

    Parameters
    ----------
    names : tuple of ids
        In the order of their first rows; ``(None,)`` for a table without a series column.
    times : tuple of arrays [n]
        Float64, increasing.
    values : tuple of arrays [n, channels]
        Float64; no row without a value.
    channels : tuple of str
        What the values are called.
    clock : Clock
        How times became numbers.
    series_column, time_column : str, optional
        Where ids and times stood; None for a single series, and for times that stood in no column.
    """

    names: tuple[Hashable, ...]
    times: tuple[np.ndarray, ...]
    values: tuple[np.ndarray, ...]
    channels: tuple[str, ...]
    clock: Clock
    series_column: str | None = None
    time_column: str | None = None

    def __len__(self) -> int:
        """How many series."""
        return len(self.names)

    def pairs(self) -> list[tuple[np.ndarray, np.ndarray]]:
        """The series as `neuralode.nn.Observations.gather` takes them."""
        return list(zip(self.times, self.values, strict=True))

    @property
    def binary(self) -> tuple[int, ...]:
        """Which channels are 0 or 1 wherever they were seen, and both somewhere.

        Examples
        --------
        >>> read_series(np.array([[1, 1.0, 0], [0, 1.0, 2]])).binary
        (0,)
        """
        values = np.concatenate(self.values)
        ones, zeros = values == 1, values == 0
        both = (ones | zeros | np.isnan(values)).all(0) & ones.any(0) & zeros.any(0)
        return tuple(np.flatnonzero(both).tolist())

    def frame(self) -> pd.DataFrame:
        """The table again, in long form; times that stood in no column are its index (``row`` for row numbers).

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


def _delimited(text: str, separator: str) -> pd.DataFrame:
    # not comment="#", which would also cut a cell such as "bed #3"
    text = re.sub(r"(?m)^[ \t]*#.*\n?", "", text)
    read = partial(pd.read_csv, sep=separator, skipinitialspace=True)
    # the first line by itself, as pandas would number names that come twice
    told = read(StringIO(text), header=None, nrows=1, dtype=str, keep_default_na=False)
    names = told.iloc[0].str.strip().tolist()
    if "" in names:
        raise ValueError(f"column {names.index('') + 1} has no name in the first line; give it one or leave it out")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", pd.errors.ParserWarning)
            table = read(StringIO(text), index_col=False, low_memory=False)
    except pd.errors.ParserWarning as error:
        raise ValueError(f"rows have more cells than the first line has names ({len(names)}); name them all") from error
    return _named(table, names)


def _named(table: pd.DataFrame, names: list[str]) -> pd.DataFrame:
    twice = pd.Index(names).duplicated()
    if twice.any():
        raise ValueError(f"column {names[np.argmax(twice)]!r} comes twice; wanted names that differ.")
    return table.set_axis(pd.Index(names, dtype=object), axis=1)


def _value_columns(
    table: pd.DataFrame, series: str | None, time: str | None, values: Iterable[str] | None
) -> list[str]:
    """The columns of measurements, once every role has a column of its own."""
    given = [] if values is None else _strings(values)
    roles = [("series", series), ("time", time), *(("values", name) for name in given)]
    taken: dict[str, str] = {}
    for role, name in roles:
        if name is None:
            continue
        check_column(table, name, role)
        if name in taken:
            raise ValueError(f"column {name!r} is given for {taken[name]} and for {role}; wanted one role a column.")
        taken[name] = role
    chosen = [name for name in table.columns if name not in taken] if values is None else given
    if not chosen:
        raise ValueError(f"no column is left for values among {_listed(table.columns)}; wanted at least one.")
    return chosen


def check_column(table: pd.DataFrame, name: str, role: str | None = None) -> None:
    """Raise a ValueError for a column that is not there, with the nearest name.

    Examples
    --------
    >>> check_column(pd.DataFrame({"pulse": [71.0]}), "puls", "values")
    Traceback (most recent call last):
    ...
    ValueError: the table has no column 'puls' for values; did you mean 'pulse'? Its columns: 'pulse'.
    """
    if name not in table.columns:
        near = get_close_matches(name, list(table.columns), n=1, cutoff=0.4)
        hint = f"; did you mean {near[0]!r}?" if near else ";"
        use = "" if role is None else f" for {role}"
        raise ValueError(f"the table has no column {name!r}{use}{hint} Its columns: {_listed(table.columns)}.")


def _channel_names(channels: Iterable[str] | None, columns: list[str], roles: set[str | None]) -> tuple[str, ...]:
    names = tuple(columns if channels is None else _strings(channels))
    if len(names) != len(columns) or len(set(names)) != len(names) or roles & set(names):
        raise ValueError(f"channels={names!r} does not name {_listed(columns)}; wanted a name of its own for each.")
    return names


def _coded(ids: pd.Series | None, rows: int) -> tuple[np.ndarray, tuple[Hashable, ...]]:
    """Each row's series by its number, and the ids in the order of their first rows."""
    if ids is None:
        return np.zeros(rows, dtype=np.int64), (None,)
    cells.refuse(ids.isna(), ids, "no series id", "one in every row")
    try:
        codes, known = pd.factorize(ids)
    except TypeError as error:
        raise ValueError(f"column {ids.name!r} has ids that cannot be hashed; wanted text or numbers.") from error
    return codes, tuple(known.tolist())


def _times(table: pd.DataFrame, time: str | None, codes: np.ndarray) -> pd.Series:
    if time is not None:
        return _column(table, time)
    if isinstance(table.index, pd.DatetimeIndex):
        return cells.tidy(table.index, "index")
    return pd.Series(codes, name="row number").groupby(codes).cumcount().rename("row number")


def _measured(column: pd.Series, ids: pd.Series | None, new: bool) -> np.ndarray:
    """One column of values as float64, NaN for gaps."""
    numbers = cells.numbers(column)
    cells.refuse(np.isnan(numbers) & ~column.isna(), column, "{}", "a number, or nothing for a gap", ids)
    cells.refuse(np.isinf(numbers), column, "an infinite value", "a finite number, or nothing for a gap", ids)
    if np.isnan(numbers).all() and not new:
        raise ValueError(f"column {column.name!r} has no values; wanted at least one, or leave it out of values.")
    return numbers


def _column(table: pd.DataFrame, name: str) -> pd.Series:
    return cells.tidy(cast(pd.Series, table[name]), name)


def _listed(names: Iterable[str]) -> str:
    return ", ".join(repr(name) for name in names)


def _strings(names: Iterable[str]) -> list[str]:
    return [names] if isinstance(names, str) else [str(name) for name in names]
