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


def test_the_last_value_is_the_one_seen_before_channel_by_channel():
    t, x = np.arange(3.0), np.array([[1.0, NAN], [NAN, 5.0], [3.0, NAN]])
    found = last_value(t, x, np.array([-1.0, 0.5, 2.0, 9.0]))
    assert found.tolist() == [[1, 5], [1, 5], [3, 5], [3, 5]]


def test_straight_lines_join_what_was_seen_and_end_level():
    t, x = np.arange(3.0), np.array([[0.0], [NAN], [4.0]])
    assert linear(t, x, np.array([-1.0, 0.5, 1.0, 7.0]))[:, 0].tolist() == [0, 1, 2, 4]


@pytest.mark.parametrize("way", [last_value, linear, seasonal])
def test_a_channel_never_seen_has_no_baseline(way):
    t, x = np.arange(3.0), np.array([[0.0, NAN], [1.0, NAN], [2.0, NAN]])
    found = way(t, x, np.array([1.5]))
    assert np.isfinite(found[0, 0])
    assert np.isnan(found[0, 1])


@pytest.mark.parametrize("origin", [0.0, 1.7e9])
def test_a_season_is_found_and_repeated(origin):
    t = origin + np.sort(np.random.default_rng(0).uniform(0, 40, 160))
    wave = np.sin(2 * np.pi * (t - origin) / 8)[:, None]
    assert estimate_period(t, wave[:, 0]) == pytest.approx(8, rel=0.1)
    ahead = origin + np.array([41.0, 45.0, 60.0])
    assert np.allclose(seasonal(t, wave, ahead)[:, 0], np.sin(2 * np.pi * (ahead - origin) / 8), atol=0.4)


@pytest.mark.parametrize("origin", [0.0, 1.7e9])
def test_without_a_season_the_trend_goes_on(origin):
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


def test_a_tenth_of_the_values_within_is_hidden_and_nothing_else_changes():
    times, values = pair(300)
    values[5] = [NAN, 1.0]
    before = values.copy()
    held = hold_out([(times, values)], 0.2, WINDOWS, rng=np.random.default_rng(0))
    [(number, at, hidden)] = held.gaps
    assert number == 0
    assert 0.06 < np.isfinite(hidden).sum() / 592 < 0.14
    kept_at, kept = held.train[0]
    assert np.isfinite(kept).any(1).all()
    whole = np.full((296, 2), NAN)
    whole[kept_at.astype(int)] = kept
    places = at.astype(int)
    whole[places] = np.where(np.isfinite(hidden), hidden, whole[places])
    assert np.array_equal(whole, before[:296], equal_nan=True)
    assert np.array_equal(values, before, equal_nan=True)
    assert kept_at[[0, -1]].tolist() == [0.0, 295.0]


def test_a_fraction_of_0_holds_out_nothing():
    series = [pair(50)]
    held = hold_out(series, 0, WINDOWS, rng=np.random.default_rng(0))
    assert (held.ends, held.gaps) == ([], [])
    assert held.train == series


# --- side by side


def perfect(series, wanted):
    """Answers of one who knows that a value is twice its time, and in the second channel 1."""
    means = [np.stack([2 * at, np.ones_like(at)], 1)[None].repeat(3, 0) for at in wanted]
    return list(zip(means, means, strict=True))


def lines(length: int = 20) -> list[tuple[np.ndarray, np.ndarray]]:
    t = np.arange(float(length))
    return [(t, np.stack([2 * t, np.ones_like(t)], 1)), (t + 3, np.stack([2 * t + 6, np.full_like(t, NAN)], 1))]


def test_errors_stand_beside_those_of_the_baselines():
    held = hold_out(lines(), 0.2, WINDOWS, rng=np.random.default_rng(0))
    told = compare_with_baselines(perfect, held, ["up", "level"])
    assert list(told) == COLUMNS
    assert told["what"].tolist() == ["forecast", "forecast", "filling", "filling"]
    ahead = told[(told["what"] == "forecast") & (told["channel"] == "up")].iloc[0]
    assert ahead["values"] == 8
    assert ahead["model"] == 0
    assert ahead["last_value"] == pytest.approx(np.sqrt(np.mean([4, 16, 36, 64])))
    assert ahead["baseline"] == pytest.approx(0, abs=1e-9)
    assert told[told["channel"] == "level"]["values"].iloc[0] == 4


def test_what_was_not_seen_is_not_compared():
    series = [(t, np.where([True, False], x, NAN)) for t, x in lines()]
    told = compare_with_baselines(
        perfect, hold_out(series, 0.2, WINDOWS, rng=np.random.default_rng(0)), ["up", "level"]
    )
    assert set(told["channel"]) == {"up"}
    assert compare_with_baselines(perfect, HeldOut(series, [], []), ["up", "level"]).empty


def test_an_error_is_that_of_the_values_there_are():
    assert rmse(np.array([1.0, NAN, 5.0]), np.array([1.0, 2.0, 2.0])) == pytest.approx(np.sqrt(4.5))
    assert np.isnan(rmse(np.array([NAN]), np.array([1.0])))


def test_r_squared_is_1_of_the_perfect_and_0_of_the_mean():
    held = hold_out(lines(), 0.2, WINDOWS, rng=np.random.default_rng(0), gap_fraction=0)

    def mean(series, wanted):
        level = np.mean(np.concatenate([values[:, 0] for *_, values in held.ends]))
        return [(np.broadcast_to([level, 0.0], (1, len(at), 2)),) * 2 for at in wanted]

    assert r_squared(perfect, held) == 1
    assert r_squared(mean, held) == pytest.approx(0)  # the mean of 0 for both: the constant was missed


def test_r_squared_leaves_out_channels_that_were_not_seen():
    t, x = lines()[0]
    held = hold_out([(t, np.where([True, False], x, NAN))], 0.2, WINDOWS, rng=np.random.default_rng(0), gap_fraction=0)

    def wrong(series, wanted):
        return [(np.zeros((1, len(at), 2)),) * 2 for at in wanted]

    assert r_squared(wrong, held) < 0
    assert r_squared(perfect, held) == 1


# --- sizes


def test_sizes_are_read_off_the_series():
    setup = choose_setup([pair(200), pair(40)])
    assert setup.cut == WindowSpec(60, 40)
    assert (setup.latent, setup.hidden, setup.width) == (6, 32, 32)
    assert setup.spacing == 1.0
    assert setup.unit == pytest.approx(49 / 3)  # of 60 observations and of 40
    assert choose_setup([pair(9, channels=20)]).latent == 16


def test_sizes_that_were_asked_for_are_taken():
    setup = choose_setup([pair(200)], window=10, latent=3, hidden=4, width=5, recognition="rnn")
    assert (setup.cut, setup.latent, setup.hidden, setup.width) == (WindowSpec(10, 7), 3, 4, 5)
    network = setup.network(2)
    assert (network.latent, network.recognition.hidden) == (3, 4)


def test_single_observations_have_a_unit_of_1():
    setup = choose_setup([pair(1), pair(1)])
    assert (setup.cut, setup.unit, setup.spacing) == (WindowSpec(1, 2), 1 / 3, 1.0)
