"""Scaling of channels with missing values."""

import json

import numpy as np
import pytest

from neuralode.data.tables.scaling import LOWEST, Scaling, skewness

NAN = float("nan")


def table() -> np.ndarray:
    rng = np.random.default_rng(0)
    columns = [rng.normal(5, 3, 50), np.exp(rng.normal(0, 2, 50)), rng.integers(0, 2, 50), np.full(50, 7.0)]
    values = np.stack(columns, 1)
    values[rng.random(values.shape) < 0.2] = NAN
    return values


def test_every_channel_has_mean_0_and_deviation_1():
    values = table()
    scaled = Scaling.fit(values).apply(values)
    assert np.allclose(np.nanmean(scaled, 0), 0, atol=1e-12)
    assert np.allclose(np.nanstd(scaled, 0)[:3], 1)
    assert np.array_equal(np.isnan(scaled), np.isnan(values))


def test_a_constant_channel_is_centred_and_keeps_its_unit():
    scaling = Scaling.fit(table())
    assert (scaling.mean[3], scaling.deviation[3]) == (7.0, 1.0)
    assert Scaling.fit(np.full((3, 1), 1e9)).deviation.tolist() == [1.0]


def test_only_positive_and_skewed_channels_are_logged():
    values = table()
    assert Scaling.fit(values).logged.tolist() == [False, True, False, False]
    assert Scaling.fit(values, logs=False).logged.tolist() == [False] * 4
    values[np.flatnonzero(np.isfinite(values[:, 1]))[0], 1] = 0.0
    assert not Scaling.fit(values).logged[1]


def test_unscaled_and_unobserved_channels_are_unchanged():
    values = table()
    values[:, 0] = NAN
    scaling = Scaling.fit(values, unscaled=(2,))
    assert np.array_equal(scaling.apply(values)[:, 2], values[:, 2], equal_nan=True)
    assert (scaling.mean[0], scaling.deviation[0]) == (0.0, 1.0)


def test_invert_restores_scaled_values():
    values = table()
    scaling = Scaling.fit(values)
    np.testing.assert_allclose(scaling.invert(scaling.apply(values)), values, rtol=1e-12)
    several = np.stack([values, 2 * values])  # along the last axis
    assert np.array_equal(scaling.apply(several)[1], scaling.apply(2 * values), equal_nan=True)


@pytest.mark.parametrize("value", [0.0, -3.0, 1e-300])
def test_values_of_a_logged_channel_are_bounded_below(value):
    scaling = Scaling.fit(np.exp(np.random.default_rng(0).normal(0, 2, (50, 1))))
    assert scaling.logged.all()
    assert scaling.apply(np.array([value])) == pytest.approx(LOWEST)
    assert scaling.invert(np.array([-100.0, 100.0])[:, None]).min() > 0


def test_json_restores_the_scaling():
    values = table()
    scaling = Scaling.fit(values)
    again = Scaling.from_json(json.loads(json.dumps(scaling.to_json())))
    assert np.array_equal(again.apply(values), scaling.apply(values), equal_nan=True)
    assert again.logged.dtype == bool


def test_skewness():
    assert skewness(np.array([0.0, 0.0, 3.0])) == pytest.approx(2**-0.5)
    assert skewness(np.array([1.0, 2.0, 3.0])) == pytest.approx(0)
    assert skewness(np.full(5, 0.1)) == 0
