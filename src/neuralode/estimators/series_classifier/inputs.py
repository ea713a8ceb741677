"""The forms in which series may come to an estimator."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace
from os import PathLike
from typing import Any, cast

import numpy as np
import pandas as pd
import torch

from neuralode.data.tables.scaling import Scaling
from neuralode.data.tables.series import Source, check_column, read_series, read_table
from neuralode.data.tables.timeline import Clock
from neuralode.nn import Observations


def is_table(X: object) -> bool:
    """Whether X can be a table in long form, with a row for each time of a series."""
    return isinstance(X, str | PathLike | pd.DataFrame)


@dataclass(frozen=True)
class Columns:
    """Where a table keeps what, so that the next one is read alike.

    Parameters
    ----------
    series : str
        The column of ids.
    time, label : str, optional
        Columns of times and labels.
    values : tuple of str
        Columns of measurements.
    clock : Clock
        How times became numbers.
    """

    series: str
    time: str | None
    label: str | None
    values: tuple[str, ...]
    clock: Clock

    def read(self, source: Source) -> Observations:
        """Read another table, whose other columns (labels too) are not looked at."""
        table = read_series(source, series=self.series, time=self.time, values=self.values, clock=self.clock, new=True)
        return Observations.gather(table.pairs(), dtype=torch.float64)

    def to_json(self) -> dict[str, Any]:
        """A plain dict, for `from_json`."""
        return asdict(self)

    @classmethod
    def from_json(cls, told: dict[str, Any]) -> Columns:
        """Of a plain dict."""
        return cls(**{**told, "values": tuple(told["values"]), "clock": Clock.from_json(told["clock"])})


def first_table(
    source: Source, *, series: str | None, time: str | None, label: str | None, values: Iterable[str] | None
) -> tuple[Observations, Columns, np.ndarray | None]:
    """Read a table to learn from: its series, what to remember of it, and the labels if a column has them.

    Examples
    --------
    >>> frame = pd.DataFrame({"who": [1, 1, 2], "day": [0, 1, 0], "pulse": [70.0, 80.0, 90.0], "ill": ["y", "y", "n"]})
    >>> observed, columns, labels = first_table(frame, series="who", time="day", label="ill", values=None)
    >>> len(observed), columns.values, labels.tolist()
    (2, ('pulse',), ['y', 'n'])
    """
    if series is None:
        raise ValueError("series is not given; wanted the column of the table that tells its series apart.")
    table = read_table(source)
    values = [values] if isinstance(values, str) else None if values is None else list(values)
    if label is not None:
        if label in (series, time, *(values or ())):
            raise ValueError(f"column {label!r} is given for label and for another role; wanted one role a column.")
        check_column(table, label, "label")
    if values is None and label is not None:
        values = [name for name in table.columns if name not in (series, time, label)]
    read = read_series(table, series=series, time=time, values=values)
    columns = Columns(series, time, label, read.channels, read.clock)
    labels = None if label is None else labels_of(table, series, label)
    return Observations.gather(read.pairs(), dtype=torch.float64), columns, labels


def labels_of(source: Source, series: str, label: str) -> np.ndarray:
    """The label of each series, in the order of their first rows.

    Raises
    ------
    ValueError
        Where a series has none, or more than one.
    """
    table = read_table(source)
    check_column(table, label, "label")
    if series in table.index.names and series not in table.columns:
        table = table.reset_index(level=series)
    codes, known = pd.factorize(cast(pd.Series, table[series]))
    told = cast(pd.Series, table[label])
    kinds, first = pd.factorize(told)[0], np.unique(codes, return_index=True)[1]
    wrong = (kinds < 0) | (kinds != kinds[first][codes])
    if wrong.any():
        row = int(np.argmax(wrong))
        has = "no label" if kinds[row] < 0 else f"{told.iloc[row]!r} after another label"
        whose = known.tolist()[codes[row]]
        raise ValueError(
            f"column {label!r} has {has} at row {row + 1} (series {whose!r}); wanted one for all rows of a series."
        )
    return np.asarray(told.to_numpy()[first])


def from_series(X: Any) -> Observations | None:
    """Return series in float64, or None where X is rather a plain table with a row for each series.

    Parameters
    ----------
    X : Observations, array [series, steps, channels], or list of (times, values) pairs or of arrays [steps, channels]
        NaN is a gap; steps without times stand at 0, 1, 2, ….

    Examples
    --------
    >>> from_series([([0.0, 0.5], [1.0, 2.0]), ([0.1], [3.0])]).values.shape
    torch.Size([2, 2, 1])
    >>> from_series([np.zeros((3, 2)), np.zeros((5, 2))]).lengths.tolist()
    [3, 5]
    >>> from_series([[1.0, 2.0], [3.0, 4.0]]) is None
    True
    """
    if isinstance(X, Observations):
        return _tidied(X.to(torch.float64).to("cpu"))
    X = X.detach().cpu().numpy() if isinstance(X, torch.Tensor) else X
    if isinstance(X, np.ndarray):
        return from_array(X.astype(np.float64)) if X.ndim == 3 else None
    if not isinstance(X, list | tuple) or not X:
        return None
    try:
        timed = isinstance(X[0], tuple) and len(X[0]) == 2 and np.ndim(X[0][1]) > 0
        deep = 0 if timed else np.ndim(X[0])
        ragged = deep == 1 and len({len(x) for x in X}) > 1
    except (ValueError, TypeError) as error:  # numpy's word for lists that are no array
        raise ValueError("X[0] is no array; wanted series as (times, values) tuples or as arrays.") from error
    if not (timed or deep == 2 or ragged):
        return None
    pairs = [_pair(x, timed, row) for row, x in enumerate(X)]
    wide = {values.shape[1] for _, values in pairs}
    if len(wide) > 1:
        raise ValueError(f"the series have {' or '.join(map(str, sorted(wide)))} channels; wanted the same in all.")
    return _tidied(Observations.gather(pairs, dtype=torch.float64))


def from_array(values: np.ndarray) -> Observations:
    """Series on a common grid 0, 1, 2, …, from an array [series, steps, channels] in which NaN is a gap."""
    series, steps = values.shape[:2]
    if not values.size:
        raise ValueError(f"X has shape {list(values.shape)}; wanted at least one series, step and channel.")
    if np.isinf(values).any():
        raise ValueError("X contains infinity; wanted finite values, or NaN for a gap.")
    x = torch.tensor(values, dtype=torch.float64)
    seen = ~x.isnan()
    times = torch.arange(steps, dtype=torch.float64).expand(series, steps)
    lengths, start = torch.full((series,), steps), torch.zeros(series, dtype=torch.float64)
    return _tidied(Observations(times, torch.where(seen, x, 0), seen, lengths, start))


def _pair(x: Any, timed: bool, row: int) -> tuple[np.ndarray, np.ndarray]:
    try:
        values = np.array(x[1] if timed else x, dtype=np.float64)
        times = np.array(x[0], dtype=np.float64) if timed else np.arange(len(values), dtype=np.float64)
    except (ValueError, TypeError, IndexError) as error:
        raise ValueError(f"series {row} of X is not like the first: {error}.") from error
    if np.isinf(values).any():
        raise ValueError(f"series {row} of X contains infinity; wanted finite values, or NaN for a gap.")
    return times, values[:, None] if values.ndim == 1 else values


def _tidied(observed: Observations) -> Observations:
    """Without the steps at which nothing was seen: they would only be computed."""
    keep = observed.seen.any(-1)
    if not bool(keep.any(1).all()):
        row = int((~keep.any(1)).nonzero()[0])
        raise ValueError(f"series {row} of X has no values; wanted at least one that is not NaN.")
    return observed if bool((keep == observed.inside).all()) else observed.keeping(keep)


@dataclass(frozen=True)
class Scale:
    """Values and covariates with mean 0 and deviation 1, times since the start in units of a typical series.

    Parameters
    ----------
    values : Scaling
        Of the channels.
    static : Scaling, optional
        Of the covariates.
    span : float
        One unit of time.

    Examples
    --------
    >>> observed = Observations.gather([([5.0, 9.0], [[1.0], [3.0]])], dtype=torch.float64)
    >>> scaled = Scale.of(observed).apply(observed)
    >>> scaled.times.tolist(), scaled.values.flatten().tolist()
    ([[0.0, 1.0]], [-1.0, 1.0])
    """

    values: Scaling
    static: Scaling | None
    span: float

    @classmethod
    def of(cls, observed: Observations) -> Scale:
        """Of series in float64; the typical one is the median of those that last."""
        spans = observed.times[:, -1] - observed.start
        spans = spans[spans > 0]
        static = None if observed.static is None else Scaling.of(observed.static.numpy(), logs=False)
        table = torch.where(observed.seen, observed.values, torch.nan).flatten(0, 1).numpy()
        return cls(Scaling.of(table, logs=False), static, float(spans.median()) if len(spans) else 1.0)

    @property
    def channels(self) -> int:
        """Of the series."""
        return len(self.values.mean)

    @property
    def covariates(self) -> int:
        """Of the series; 0 for none."""
        return 0 if self.static is None else len(self.static.mean)

    def apply(self, observed: Observations) -> Observations:
        """Series in float64 on the common scale; a `ValueError` unless they have as many channels and covariates."""
        covariates = 0 if observed.static is None else observed.static.shape[-1]
        for what, has, wanted in (
            ("channels", observed.channels, self.channels),
            ("covariates", covariates, self.covariates),
        ):
            if has != wanted:
                raise ValueError(f"the series have {has} {what}; wanted {wanted}, as those that were learned from.")
        values = torch.as_tensor(self.values.apply(observed.values.numpy()))
        return replace(
            observed,
            times=(observed.times - observed.start[:, None]) / self.span,
            values=torch.where(observed.seen, values, 0),
            start=torch.zeros_like(observed.start),
            static=None
            if self.static is None or observed.static is None
            else torch.as_tensor(self.static.apply(observed.static.numpy())),
        )

    def to_json(self) -> dict[str, Any]:
        """A plain dict, for `from_json`."""
        static = None if self.static is None else self.static.to_json()
        return {"values": self.values.to_json(), "static": static, "span": self.span}

    @classmethod
    def from_json(cls, told: dict[str, Any]) -> Scale:
        """Of a plain dict."""
        static = None if told["static"] is None else Scaling.from_json(told["static"])
        return cls(Scaling.from_json(told["values"]), static, told["span"])
