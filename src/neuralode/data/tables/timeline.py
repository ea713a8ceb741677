"""Times as numbers: as they are, or counted from an epoch; and back again."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np

from neuralode.core.extras import require
from neuralode.data.tables import cells

require("series", "pandas", "pyarrow")

import pandas as pd  # noqa: E402  (after the sentence above)
from pandas.api import types  # noqa: E402


@dataclass(frozen=True)
class Clock:
    """How times became numbers: numbers as they are, timestamps in seconds since 1970-01-01 UTC.

    Float64 seconds hold every microsecond from 1698 to 2242.

    Parameters
    ----------
    kind : {"number", "timestamp"}
        What the times were.
    tz : str, optional
        The time zone that timestamps were told in; None for those that name none.

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
        """The clock that the first readable time of a column tells; ids are named when there is none."""
        column = cells.tidy(column, name)
        numbers, stamps, _ = _readings(column)
        readable = np.isfinite(numbers) | stamps.notna().to_numpy()
        if not readable.any():
            cells.refuse(column.isna(), column, "no time", "one in every row", ids)
            cells.refuse(~readable, column, "{}", "a number, or a timestamp such as 2026-01-31T12:00", ids)
        first = int(np.argmax(readable))
        if np.isfinite(numbers[first]):
            return cls("number")
        told = column.iloc[first]
        zone = pd.Timestamp(told).tz if isinstance(told, str) else getattr(told, "tzinfo", None)
        return cls("timestamp", None if zone is None else str(zone))

    def numbers(self, column: pd.Series | pd.Index, name: str = "time", ids: pd.Series | None = None) -> np.ndarray:
        """Times as float64 [rows]; a ValueError names the first row with none, or with one of another kind."""
        column = cells.tidy(column, name)
        cells.refuse(column.isna(), column, "no time", "one in every row", ids)
        numbers, stamps, zoned = _readings(column)
        if self.kind == "number":
            cells.refuse(np.isnan(numbers), column, "{}", "a number, as the other times are", ids)
            cells.refuse(np.isinf(numbers), column, "an infinite time", "a finite one", ids)
            return numbers
        wanted = "a timestamp such as 2026-01-31T12:00, as the other times are"
        cells.refuse(stamps.isna(), column, "{}", wanted, ids)
        other, wanted = ("no", "with one") if self.tz else ("a", "without")
        cells.refuse(
            zoned != bool(self.tz), column, f"{{}}, with {other} time zone,", f"times {wanted}, as the others", ids
        )
        return stamps.dt.as_unit("us").astype("int64").to_numpy() / 1e6

    def labels(self, numbers: Sequence[float] | np.ndarray) -> np.ndarray | pd.DatetimeIndex:
        """Numbers as they were told: an array of them, or timestamps to the microsecond."""
        numbers = np.asarray(numbers, dtype=np.float64)
        if self.kind == "number":
            return numbers
        stamps = pd.DatetimeIndex(np.rint(numbers * 1e6).astype("datetime64[us]"))
        return stamps if self.tz is None else stamps.tz_localize("UTC").tz_convert(self.tz)

    def to_json(self) -> dict[str, str | None]:
        """A plain dict, for `from_json`."""
        return asdict(self)

    @classmethod
    def from_json(cls, told: dict[str, Any]) -> Clock:
        """The clock that `to_json` told."""
        return cls(**told)


def _readings(column: pd.Series) -> tuple[np.ndarray, pd.Series, np.ndarray]:
    """A time column as numbers and, where there is none, as timestamps in UTC; and which of these named a zone."""
    if types.is_datetime64_any_dtype(column):
        zoned = np.full(len(column), column.dt.tz is not None)
        return np.full(len(column), np.nan), pd.to_datetime(column, utc=True), zoned
    numbers = cells.numbers(column)
    text = column.astype("string").str.strip()
    dated = text.str.match(r"\d").fillna(False).astype(bool) & np.isnan(numbers)  # pandas would also read "today"
    stamps = pd.to_datetime(text.where(dated), format="ISO8601", utc=True, errors="coerce")
    zoned = text.str.contains(r"[T ]\d\d.*(?:Z|[+-]\d\d(?::?\d\d)?)$", regex=True).fillna(False)
    return numbers, stamps, zoned.to_numpy(dtype=bool)
