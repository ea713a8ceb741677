"""Held-out observations of a forecaster, its baselines and their errors, and the hyperparameters it chooses."""

import numpy as np
import pytest

from neuralode.estimators.forecaster.baselines import estimate_period, last_value, linear, seasonal
from neuralode.estimators.forecaster.evaluation import COLUMNS, compare_with_baselines, r_squared, rmse
from neuralode.estimators.forecaster.holdout import HeldOut, hold_out
from neuralode.estimators.forecaster.hyperparameters import choose_setup
from neuralode.training.modules.forecasting import WindowSpec

NAN = float("nan")
WINDOWS = WindowSpec(12, 8)


def pair(length: int, channels: int = 2, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    return np.arange(float(length)), rng.normal(size=(length, channels))


# --- baselines


def test_last_value_repeats_the_last_observation_of_each_channel():
    t, x = np.arange(3.0), np.array([[1.0, NAN], [NAN, 5.0], [3.0, NAN]])
    found = last_value(t, x, np.array([-1.0, 0.5, 2.0, 9.0]))
    assert found.tolist() == [[1, 5], [1, 5], [3, 5], [3, 5]]


def test_linear_interpolates_and_is_constant_beyond_the_ends():
    t, x = np.arange(3.0), np.array([[0.0], [NAN], [4.0]])
    assert linear(t, x, np.array([-1.0, 0.5, 1.0, 7.0]))[:, 0].tolist() == [0, 1, 2, 4]


@pytest.mark.parametrize("method", [last_value, linear, seasonal])
def test_an_unobserved_channel_has_no_baseline(method):
    t, x = np.arange(3.0), np.array([[0.0, NAN], [1.0, NAN], [2.0, NAN]])
    found = method(t, x, np.array([1.5]))
    assert np.isfinite(found[0, 0])
    assert np.isnan(found[0, 1])


@pytest.mark.parametrize("origin", [0.0, 1.7e9])
def test_a_period_is_estimated_and_repeated(origin):
    t = origin + np.sort(np.random.default_rng(0).uniform(0, 40, 160))
    wave = np.sin(2 * np.pi * (t - origin) / 8)[:, None]
    assert estimate_period(t, wave[:, 0]) == pytest.approx(8, rel=0.1)
    ahead = origin + np.array([41.0, 45.0, 60.0])
    assert np.allclose(seasonal(t, wave, ahead)[:, 0], np.sin(2 * np.pi * (ahead - origin) / 8), atol=0.4)


@pytest.mark.parametrize("origin", [0.0, 1.7e9])
def test_without_a_period_the_trend_is_extrapolated(origin):
    t = origin + np.arange(20.0)
    assert estimate_period(t, 3 * t) is None
    assert seasonal(t, 2.0 * np.arange(20.0)[:, None], origin + np.array([25.0]))[0, 0] == pytest.approx(50)
    assert seasonal(t[:1], np.ones((1, 1)), origin + np.array([25.0]))[0, 0] == 1


# --- what is held out


def test_the_end_of_every_series_that_is_long_enough_is_held_out():
    held = hold_out([pair(20), pair(4), pair(5)], 0.2, WINDOWS, rng=np.random.default_rng(0), gap_fraction=0)
    assert [(number, len(times)) for number, times, _ in held.ends] == [(0, 4), (2, 1)]
    assert [len(times) for times, _ in held.train] == [16, 4, 4]
    assert held.gaps == []
    for number, times, _ in held.ends:
        assert held.train[number][0].max() < times.min()


def test_no_more_is_held_out_than_a_window_forecasts():
    held = hold_out([pair(100)], 0.5, WINDOWS, rng=np.random.default_rng(0))
    assert len(held.ends[0][1]) == 4
    held = hold_out([pair(5)], 0.9, WindowSpec(60, 2), rng=np.random.default_rng(0))
    assert len(held.train[0][0]) == 2


def test_a_tenth_of_the_values_within_is_held_out_and_nothing_else_changes():
    times, values = pair(300)
    values[5] = [NAN, 1.0]
    before = values.copy()
    held = hold_out([(times, values)], 0.2, WINDOWS, rng=np.random.default_rng(0))
    [(number, at, hidden)] = held.gaps
    assert number == 0
    assert 0.06 < np.isfinite(hidden).sum() / 592 < 0.14
    kept_at, kept = held.train[0]
    assert np.isfinite(kept).any(1).all()
    restored = np.full((296, 2), NAN)
    restored[kept_at.astype(int)] = kept
    places = at.astype(int)
    restored[places] = np.where(np.isfinite(hidden), hidden, restored[places])
    assert np.array_equal(restored, before[:296], equal_nan=True)
    assert np.array_equal(values, before, equal_nan=True)
    assert kept_at[[0, -1]].tolist() == [0.0, 295.0]


def test_a_fraction_of_0_holds_out_nothing():
    series = [pair(50)]
    held = hold_out(series, 0, WINDOWS, rng=np.random.default_rng(0))
    assert (held.ends, held.gaps) == ([], [])
    assert held.train == series


# --- side by side


def perfect(series, targets):
    """Predict exactly: values are twice their time, and 1 in the second channel."""
    means = [np.stack([2 * at, np.ones_like(at)], 1)[None].repeat(3, 0) for at in targets]
    return list(zip(means, means, strict=True))


def lines(length: int = 20) -> list[tuple[np.ndarray, np.ndarray]]:
    t = np.arange(float(length))
    return [(t, np.stack([2 * t, np.ones_like(t)], 1)), (t + 3, np.stack([2 * t + 6, np.full_like(t, NAN)], 1))]


def test_errors_are_compared_with_those_of_the_baselines():
    held = hold_out(lines(), 0.2, WINDOWS, rng=np.random.default_rng(0))
    errors = compare_with_baselines(perfect, held, ["up", "level"])
    assert list(errors) == COLUMNS
    assert errors["what"].tolist() == ["forecast", "forecast", "filling", "filling"]
    ahead = errors[(errors["what"] == "forecast") & (errors["channel"] == "up")].iloc[0]
    assert ahead["values"] == 8
    assert ahead["model"] == 0
    assert ahead["last_value"] == pytest.approx(np.sqrt(np.mean([4, 16, 36, 64])))
    assert ahead["baseline"] == pytest.approx(0, abs=1e-9)
    assert errors[errors["channel"] == "level"]["values"].iloc[0] == 4


def test_unobserved_channels_are_not_compared():
    series = [(t, np.where([True, False], x, NAN)) for t, x in lines()]
    errors = compare_with_baselines(
        perfect, hold_out(series, 0.2, WINDOWS, rng=np.random.default_rng(0)), ["up", "level"]
    )
    assert set(errors["channel"]) == {"up"}
    assert compare_with_baselines(perfect, HeldOut(series, [], []), ["up", "level"]).empty


def test_rmse_ignores_missing_predictions():
    assert rmse(np.array([1.0, NAN, 5.0]), np.array([1.0, 2.0, 2.0])) == pytest.approx(np.sqrt(4.5))
    assert np.isnan(rmse(np.array([NAN]), np.array([1.0])))


def test_r_squared_is_1_for_perfect_forecasts_and_0_for_the_mean():
    held = hold_out(lines(), 0.2, WINDOWS, rng=np.random.default_rng(0), gap_fraction=0)

    def mean(series, targets):
        level = np.mean(np.concatenate([values[:, 0] for *_, values in held.ends]))
        return [(np.broadcast_to([level, 0.0], (1, len(at), 2)),) * 2 for at in targets]

    assert r_squared(perfect, held) == 1
    assert r_squared(mean, held) == pytest.approx(0)  # both channels score 0: the forecast misses the constant


def test_r_squared_ignores_unobserved_channels():
    t, x = lines()[0]
    held = hold_out([(t, np.where([True, False], x, NAN))], 0.2, WINDOWS, rng=np.random.default_rng(0), gap_fraction=0)

    def wrong(series, targets):
        return [(np.zeros((1, len(at), 2)),) * 2 for at in targets]

    assert r_squared(wrong, held) < 0
    assert r_squared(perfect, held) == 1


# --- sizes


def test_hyperparameters_are_chosen_from_the_series():
    setup = choose_setup([pair(200), pair(40)])
    assert setup.cut == WindowSpec(60, 40)
    assert (setup.latent, setup.hidden, setup.width) == (6, 32, 32)
    assert setup.spacing == 1.0
    assert setup.unit == pytest.approx(49 / 3)  # mean of the durations of 60 and of 40 observations, over 3
    assert choose_setup([pair(9, channels=20)]).latent == 16


def test_given_hyperparameters_are_used():
    setup = choose_setup([pair(200)], window=10, latent=3, hidden=4, width=5, recognition="rnn")
    assert (setup.cut, setup.latent, setup.hidden, setup.width) == (WindowSpec(10, 7), 3, 4, 5)
    network = setup.network(2)
    assert (network.latent, network.recognition.hidden) == (3, 4)


def test_single_observations_have_a_unit_of_1():
    setup = choose_setup([pair(1), pair(1)])
    assert (setup.cut, setup.unit, setup.spacing) == (WindowSpec(1, 2), 1 / 3, 1.0)
