"""All forms of a table of series are read the same, and invalid tables are rejected with column and row."""

from __future__ import annotations

import os
from datetime import date
from decimal import Decimal
from pathlib import Path

import hypothesis.strategies as st
import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings

from neuralode.data.tables.series import SeriesTable, read_series
from neuralode.data.tables.source import read_table
from neuralode.data.tables.timestamps import Clock
from neuralode.nn.series.observations import Observations

NAN = float("nan")


def visits(**columns: object) -> pd.DataFrame:
    """Return five unsorted rows of two patients, with missing values."""
    table = {
        "who": ["b", "a", "b", "a", "b"],
        "day": [2.5, 1.0, 0.0, 0.5, 1.0],
        "pulse": [70.0, 80.0, NAN, 61.5, NAN],
        "ill": [1, 0, 1, 0, NAN],
    }
    return pd.DataFrame(table | columns)


def same(one: SeriesTable, other: SeriesTable, *, any_order: bool = False) -> None:
    order = [other.names.index(name) for name in one.names] if any_order else range(len(other))
    assert one.names == tuple(other.names[i] for i in order)
    assert (one.channels, one.clock) == (other.channels, other.clock)
    assert (one.series_column, one.time_column) == (other.series_column, other.time_column)
    for (times, values), i in zip(one.pairs(), order, strict=True):
        np.testing.assert_array_equal(times, other.times[i])
        np.testing.assert_array_equal(values, other.values[i])


# --- reading


def test_rows_are_cut_into_series_sorted_by_time_and_rows_without_values_dropped():
    table = read_series(visits(), series="who", time="day")
    assert table.names == ("b", "a")
    assert table.channels == ("pulse", "ill")
    assert [times.tolist() for times in table.times] == [[0.0, 2.5], [0.5, 1.0]]
    np.testing.assert_array_equal(table.values[0], [[NAN, 1], [70, 1]])
    assert len(table) == 2
    assert table.values[0].dtype == table.times[0].dtype == np.float64


@pytest.mark.parametrize("ending", ["csv", "CSV", "tsv", "parquet"])
def test_a_file_reads_as_the_frame_that_was_written(tmp_path: Path, ending: str):
    frame = visits(pulse=[0.1 + 0.2, 1 / 3, NAN, 1e-17, NAN])
    path = tmp_path / f"visits.{ending}"
    if ending == "parquet":
        frame.to_parquet(path)
    else:
        frame.to_csv(path, index=False, sep="\t" if ending == "tsv" else ",")
    same(
        read_series(path, series="who", time="day"),
        read_series(frame, series="who", time="day"),
    )
    same(read_series(str(path), series="who", time="day"), read_series(path, series="who", time="day"))


def test_an_array_reads_as_a_frame_of_its_columns(tmp_path: Path):
    array = np.array([[1.0, NAN], [NAN, NAN], [0.25, 2.0]])
    frame = pd.DataFrame(array, columns=["x0", "x1"])
    frame.to_csv(tmp_path / "wide.csv", index=False, na_rep="nan")
    table = read_series(array)
    assert (table.names, table.channels, table.times[0].tolist()) == ((None,), ("x0", "x1"), [0.0, 2.0])
    same(table, read_series(frame))
    same(table, read_series(tmp_path / "wide.csv"))
    assert read_series(array, channels=["hare", "lynx"]).channels == ("hare", "lynx")


def test_a_delimited_file_may_have_comments_spaces_and_number_signs_in_cells(tmp_path: Path):
    path = tmp_path / "beds.csv"
    path.write_text(
        "\ufeff# from the ward\nbed, hour , x\nbed #3, 0, 1.5\n  # moved\nbed #3, 1,\nbed #4, 0, 2 \nbed #3,2,3\n"
    )
    table = read_series(path, series="bed", time="hour")
    assert table.names == ("bed #3", "bed #4")
    assert [times.tolist() for times in table.times] == [[0, 2], [0]]
    assert [values.tolist() for values in table.values] == [[[1.5], [3.0]], [[2.0]]]


def test_trailing_separators_are_not_columns(tmp_path: Path):
    path = tmp_path / "trailing.csv"
    path.write_text("t,x\n0,1,\n3,4,\n")
    assert read_series(path, time="t").values[0].tolist() == [[1], [4]]


def test_empty_cells_between_tabs_are_missing_values(tmp_path: Path):
    path = tmp_path / "gaps.tsv"
    path.write_text("t\tx\ty\tz\n0\t\t\t1\n1\t2\t3\t\n")
    np.testing.assert_array_equal(read_series(path, time="t").values[0], [[NAN, NAN, 1], [2, 3, NAN]])


def test_without_a_time_column_times_are_row_numbers_within_the_series():
    frame = pd.DataFrame({"who": ["a", "b", "a", "a"], "x": [1.0, 2.0, NAN, 3.0]})
    table = read_series(frame, series="who")
    assert [times.tolist() for times in table.times] == [[0, 2], [0]]
    assert table.time_column is None


def test_without_a_time_column_a_datetime_index_is_the_time():
    frame = pd.DataFrame(
        {"x": [1.0, 2.0]}, index=pd.DatetimeIndex(["1970-01-02T00:00:00.00", "1970-01-01T00:00:00.25"])
    )
    table = read_series(frame)
    assert (table.times[0].tolist(), table.clock) == ([0.25, 86400.0], Clock("timestamp"))


def test_index_levels_may_be_series_and_time():
    plain = visits()
    same(
        read_series(plain.set_index(["who", "day"]), series="who", time="day"),
        read_series(plain, series="who", time="day"),
    )


@pytest.mark.parametrize(
    "ids",
    [[7, 5, 7], ["7", "b", "7"], [(1, 2), "a", (1, 2)], [date(2020, 1, 2), date(2020, 1, 1), date(2020, 1, 2)]],
    ids=["ints", "strings", "mixed", "dates"],
)
def test_ids_keep_their_type_and_the_order_of_their_first_rows(ids: list):
    frame = pd.DataFrame({"id": pd.Series(ids, dtype=None if isinstance(ids[0], int | str) else object)})
    table = read_series(frame.assign(t=[1, 0, 0], x=1.0), series="id", time="t")
    assert table.names == (ids[0], ids[1])
    assert [type(name) for name in table.names] == [type(ids[0]), type(ids[1])]


def test_categorical_ids_are_accepted():
    frame = visits().astype({"who": pd.CategoricalDtype(["a", "b", "unused"])})
    same(read_series(frame, series="who", time="day"), read_series(visits(), series="who", time="day"))


@pytest.mark.parametrize(
    "cells",
    [
        [1, None, 0, 1, 0],
        [True, None, False, True, False],
        ["1", " ", "0", "1.0", "0"],
        pd.array([1, None, 0, 1, 0], dtype="Int8"),
        pd.array([True, None, False, True, False], dtype="boolean"),
        pd.array([1, None, 0, 1, 0], dtype="double[pyarrow]"),
        [Decimal(1), None, Decimal(0), Decimal(1), Decimal(0)],
        pd.Categorical([1, None, 0, 1, 0]),
    ],
    ids=["floats", "bools", "text", "Int8", "boolean", "arrow", "decimal", "categories"],
)
def test_numbers_are_read_from_all_dtypes(cells: object):
    table = read_series(visits(ill=cells), time="day", series="who", values="ill")
    assert [values[:, 0].tolist() for values in table.values] == [[0, 0, 1], [1]]
    assert table.binary == (0,)


def test_only_named_values_are_read_in_the_given_order():
    frame = visits(note=["fine", "", "?", "-", "!"])
    table = read_series(frame, series="who", time="day", values=("ill", "pulse"), channels=["sick", "beats"])
    assert table.channels == ("sick", "beats")
    np.testing.assert_array_equal(table.values[0], [[1, NAN], [1, 70]])


def test_column_names_are_converted_to_strings():
    frame = pd.DataFrame(np.ones((2, 2)), columns=[0, 1])
    assert read_series(frame, values=["1"]).channels == ("1",)


def test_binary_channels_have_both_values_and_no_other():
    table = read_series(np.array([[1, 1.0, 0, NAN], [0, 1.0, 2, 1], [NAN, 1.0, 1, 0]]))
    assert table.binary == (0, 3)


def test_the_frame_is_not_modified():
    frame = visits(pulse=["70", "", "80", "1", "2"])
    before = frame.copy(deep=True)
    read_series(frame, series="who", time="day")
    pd.testing.assert_frame_equal(frame, before)


def test_observations_gather_pairs():
    batch = Observations.gather(read_series(visits(), series="who", time="day").pairs())
    assert batch.lengths.tolist() == [2, 2]
    assert batch.seen[0].tolist() == [[False, True], [True, True]]


def test_a_new_table_may_lack_a_channel_or_have_one_row():
    frame = visits().iloc[:1].assign(ill=None)
    table = read_series(frame, series="who", time="day", values=["pulse", "ill"], new=True)
    np.testing.assert_array_equal(table.values[0], [[70, NAN]])


@pytest.mark.skipif("NEURALODE_DATA" not in os.environ, reason="NEURALODE_DATA, the folder of data sets, is not set")
def test_the_hudson_bay_table_reads_as_it_was_downloaded():
    path = Path(os.environ["NEURALODE_DATA"]) / "lynx-hare" / "hudson-bay-lynx-hare.csv"
    table = read_series(path, time="Year")
    assert (table.names, table.channels, table.clock) == ((None,), ("Lynx", "Hare"), Clock("number"))
    assert table.times[0].tolist() == list(range(1900, 1921))
    assert table.values[0][0].tolist() == [4.0, 30.0]


# --- clocks


@pytest.mark.parametrize(
    ("cells", "tz", "seconds"),
    [
        (["1970-01-01T00:01", "1970-01-02 00:00:00.000001"], None, [60, 86400.000001]),
        (["1970-01-01T01:00+01:00", "1970-01-01T02:00:00+01:00"], "UTC+01:00", [0, 3600]),
        (["1970-01-01T01:00+01:00", "1970-01-01T02:00Z"], "UTC+01:00", [0, 7200]),
        (["1970-01-01", "1970-01"], None, [0, 0]),
        ([date(1970, 1, 1), pd.Timestamp("1970-01-02")], None, [0, 86400]),
        (pd.to_datetime(["1970-01-01", "1970-07-01"]).tz_localize("Europe/Berlin"), "Europe/Berlin", [-3600, 15634800]),
        (pd.period_range("1970-01", periods=2, freq="M"), None, [0, 31 * 86400]),
    ],
)
def test_timestamps_become_seconds_since_1970_in_utc(cells: object, tz: str | None, seconds: list[float]):
    column = pd.Series(cells)
    clock = Clock.of(column)
    assert clock == Clock("timestamp", tz)
    assert clock.numbers(column).tolist() == seconds


@settings(max_examples=50, deadline=None)
@given(
    microseconds=st.lists(st.integers(-8_000_000_000_000_000, 8_000_000_000_000_000), min_size=1, max_size=20),
    tz=st.sampled_from([None, "UTC", "Europe/Berlin", "America/St_Johns", "UTC+05:30"]),
)
def test_timestamps_are_restored_to_the_microsecond_in_their_zone(microseconds: list[int], tz: str | None):
    stamps = pd.DatetimeIndex(np.array(microseconds, dtype="datetime64[us]"))
    stamps = stamps if tz is None else stamps.tz_localize("UTC").tz_convert(tz)
    clock = Clock.of(stamps)
    back = clock.labels(clock.numbers(stamps))
    assert isinstance(back, pd.DatetimeIndex)
    pd.testing.assert_index_equal(back, stamps)
    assert Clock.from_json(clock.to_json()) == clock


def test_numeric_times_are_unchanged():
    clock = Clock.of(pd.Series([3, 1]))
    assert clock == Clock("number")
    assert np.asarray(clock.labels(clock.numbers(pd.Series([3, 1])))).tolist() == [3.0, 1.0]
    assert clock.to_json() == {"kind": "number", "tz": None}


@pytest.mark.parametrize(
    ("clock", "cells", "sentence"),
    [
        (Clock("number"), ["2026-01-31"], "'2026-01-31' at row 1; wanted a number, as the other times are"),
        (Clock("timestamp"), [3.0], "3.0 at row 1; wanted a timestamp"),
        (Clock("timestamp"), ["2026-01-31T12:00Z"], "with a time zone, at row 1; wanted times without"),
        (
            Clock("timestamp", "UTC"),
            pd.to_datetime(["2026-01-31"]),
            "with no time zone, at row 1; wanted times with one",
        ),
    ],
)
def test_times_of_another_kind_are_rejected(clock: Clock, cells: object, sentence: str):
    with pytest.raises(ValueError, match="column 't' has ") as caught:
        read_series(pd.DataFrame({"t": cells, "x": 1.0}), time="t", clock=clock, new=True)
    assert sentence in str(caught.value)


def test_zones_are_converted_when_a_clock_is_given():
    frame = pd.DataFrame({"t": ["1970-01-01T01:00+01:00", "1970-01-01T02:00+01:00"], "x": 1.0})
    table = read_series(frame, time="t", clock=Clock("timestamp", "UTC"))
    assert table.times[0].tolist() == [0, 3600]
    assert table.clock.tz == "UTC"


@pytest.mark.parametrize(
    ("kind", "tz", "sentence"), [("sundial", None, "kind 'sundial'"), ("timestamp", "Mars/Olympus", "'Mars/Olympus'")]
)
def test_an_invalid_clock_is_rejected(kind: str, tz: str | None, sentence: str):
    with pytest.raises(ValueError, match=sentence):
        Clock.from_json({"kind": kind, "tz": tz})


# --- properties


@st.composite
def tables(draw: st.DrawFn) -> pd.DataFrame:
    """Draw tables in long form with distinct times, in which each series and each channel has a value."""
    keys = draw(st.lists(st.tuples(st.sampled_from("abc"), st.integers(-5, 20)), min_size=2, max_size=25, unique=True))
    cells = st.one_of(st.just(NAN), st.floats(-1e6, 1e6))
    x = draw(st.lists(cells, min_size=len(keys), max_size=len(keys)))
    y = draw(st.lists(st.floats(-1, 1), min_size=len(keys), max_size=len(keys)))
    gaps = draw(st.lists(st.booleans(), min_size=len(keys), max_size=len(keys)))
    frame = pd.DataFrame({"id": [k for k, _ in keys], "t": [t / 4 for _, t in keys], "x": x, "y": y})
    frame.loc[np.array(gaps) & frame.duplicated("id"), "y"] = NAN  # the first row of a series has a y
    frame.loc[0, "x"] = 0.5
    frame.loc[1, "y"] = 0.5  # at least two rows have a value
    return frame


@settings(max_examples=50, deadline=None)
@given(frame=tables(), data=st.data())
def test_the_order_of_rows_does_not_matter(frame: pd.DataFrame, data: st.DataObject):
    order = data.draw(st.permutations(range(len(frame))))
    read = {"series": "id", "time": "t"}
    same(read_series(frame, **read), read_series(frame.iloc[list(order)], **read), any_order=True)


@settings(max_examples=50, deadline=None)
@given(frame=tables(), stamped=st.booleans())
def test_a_table_converted_to_a_frame_reads_the_same(frame: pd.DataFrame, stamped: bool):
    if stamped:
        frame = frame.assign(t=pd.to_datetime(frame["t"], unit="s", utc=True).dt.tz_convert("Asia/Kolkata"))
    table = read_series(frame, series="id", time="t")
    cells = table.frame()
    assert list(cells.columns) == ["id", "t", "x", "y"]
    same(table, read_series(cells, series="id", time="t"))
    expected = frame.dropna(how="all", subset=["x", "y"]).sort_values(["id", "t"]).reset_index(drop=True)
    pd.testing.assert_frame_equal(
        cells.sort_values(["id", "t"]).reset_index(drop=True), expected, check_dtype=False, check_index_type=False
    )


def test_a_frame_indexed_by_date_keeps_its_index():
    frame = pd.DataFrame({"x": [1.0, 2.0]}, index=pd.date_range("2026-01-01", periods=2, tz="Europe/Berlin"))
    table = read_series(frame)
    assert (table.frame().index == frame.index).all()
    same(table, read_series(table.frame()))


# --- invalid tables

LONG = {"series": "who", "time": "day"}
BAD = {
    "missing column": (visits(), {"time": "dya"}, "no column 'dya' for time; did you mean 'day'? Its columns: 'who'"),
    "missing series column": (visits(), {"series": "zzz"}, "no column 'zzz' for series; Its columns"),
    "missing value column": (
        visits(),
        LONG | {"values": ["puls"]},
        "no column 'puls' for values; did you mean 'pulse'?",
    ),
    "no rows": (visits()[:0], LONG, "the table has no rows"),
    "no value column": (visits()[["who", "day"]], LONG, "no column is left for values among 'who', 'day'"),
    "no values options for": (visits(), LONG | {"values": []}, "no column is left for values"),
    "two roles": (visits(), {"series": "day", "time": "day"}, "column 'day' is given for series and for time"),
    "time is a value": (visits(), LONG | {"values": ["day"]}, "column 'day' is given for time and for values"),
    "value twice": (visits(), LONG | {"values": ["ill", "ill"]}, "column 'ill' is given for values and for values"),
    "names twice": (visits().set_axis(["who", "day", "x", "x"], axis=1), LONG, "column 'x' comes twice"),
    "too few channel names": (visits(), LONG | {"channels": ["a"]}, "channels=('a',) does not name 'pulse', 'ill'"),
    "a channel like time": (visits(), LONG | {"channels": ["day", "b"]}, "channels=('day', 'b')"),
    "text as time": (
        visits(day=[2, 1, "soon", 3, 4]),
        LONG,
        "column 'day' has 'soon' at row 3 (series 'b'); wanted a num",
    ),
    "only text as time": (
        visits(day="soon"),
        LONG,
        "'soon' at row 1 (series 'b'); wanted a number, or a timestamp such",
    ),
    "a day that is not": (
        visits(day=["2026-01-01", "2026-02-30", "2026-03-01", "2026-03-02", "2026-03-03"]),
        LONG,
        "'2026-02-30' at row 2 (series 'a'); wanted a timestamp",
    ),
    "today": (visits(day=["2026-01-01", "today", "2026-03-01", "2026-03-02", "2026-03-03"]), LONG, "'today' at row 2"),
    "a zone on one time": (
        visits(day=["2026-01-01", "2026-01-02T00:00Z", "2026-03-01", "2026-03-02", "2026-03-03"]),
        LONG,
        "'2026-01-02T00:00Z', with a time zone, at row 2 (series 'a'); wanted times without",
    ),
    "mixed times": (
        visits(day=["0.5", "2026-01-02", "3", "4", "5"]),
        LONG,
        "'2026-01-02' at row 2 (series 'a'); wanted a n",
    ),
    "mixed the other way": (
        visits(day=[pd.Timestamp("2026-01-02"), 1, 2, 3, 4]),
        LONG,
        "1 at row 2 (series 'a'); wanted a t",
    ),
    "no time": (
        visits(day=[0, 1, 2, NAN, 3]),
        LONG,
        "column 'day' has no time at row 4 (series 'a'); wanted one in every",
    ),
    "no timestamp": (visits(day=pd.to_datetime(["2026-01-01", None, None, None, None])), LONG, "no time at row 2"),
    "blank time": (visits(day=["0", "1", " ", "2", "3"]), LONG, "no time at row 3 (series 'b')"),
    "no time at all": (visits(day=None), LONG, "column 'day' has no time at row 1"),
    "infinite time": (
        visits(day=[0, 1, 2, 3, -np.inf]),
        LONG,
        "column 'day' has an infinite time at row 5 (series 'b')",
    ),
    "duplicate time": (
        visits(day=[2, 1, 2, 3, 4], ill=1),
        LONG,
        "column 'day' has 2 at row 1 and again at row 3 (series 'b'); wanted each time once a series.",
    ),
    "forgotten series": (
        visits(ill=1),
        {"time": "day", "values": ["ill"]},
        "1.0 at row 2 and again at row 5; wanted each time once (series= names the column",
    ),
    "text as value": (
        visits(pulse=["1", "2", "n/a?", "3", ""]),
        LONG,
        "column 'pulse' has 'n/a?' at row 3 (series 'b'); wanted a number, or nothing for a gap.",
    ),
    "infinite value": (
        visits(pulse=[1, 2, 3, np.inf, 4]),
        LONG,
        "column 'pulse' has an infinite value at row 4 (series 'a')",
    ),
    "complex value": (visits(pulse=[1, 2, 3j, 3, 4]), LONG, "column 'pulse' has (1+0j) at row 1"),
    "object value": (visits(pulse=[1, [2], 3, 4, 5]), LONG, "column 'pulse' has [2] at row 2 (series 'a')"),
    "date as value": (
        visits(pulse=pd.Timestamp("2026-01-01")),
        LONG,
        "column 'pulse' has 2026-01-01 00:00:00 at row 1",
    ),
    "duration as value": (visits(pulse=pd.Timedelta(1, "s")), LONG, "column 'pulse' has 0 days 00:00:01 at row 1"),
    "channel never seen": (visits(pulse=NAN), LONG, "column 'pulse' has no values; wanted at least one"),
    "series never seen": (
        visits(pulse=[1, NAN, 2, NAN, 3], ill=[1, None, 0, None, 1]),
        LONG,
        "series 'a' has no values in 'pulse', 'ill'",
    ),
    "new series never seen": (
        visits(pulse=NAN, ill=[1, None, 0, None, 1]),
        LONG | {"new": True},
        "series 'a' has no values",
    ),
    "new table never seen": (visits()[["pulse"]] * NAN, {"new": True}, "the table has no values in 'pulse'"),
    "single row": (visits()[:1], LONG, "values in a single row"),
    "single row with values": (visits()[:1].reindex(range(3))[["pulse", "ill"]], {}, "values in a single row"),
    "no id": (
        visits(who=["a", None, "b", "b", "a"]),
        LONG,
        "column 'who' has no series id at row 2; wanted one in every row",
    ),
    "blank id": (visits(who=["a", "a", "b", " ", "a"]), LONG, "column 'who' has no series id at row 4"),
    "list as id": (visits(who=[[1], [1], [2], [2], [1]]), LONG, "column 'who' has ids that cannot be hashed"),
    "one axis": (np.ones(3), {}, "the array has shape [3]; wanted [rows, channels]"),
    "complex array": (np.ones((2, 1)) * 1j, {}, "column 'x0' has 1j at row 1; wanted a number"),
}


@pytest.mark.parametrize(("source", "options", "sentence"), BAD.values(), ids=BAD)
def test_an_invalid_table_is_rejected_with_column_and_row(source: object, options: dict, sentence: str):
    with pytest.raises(ValueError, match=".") as caught:
        read_series(source, **options)
    message = str(caught.value)
    assert sentence in message
    assert message.endswith(".")
    assert "\n" not in message


FILES = {
    "no columns": ("x.csv", b"", "cannot be read as .csv: No columns to parse from file."),
    "only comments": ("x.csv", b"# nothing\n", "cannot be read as .csv"),
    "ragged": ("x.csv", b"t,x\n0,1\n0,1,2,3\n", "cannot be read as .csv: Error tokenizing data"),
    "wide rows": ("x.csv", b"t,x\n0,1,2\n3,4,5\n", "rows have more cells than the first line has names (2)"),
    "names twice": ("x.csv", b"t,x, x\n0,1,2\n", "column 'x' comes twice"),
    "no name": ("x.csv", b",t,x\n0,1,2\n", "column 1 has no name in the first line"),
    "not text": ("x.csv", b"t,x\n\xff\xfe,1\n", "cannot be read as .csv: 'utf-8' codec"),
    "no parquet": ("x.parquet", b"t,x\n0,1\n", "cannot be read as .parquet"),
    "one wide row": ("x.csv", b"t,x\n0,1\n0,1,2\n", "cannot be read as .csv: Error tokenizing data"),
    "unknown ending": ("x.xlsx", b"t,x\n0,1\n", "ends in '.xlsx'; wanted .csv, .tsv or .parquet."),
    "no ending": ("x", b"t,x\n0,1\n", "ends in ''"),
    "no rows": ("x.csv", b"t,x\n", "the table has no rows, only the columns 't', 'x'"),
    "text as value": (
        "x.csv",
        b"# 1\nt,x\n0,1\n\n1,2\n# 2\n2,n/a?\n",
        "column 'x' has 'n/a?' at row 3; wanted a number",
    ),
}


@pytest.mark.parametrize(("name", "content", "sentence"), FILES.values(), ids=FILES)
def test_an_invalid_file_is_rejected_with_a_reason(tmp_path: Path, name: str, content: bytes, sentence: str):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=".") as caught:
        read_series(tmp_path / name)
    message = str(caught.value)
    assert sentence in message
    assert message.endswith(".")
    assert "\n" not in message


def test_a_missing_file_raises_with_its_name(tmp_path: Path):
    with pytest.raises(FileNotFoundError, match="there is no file '.*gone.csv'"):
        read_table(tmp_path / "gone.csv")


@pytest.mark.parametrize("source", [None, 3, [[1.0]], {"x": [1.0]}, pd.Series([1.0])])
def test_a_source_that_is_not_a_table_raises_a_type_error(source: object):
    with pytest.raises(TypeError, match=f"the table is a {type(source).__name__}; wanted a DataFrame"):
        read_table(source)  # type: ignore[arg-type]
