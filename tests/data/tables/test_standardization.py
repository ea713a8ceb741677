"""Standardization of the columns of a table, and findings about columns that have no density."""

import json
import math

import numpy as np
import pytest

from neuralode.data.tables.rows import Rows
from neuralode.data.tables.standardization import Standardization


def rows_of(**columns) -> Rows:
    return Rows(tuple(columns), np.column_stack([np.asarray(column, float) for column in columns.values()]))


def test_standardized_columns_have_mean_0_and_deviation_1_and_can_be_inverted():
    values = np.random.default_rng(0).normal([5, -1e6, 1e-9], [1, 1e3, 1e-12], (500, 3))
    rows = Rows(("a", "b", "c"), values)
    standard = Standardization.fit(rows)
    scaled = standard.apply(values)
    assert np.allclose(scaled.mean(0), 0, atol=1e-9)
    assert np.allclose(scaled.std(0), 1)
    assert np.allclose(standard.invert(scaled), values, rtol=1e-12)
    assert standard.log_volume == pytest.approx(np.log(values.std(0)).sum())
    assert standard.remarks(rows) == []


def test_numbers_whose_squares_overflow_are_standardized():
    values = np.linspace(1, 3, 40)[:, None] * [1e200, 1e-200]
    assert np.allclose(Standardization.fit(Rows(("a", "b"), values)).apply(values).std(0), 1)


def test_a_change_of_units_does_not_change_standardized_values():
    values = np.random.default_rng(0).normal(size=(50, 2))
    here = Standardization.fit(Rows(("a", "b"), values))
    there = Standardization.fit(Rows(("a", "b"), 1e-15 * values + [0, 1e-14]))
    assert np.allclose(here.apply(values), there.apply(1e-15 * values + [0, 1e-14]))
    assert there.log_volume - here.log_volume == pytest.approx(2 * math.log(1e-15))


def test_a_constant_column_is_left_out_and_restored():
    rows = rows_of(a=np.linspace(0, 1, 20), rate=np.full(20, 0.1), b=np.linspace(5, 3, 20) ** 2)
    standard = Standardization.fit(rows)
    assert standard.constant == ("rate",)
    assert standard.features == 2
    assert np.allclose(standard.invert(standard.apply(rows.values)), rows.values)
    assert standard.invert(np.zeros((3, 2)))[:, 1].tolist() == [0.1] * 3
    assert standard.remarks(rows) == [
        "column 'rate' is constant in the training rows and left out: the density is that of the "
        "other columns, and rows with another value have density 0."
    ]


def test_a_column_that_differs_by_rounding_is_constant():
    rows = rows_of(a=np.linspace(0, 1, 20), sum=0.3 + np.arange(20) % 2 * 1e-16)
    assert Standardization.fit(rows).constant == ("sum",)


def test_matches_constants_up_to_rounding():
    rows = rows_of(a=np.linspace(0, 1, 20), rate=0.3 + np.arange(20) % 2 * 1e-16, none=np.zeros(20))
    standard = Standardization.fit(rows)
    assert standard.constant == ("rate", "none")
    assert standard.matches_constants(rows.values).all()
    others = np.array([[9.0, 0.3, 0.0], [0.5, 0.3 + 1e-9, 0.0], [0.5, 0.3, 1e-30], [0.5, -0.3, 0.0]])
    assert standard.matches_constants(others).tolist() == [True, False, False, False]
    assert Standardization.fit(Rows(("a",), rows.values[:, :1])).matches_constants(others[:, :1]).all()


def test_a_table_of_constants_is_rejected():
    with pytest.raises(ValueError, match="no column changes among 'a', 'b'"):
        Standardization.fit(rows_of(a=[1, 1], b=[0, 0]))


def test_columns_that_repeat_values_are_reported_with_their_reach():
    rng = np.random.default_rng(0)
    rows = rows_of(age=rng.integers(20, 60, 300), weight=rng.normal(70, 10, 300), dose=rng.choice([0, 25, 50], 300))
    standard = Standardization.fit(rows)
    assert standard.repeated == ("age", "dose")
    assert standard.reach.tolist() == [0.5, 0.0, 12.5]
    assert standard.scaled_reach[0] == pytest.approx(0.5 / rows.values[:, 0].std())
    [remark] = standard.remarks(rows)
    assert remark.startswith("most rows repeat a value in 'age', 'dose'")
    assert "nats refer to the rows with noise; scores are densities at the values themselves" in remark
    [remark] = standard.remarks(rows, spread=False)
    assert remark.endswith("so that there is no density: the likelihood is unbounded.")


def test_dequantize_adds_the_same_uniform_noise_to_repeated_values_only():
    rng = np.random.default_rng(0)
    rows = rows_of(one=np.ones(400), sold=rng.integers(0, 2, 400) * 5.0, weight=rng.normal(70, 10, 400))
    standard = Standardization.fit(rows)
    spread = standard.dequantize(rows.values)
    assert np.array_equal(spread, standard.dequantize(rows.values))
    assert np.array_equal(spread[:, [0, 2]], rows.values[:, [0, 2]])
    moved = spread[:, 1] - rows.values[:, 1]
    assert np.abs(moved).max() <= 2.5
    assert moved.mean() == pytest.approx(0, abs=4 * 2.5 / 1200**0.5)
    assert moved.std() == pytest.approx(5 / 12**0.5, rel=0.1)


def test_linearly_dependent_columns_are_reported():
    a, b = np.random.default_rng(0).normal(size=(2, 100))
    total, nearly = rows_of(a=a, b=b, total=a + 2 * b), rows_of(a=a, b=b, total=a + 2 * b + 1e-3 * a**2)
    [remark] = Standardization.fit(total).remarks(total)
    assert remark.startswith("a column among 'a', 'b', 'total' is a linear combination of the others")
    assert Standardization.fit(nearly).remarks(nearly) == []


def test_json_restores_every_bit():
    rows = rows_of(a=np.random.default_rng(0).normal(1 / 3, 1e-7, 30), b=np.ones(30))
    standard = Standardization.fit(rows)
    again = Standardization.from_json(json.loads(json.dumps(standard.to_json())))
    assert again.names == standard.names
    for name in ("mean", "deviation", "reach"):
        assert np.array_equal(getattr(again, name), getattr(standard, name))
