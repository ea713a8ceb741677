"""Conversion of the times of a table to numbers, and back."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np

from neuralode.core.extras import require
from neuralode.data.tables import cells

require("series", "pandas", "pyarrow")

# These imports need the extra above.
import pandas as pd  # noqa: E402
from pandas.api import types  # noqa: E402

NUMBER = "a number, as the other times are"
TIMESTAMP = "a timestamp such as 2026-01-31T12:00"


@dataclass(frozen=True)
class Clock:
    """How times become numbers: numbers are unchanged, timestamps become seconds since 1970-01-01 UTC.

    Seconds in float64 represent every microsecond from 1698 to 2242.

    Parameters
    ----------
    kind : {"number", "timestamp"}
        The kind of the times.
    tz : str or None, default=None
        Time zone of the timestamps; None for timestamps without a zone.

    Examples
    --------
    >>> days = pd.Series(["2026-03-01T12:00+01:00", "2026-03-02T12:00+01:00"])
    >>> clock = Clock.of(days)
    >>> clock, clock.numbers(days).tolist()
    (Clock(kind='timestamp', tz='UTC+01:00'), [1772362800.0, 1772449200.0])
    >>> str(clock.labels([1772362800.0])[0])
    '2026-03-01 12:00:00+01:00'
    """

    kind: Literal["number", "timestamp"]
    tz: str | None = None

    def __post_init__(self) -> None:
        if self.kind not in ("number", "timestamp"):
            raise ValueError(f"a clock of kind {self.kind!r} is unknown; wanted 'number' or 'timestamp'.")
        try:
            pd.DatetimeIndex([], tz=self.tz)
        except (KeyError, ValueError, TypeError) as error:
            raise ValueError(
                f"time zone {self.tz!r} is unknown; wanted one such as 'Europe/Berlin' or 'UTC'."
            ) from error

    @classmethod
    def of(cls, column: pd.Series | pd.Index, name: str = "time", ids: pd.Series | None = None) -> Clock:
        """Return the clock of the first readable time of a column.

        Parameters
        ----------
        column : Series or Index
            The times.
        name : str, default='time'
            Name of the column, for messages.
        ids : Series, optional
            Ids of the series, for messages.

        Raises
        ------
        ValueError
            If no time is readable.
        """
        column = cells.normalize(column, name)
        numbers, stamps, _ = _parse(column)
        readable = np.isfinite(numbers) | stamps.notna().to_numpy()
        if not readable.any():
            cells.check_cells(column, column.isna(), found="no time", wanted="one in every row", ids=ids)
            cells.check_cells(column, ~readable, found="{}", wanted=f"a number, or {TIMESTAMP}", ids=ids)
        first = int(np.argmax(readable))
        if np.isfinite(numbers[first]):
            return cls("number")
        cell = column.iloc[first]
        zone = pd.Timestamp(cell).tz if isinstance(cell, str) else getattr(cell, "tzinfo", None)
        return cls("timestamp", None if zone is None else str(zone))

    def numbers(self, column: pd.Series | pd.Index, name: str = "time", ids: pd.Series | None = None) -> np.ndarray:
        """Return times as float64 [rows].

        Parameters
        ----------
        column : Series or Index
            The times.
        name : str, default='time'
            Name of the column, for messages.
        ids : Series, optional
            Ids of the series, for messages.

        Raises
        ------
        ValueError
            For a missing time or one of another kind; the message names the first such row.
        """
        column = cells.normalize(column, name)
        cells.check_cells(column, column.isna(), found="no time", wanted="one in every row", ids=ids)
        numbers, stamps, zoned = _parse(column)
        if self.kind == "number":
            cells.check_cells(column, np.isnan(numbers), found="{}", wanted=NUMBER, ids=ids)
            cells.check_cells(column, np.isinf(numbers), found="an infinite time", wanted="a finite one", ids=ids)
            return numbers
        cells.check_cells(column, stamps.isna(), found="{}", wanted=f"{TIMESTAMP}, as the other times are", ids=ids)
        found, wanted = ("no", "with one") if self.tz else ("a", "without")
        cells.check_cells(
            column,
            zoned != bool(self.tz),
            found=f"{{}}, with {found} time zone,",
            wanted=f"times {wanted}, as the others",
            ids=ids,
        )
        return stamps.dt.as_unit("us").astype("int64").to_numpy() / 1e6

    def labels(self, numbers: Sequence[float] | np.ndarray) -> np.ndarray | pd.DatetimeIndex:
        """Return numbers as the times that they stand for: numbers, or timestamps rounded to microseconds."""
        numbers = np.asarray(numbers, dtype=np.float64)
        if self.kind == "number":
            return numbers
        stamps = pd.DatetimeIndex(np.rint(numbers * 1e6).astype("datetime64[us]"))
        return stamps if self.tz is None else stamps.tz_localize("UTC").tz_convert(self.tz)

    def to_json(self) -> dict[str, str | None]:
        """Return a dict that JSON can hold, for `from_json`."""
        return asdict(self)

    @classmethod
    def from_json(cls, content: dict[str, Any]) -> Clock:
        """Return the clock that `to_json` described."""
        return cls(**content)


def _parse(column: pd.Series) -> tuple[np.ndarray, pd.Series, np.ndarray]:
    """Return times as numbers, else as timestamps in UTC, and which timestamps name a time zone."""
    if types.is_datetime64_any_dtype(column):
        zoned = np.full(len(column), column.dt.tz is not None)
        return np.full(len(column), np.nan), pd.to_datetime(column, utc=True), zoned
    numbers = cells.to_numbers(column)
    text = column.astype("string").str.strip()
    dated = text.str.match(r"\d").fillna(False).astype(bool) & np.isnan(numbers)  # pandas would accept "today", too
    stamps = pd.to_datetime(text.where(dated), format="ISO8601", utc=True, errors="coerce")
    zoned = text.str.contains(r"[T ]\d\d.*(?:Z|[+-]\d\d(?::?\d\d)?)$", regex=True).fillna(False)
    return numbers, stamps, zoned.to_numpy(dtype=bool)
