"""Tables of rows are read and validated cell by cell."""

import re

import numpy as np
import pandas as pd
import pytest

from neuralode.data.tables.rows import Rows, check_enough, read_rows

NAN = float("nan")


def test_all_forms_of_a_table_are_equivalent(tmp_path):
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
def test_a_cell_that_is_not_a_number_is_rejected_with_its_row(table, columns, sentence):
    with pytest.raises(ValueError, match=re.escape(sentence)):
        read_rows(pd.DataFrame(table), columns)


def test_columns_that_are_not_selected_are_ignored():
    frame = pd.DataFrame({"a": [1.0, 2.0], "kind": ["x", None]})
    assert read_rows(frame, "a").values.tolist() == [[1], [2]]


def test_duplicate_names_are_rejected(tmp_path):
    (tmp_path / "t.csv").write_text("a,a\n1,2\n")
    with pytest.raises(ValueError, match="column 'a' comes twice"):
        read_rows(tmp_path / "t.csv")


@pytest.mark.parametrize(("count", "columns", "least"), [(9, 1, 10), (10, 10, 11), (1, 2, 10)])
def test_too_few_rows_are_rejected(count, columns, least):
    names = tuple(f"c{k}" for k in range(columns))
    with pytest.raises(ValueError, match=f"{count} rows? of {columns} columns?; wanted at least {least} rows"):
        check_enough(Rows(names, np.zeros((count, columns))))
    check_enough(Rows(names, np.zeros((least, columns))))
