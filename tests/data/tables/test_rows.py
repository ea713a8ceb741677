"""Tables of rows: read cell by cell, and put on a common scale."""

import json
import math
import re

import numpy as np
import pandas as pd
import pytest

from neuralode.data.tables.rows import Rows, Standard, check_enough, read_rows

NAN = float("nan")


def rows_of(**columns) -> Rows:
    return Rows(tuple(columns), np.column_stack([np.asarray(column, float) for column in columns.values()]))


def test_every_form_of_a_table_is_read_alike(tmp_path):
    frame = pd.DataFrame({"a": [1, 2, 3], "b": [0.5, -1e9, 2.0]})
    for name, write in (("t.csv", frame.to_csv), ("t.parquet", frame.to_parquet)):
        write(tmp_path / name, index=False)
    frame.to_csv(tmp_path / "t.tsv", sep="\t", index=False)
    for source in (frame, *(tmp_path / name for name in ("t.csv", "t.tsv", "t.parquet"))):
        rows = read_rows(source)
        assert rows.names == ("a", "b")
        assert rows.values.dtype == np.float64
        assert rows.values.tolist() == [[1, 0.5], [2, -1e9], [3, 2]]
    assert read_rows(frame.to_numpy()).names == ("x0", "x1")
    assert read_rows(frame, ["b"]).values.tolist() == [[0.5], [-1e9], [2]]
    assert read_rows(pd.DataFrame({"a": ["1.5", "2"]})).values.tolist() == [[1.5], [2]]


@pytest.mark.parametrize(
    ("table", "columns", "sentence"),
    [
        (
            {"a": [1, 2], "kind": ["1", "rose"]},
            None,
            "column 'kind' has 'rose' at row 2; wanted a number, or the column",
        ),
        ({"a": [True, False]}, None, "column 'a' has True at row 1; wanted a number"),
        ({"a": [1.5, True]}, None, "column 'a' has True at row 2; wanted a number"),
        ({"a": [1.0, NAN]}, None, "column 'a' has nothing at row 2; wanted a number: fill gaps or leave such rows out"),
        ({"a": ["1", " "]}, None, "column 'a' has nothing at row 2"),
        ({"a": [1, 2], "b": [np.inf, 1]}, None, "column 'b' has an infinite value at row 1; wanted a finite number"),
        ({"a": pd.to_datetime(["2026-01-01"])}, None, "column 'a' has 2026-01-01 00:00:00 at row 1; wanted a number"),
        ({"a": [1 + 2j]}, None, "column 'a' has (1+2j) at row 1; wanted a number"),
        ({"a": []}, None, "the table has no rows, only the columns 'a'"),
        ({"width": [1]}, ["widht"], "the table has no column 'widht'; did you mean 'width'? Its columns: 'width'."),
        ({"a": [1], "b": [2]}, ["a", "a"], "column 'a' is named twice; wanted each once"),
        ({"a": [1]}, [], "the table has no columns; wanted one or more of numbers"),
    ],
)
def test_what_is_no_number_is_named_with_its_row(table, columns, sentence):
    with pytest.raises(ValueError, match=re.escape(sentence)):
        read_rows(pd.DataFrame(table), columns)


def test_columns_that_are_not_named_are_not_looked_at():
    frame = pd.DataFrame({"a": [1.0, 2.0], "kind": ["x", None]})
    assert read_rows(frame, "a").values.tolist() == [[1], [2]]


def test_names_that_come_twice_are_refused(tmp_path):
    (tmp_path / "t.csv").write_text("a,a\n1,2\n")
    with pytest.raises(ValueError, match="column 'a' comes twice"):
        read_rows(tmp_path / "t.csv")


@pytest.mark.parametrize(("count", "columns", "least"), [(9, 1, 10), (10, 10, 11), (1, 2, 10)])
def test_too_few_rows_are_refused(count, columns, least):
    names = tuple(f"c{k}" for k in range(columns))
    with pytest.raises(ValueError, match=f"{count} rows? of {columns} columns?; wanted at least {least} rows"):
        check_enough(Rows(names, np.zeros((count, columns))))
    check_enough(Rows(names, np.zeros((least, columns))))


def test_the_common_scale_has_mean_0_and_deviation_1_and_can_be_undone():
    values = np.random.default_rng(0).normal([5, -1e6, 1e-9], [1, 1e3, 1e-12], (500, 3))
    rows = Rows(("a", "b", "c"), values)
    standard = Standard.of(rows)
    scaled = standard.apply(values)
    assert np.allclose(scaled.mean(0), 0, atol=1e-9)
    assert np.allclose(scaled.std(0), 1)
    assert np.allclose(standard.undo(scaled), values, rtol=1e-12)
    assert standard.log_volume == pytest.approx(np.log(values.std(0)).sum())
    assert standard.remarks(rows) == []


def test_numbers_whose_squares_are_none_have_a_scale():
    values = np.linspace(1, 3, 40)[:, None] * [1e200, 1e-200]
    assert np.allclose(Standard.of(Rows(("a", "b"), values)).apply(values).std(0), 1)


def test_a_change_of_units_changes_nothing_on_the_common_scale():
    values = np.random.default_rng(0).normal(size=(50, 2))
    here = Standard.of(Rows(("a", "b"), values))
    there = Standard.of(Rows(("a", "b"), 1e-15 * values + [0, 1e-14]))
    assert np.allclose(here.apply(values), there.apply(1e-15 * values + [0, 1e-14]))
    assert there.log_volume - here.log_volume == pytest.approx(2 * math.log(1e-15))


def test_a_constant_is_left_out_named_and_put_back():
    rows = rows_of(a=np.linspace(0, 1, 20), rate=np.full(20, 0.1), b=np.linspace(5, 3, 20) ** 2)
    standard = Standard.of(rows)
    assert standard.constant == ("rate",)
    assert standard.features == 2
    assert np.allclose(standard.undo(standard.apply(rows.values)), rows.values)
    assert standard.undo(np.zeros((3, 2)))[:, 1].tolist() == [0.1] * 3
    assert standard.remarks(rows) == [
        "column 'rate' is the same in every row that was learned from: left out, the density is of "
        "the others, and that of a row with another value is 0."
    ]


def test_a_column_that_differs_by_rounding_is_constant():
    rows = rows_of(a=np.linspace(0, 1, 20), sum=0.3 + np.arange(20) % 2 * 1e-16)
    assert Standard.of(rows).constant == ("sum",)


def test_rows_that_differ_from_a_constant_are_told_from_those_that_differ_by_rounding():
    rows = rows_of(a=np.linspace(0, 1, 20), rate=0.3 + np.arange(20) % 2 * 1e-16, none=np.zeros(20))
    standard = Standard.of(rows)
    assert standard.constant == ("rate", "none")
    assert standard.alike(rows.values).all()
    others = np.array([[9.0, 0.3, 0.0], [0.5, 0.3 + 1e-9, 0.0], [0.5, 0.3, 1e-30], [0.5, -0.3, 0.0]])
    assert standard.alike(others).tolist() == [True, False, False, False]
    assert Standard.of(Rows(("a",), rows.values[:, :1])).alike(others[:, :1]).all()


def test_a_table_of_constants_is_refused():
    with pytest.raises(ValueError, match="no column changes among 'a', 'b'"):
        Standard.of(rows_of(a=[1, 1], b=[0, 0]))


def test_columns_that_repeat_their_values_are_named_and_can_be_spread_to_the_next():
    rng = np.random.default_rng(0)
    rows = rows_of(age=rng.integers(20, 60, 300), weight=rng.normal(70, 10, 300), dose=rng.choice([0, 25, 50], 300))
    standard = Standard.of(rows)
    assert standard.repeated == ("age", "dose")
    assert standard.reach.tolist() == [0.5, 0.0, 12.5]
    assert standard.spread[0] == pytest.approx(0.5 / rows.values[:, 0].std())
    [remark] = standard.remarks(rows)
    assert remark.startswith("most rows repeat a value in 'age', 'dose'")
    assert "nats are of the spread rows; scores are densities at the values themselves" in remark
    [remark] = standard.remarks(rows, spread=False)
    assert remark.endswith("as rows of a density do not: the likelihood of such rows has no bound.")


def test_repeated_values_are_spread_over_their_reach_alike_each_time_and_no_others():
    rng = np.random.default_rng(0)
    rows = rows_of(one=np.ones(400), sold=rng.integers(0, 2, 400) * 5.0, weight=rng.normal(70, 10, 400))
    standard = Standard.of(rows)
    spread = standard.spread_out(rows.values)
    assert np.array_equal(spread, standard.spread_out(rows.values))
    assert np.array_equal(spread[:, [0, 2]], rows.values[:, [0, 2]])
    moved = spread[:, 1] - rows.values[:, 1]
    assert np.abs(moved).max() <= 2.5
    assert moved.mean() == pytest.approx(0, abs=4 * 2.5 / 1200**0.5)
    assert moved.std() == pytest.approx(5 / 12**0.5, rel=0.1)


def test_columns_that_follow_from_others_are_told_of():
    a, b = np.random.default_rng(0).normal(size=(2, 100))
    total, nearly = rows_of(a=a, b=b, total=a + 2 * b), rows_of(a=a, b=b, total=a + 2 * b + 1e-3 * a**2)
    [remark] = Standard.of(total).remarks(total)
    assert remark.startswith("a column among 'a', 'b', 'total' follows from the others by a sum of multiples")
    assert Standard.of(nearly).remarks(nearly) == []


def test_a_scale_is_kept_as_json_bit_by_bit():
    rows = rows_of(a=np.random.default_rng(0).normal(1 / 3, 1e-7, 30), b=np.ones(30))
    standard = Standard.of(rows)
    again = Standard.from_json(json.loads(json.dumps(standard.to_json())))
    assert again.names == standard.names
    for name in ("mean", "deviation", "reach"):
        assert np.array_equal(getattr(again, name), getattr(standard, name))
