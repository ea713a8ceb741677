"""`LatentODEForecaster` passes scikit-learn's checks and forecasts irregular series of tables."""

import inspect
import json
import subprocess
import sys
import warnings

import numpy as np
import pandas as pd
import pytest
import torch
from interruptions import InterruptAt, Interruption
from lightning.pytorch.callbacks import Callback
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.utils.estimator_checks import parametrize_with_checks

from neuralode.estimators import LatentODEForecaster
from neuralode.estimators.forecaster.baselines import last_value
from neuralode.estimators.forecaster.evaluation import rmse
from neuralode.training.checkpoints import Checkpoints

NAN = float("nan")
SMALL = {"latent": 2, "hidden": 4, "width": 4, "batch_size": 4, "max_epochs": 1, "samples": 20, "random_state": 0}


def small(**options) -> LatentODEForecaster:
    return LatentODEForecaster(**{**SMALL, **options})


def waves(gaps: float = 0.2) -> pd.DataFrame:
    """Return irregular series of 20, 12 and 1 observations: a wave, a positive skewed and a binary channel."""
    rng = np.random.default_rng(0)
    frames = []
    for who, count in (("long", 20), ("short", 12), ("one", 1)):
        t = np.sort(rng.choice(np.arange(100), count, replace=False)) / 4.0
        x = np.stack([np.sin(t), np.exp(2 * np.sin(t + 1)), (np.cos(t) > 0).astype(float)], 1)
        x[rng.random(x.shape) < gaps] = NAN
        x[0, 0] = np.sin(t[0])
        frames.append(pd.DataFrame(x, columns=["wave", "burst", "on"]).assign(who=who, at=t))
    return pd.concat(frames, ignore_index=True)


LONG = {"series": "who", "time": "at"}


@pytest.fixture(scope="module")
def table() -> pd.DataFrame:
    return waves()


@pytest.fixture(scope="module")
def model(table) -> LatentODEForecaster:
    return small(max_epochs=2).fit(table, **LONG)


def alike(one: pd.DataFrame, other: pd.DataFrame, tolerance: float = 1e-9) -> None:
    pd.testing.assert_frame_equal(
        one.reset_index(drop=True), other.reset_index(drop=True), check_exact=False, rtol=0, atol=tolerance
    )


# --- scikit-learn

FRAMES = "predictions are frames in long form with a column of names, which numpy cannot subtract"
ROWS = "rows of X are points in time: predictions depend on their order and on earlier rows"
EXPECTED = {
    "check_estimators_pickle": FRAMES,
    "check_fit_idempotent": FRAMES,
    "check_methods_sample_order_invariance": ROWS,
    "check_methods_subset_invariance": ROWS,
}


@parametrize_with_checks([small(samples=5)], expected_failed_checks=lambda _: EXPECTED)
def test_scikit_learn_accepts_it(estimator, check):
    check(estimator)


def test_parameters_are_stored_as_given_and_cloned():
    parameters = {name: object() for name in inspect.signature(LatentODEForecaster).parameters}
    assert LatentODEForecaster(**parameters).get_params() == parameters
    model = small(window=7, kl_weight=0.5)
    assert clone(model).get_params() == model.get_params()


def test_predictions_before_fit_raise():
    for method in ("predict", "forecast", "impute", "sample", "score", "evaluate"):
        with pytest.raises(NotFittedError):
            getattr(small(), method)()


def test_fitting_is_silent_and_returns_the_estimator(table, capfd):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.filterwarnings("ignore", module="lightning")
        model = small()
        assert model.fit(table, **LONG) is model
        model.predict()
    assert "".join(capfd.readouterr()) == ""


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"window": 1}, "window=1; wanted a whole number of at least 2"),
        ({"latent": 0}, "latent=0; wanted a whole number of at least 1"),
        ({"max_epochs": 1.5}, "max_epochs=1.5; wanted a whole number of at least 1"),
        ({"samples": True}, "samples=True; wanted a whole number of at least 1"),
        ({"learning_rate": 0}, "learning_rate=0; wanted a number above 0"),
        ({"kl_weight": -1}, "kl_weight=-1; wanted a number not below 0"),
        ({"holdout": 1}, "holdout=1; wanted at least 0 and less than 1"),
        ({"recognition": "lstm"}, "recognition='lstm'; wanted one of 'rnn', 'odernn'"),
    ],
)
def test_invalid_parameters_are_rejected(options, sentence):
    with pytest.raises(ValueError, match=sentence):
        small(**options).fit(np.ones((4, 1)))


# --- random numbers


def test_the_random_state_decides_every_bit_and_global_states_are_unchanged(table, model):
    torch.manual_seed(1)
    np.random.seed(1)
    before, numpy_before = torch.get_rng_state(), np.random.get_state()[1].copy()
    again = small(max_epochs=2).fit(table, **LONG)
    pd.testing.assert_frame_equal(again.predict(), model.predict(), check_exact=True)
    pd.testing.assert_frame_equal(again.evaluation_, model.evaluation_, check_exact=True)
    other = small(random_state=None).fit(table, **LONG)
    assert not other.predict().equals(model.predict())
    pd.testing.assert_frame_equal(other.predict(), other.predict(), check_exact=True)
    other.sample(2)
    assert torch.equal(torch.get_rng_state(), before)
    assert np.array_equal(np.random.get_state()[1], numpy_before)


def test_a_generator_is_used_by_fit_and_not_by_predict(table):
    generator = np.random.RandomState(3)
    model = small(random_state=generator).fit(table, **LONG)
    state = generator.get_state()[2]
    pd.testing.assert_frame_equal(model.predict(), model.predict(), check_exact=True)
    assert generator.get_state()[2] == state


# --- answers


def test_predictions_have_a_row_for_each_series_time_and_channel(table, model):
    found = model.predict()
    assert list(found) == ["who", "at", "channel", "mean", "q05", "q50", "q95"]
    seen = table.dropna(how="all", subset=["wave", "burst", "on"])
    assert len(found) == 3 * len(seen)
    assert found["who"].drop_duplicates().tolist() == ["long", "short", "one"]
    assert sorted(set(found["at"])) == sorted(set(seen["at"]))
    assert found["channel"].tolist()[:3] == ["wave", "burst", "on"]
    assert found.notna().all(axis=None)


def test_quantiles_are_in_order_and_named(model):
    found = model.predict(quantiles=[0.025, 0.05, 0.5, 0.95])
    assert (found["q05"] <= found["q50"]).all()
    assert (found["q50"] <= found["q95"]).all()
    assert (found["q2.5"] <= found["q05"]).all()
    with pytest.raises(ValueError, match="quantiles=\\(95,\\); wanted numbers between 0 and 1"):
        model.predict(quantiles=[95])


def test_binary_channels_have_probabilities_and_logged_ones_stay_positive(model):
    assert model.binary_ == (2,)
    assert model.scaling_.logged.tolist() == [False, True, False]
    found = model.forecast(horizon=5)
    on, burst = found[found["channel"] == "on"], found[found["channel"] == "burst"]
    assert on["mean"].between(0, 1).all()
    assert set(on["q50"]) <= {0.0, 1.0}
    assert (burst[["mean", "q05", "q50", "q95"]] > 0).all(axis=None)
    drawn = model.sample(5)
    assert set(drawn["on"]) <= {0.0, 1.0}
    assert (drawn["burst"] > 0).all()


def test_target_times_may_be_unsorted_and_repeated(model, table):
    last = table["at"].max()
    targets = [last + 3, last, last, 24.75]
    found = model.predict(times=targets)
    for _, own in found.groupby(["who", "channel"]):
        assert own["at"].tolist() == targets
    wave = found[(found["who"] == "long") & (found["channel"] == "wave")]["mean"].tolist()
    assert wave[1] == wave[2]
    assert wave[0] != wave[1]


def test_each_series_may_have_individual_target_times(model, table):
    first = table.groupby("who")["at"].min()
    targets = {"one": [first["one"], 40.0], "long": [41.0], "short": np.array([42.0, 43.0, 44.0])}
    found = model.predict(times=targets)
    assert {who: sorted(set(own["at"])) for who, own in found.groupby("who")} == {
        w: list(t) for w, t in targets.items()
    }
    alone = model.predict(times={**targets, "long": [41.0, 45.0]})
    at = alone[(alone["who"] == "long") & (alone["at"] == 41.0)]["mean"].to_numpy()
    assert np.allclose(found[found["who"] == "long"]["mean"], at, atol=1e-2)  # the solver takes other steps


@pytest.mark.parametrize(
    ("times", "sentence"),
    [
        ([-1.0], "times has -1.0, before the first observation of series 'long' at"),
        ([], "times is empty of series 'long'; wanted at least one"),
        (5.0, "times=5.0; wanted a collection of times"),
        ("2026-01-01", "times='2026-01-01'; wanted a collection of times"),
        (["2026-01-01"], "column 'times' has '2026-01-01' at row 1; wanted a number"),
        ([NAN], "column 'times' has no time at row 1"),
        ({"long": [40.0], "short": [40.0]}, "times has nothing for series 'one'"),
        ({"longer": [40.0]}, "times names series 'longer', which the table does not have"),
    ],
)
def test_invalid_target_times_are_rejected(model, times, sentence):
    with pytest.raises(ValueError, match=sentence):
        model.predict(times=times)


@pytest.mark.parametrize("horizon", [0, -1, 2.0, True])
def test_the_horizon_is_a_whole_number_of_steps(model, horizon):
    with pytest.raises(ValueError, match="wanted a whole number of steps, at least 1"):
        model.forecast(horizon=horizon)


def test_a_forecast_continues_each_series_in_typical_steps(model, table):
    found = model.forecast(horizon=np.int64(3), quantiles=[0.5])
    ends = table.dropna(how="all", subset=["wave", "burst", "on"]).groupby("who")["at"].max()
    for who, own in found.groupby("who"):
        expected = ends[who] + model.setup_.spacing * np.arange(1, 4)
        assert np.allclose(own["at"].unique(), expected)
    assert list(found)[-2:] == ["mean", "q50"]


def test_predictions_do_not_depend_on_other_series(model, table):
    together = model.predict(times=[25.0, 26.0, 30.0])
    for who in ("long", "short", "one"):
        alone = model.predict(table[table["who"] == who], times=[25.0, 26.0, 30.0])
        alike(alone, together[together["who"] == who])
    backwards = model.predict(table[::-1], times=[25.0, 26.0, 30.0])
    alike(backwards[backwards["who"] == "long"], together[together["who"] == "long"])


def test_scored_forecasts_do_not_use_later_values(model, table):
    own = table[table["who"] == "long"].sort_values("at")
    found = []
    for later in (own, own.assign(wave=own["wave"].where(own["at"] < own["at"].iloc[16], 100.0))):
        held = model._hold_out(model.read(later), gap_fraction=0.0)
        [(_, times, values)] = held.ends
        assert held.train[0][0].max() < times.min()
        found.append((values, model._predict(held.train, [times])[0]))
    (one, answers), (other, again) = found
    assert not np.array_equal(one, other, equal_nan=True)
    assert all(np.array_equal(x, y) for x, y in zip(answers, again, strict=True))


def test_training_does_not_use_held_out_ends(table):
    changed = table.copy()
    ends = table.groupby("who").cumcount(ascending=False) < 3  # 4 of 20 and 2 of 12 are held out
    changed.loc[ends & (table["who"] == "long"), "wave"] += 5
    one, other = (small(refit=False, logs=False).fit(x, **LONG) for x in (table, changed))
    for name, weights in one.network_.state_dict().items():
        assert torch.equal(weights, other.network_.state_dict()[name])  # with one epoch, the first is the best
    assert one.scaling_.to_json() == other.scaling_.to_json()


# --- gaps


def test_impute_keeps_observations_and_fills_the_rest(model, table):
    found = model.impute()
    assert list(found) == ["who", "at", "wave", "burst", "on"]
    found, seen = (x.set_index(["who", "at"]).sort_index()[["wave", "burst", "on"]] for x in (found, table))
    assert found.index.equals(seen.index)
    assert found.notna().all(axis=None)
    assert found.where(seen.notna()).equals(seen)


def test_rows_without_any_value_are_filled_from_the_first_observation_on():
    t = np.arange(12.0)
    one = pd.DataFrame({"who": "a", "t": t, "x": np.sin(t), "y": np.cos(t)})
    other = one[:6].assign(who="b")
    table = pd.concat([one, other], ignore_index=True)
    table.loc[[0, 5, 11, 14], ["x", "y"]] = NAN
    table = table.sample(frac=1, random_state=0)
    model = small().fit(table, series="who", time="t")
    for found in (model.impute(), model.impute(table)):
        both = found.merge(table, on=["who", "t"], suffixes=("", "_seen"))
        assert len(both) == len(found) == 18
        before = (both["who"] == "a") & (both["t"] == 0)
        assert both[before][["x", "y"]].isna().all(axis=None)
        assert both[~before][["x", "y"]].notna().all(axis=None)
        known = both["x_seen"].notna()
        assert both["x"][known].equals(both["x_seen"][known])


def test_rows_without_any_value_are_filled_in_arrays_and_by_date():
    x = np.sin(np.arange(10.0))[:, None]
    x[[4, 9]] = NAN
    days = pd.date_range("2026-03-01", periods=10, tz="Europe/Berlin")
    by_number, by_date = small().fit(x), small().fit(pd.DataFrame(x, index=days, columns=["x"]))
    assert by_number.impute()["x0"].notna().tolist() == [True] * 10
    assert by_date.impute().index.tolist() == days.tolist()
    assert by_date.impute()["x"].notna().all()
    assert by_date.forecast(horizon=1)["time"].tolist() == [pd.Timestamp("2026-03-10", tz="Europe/Berlin")]
    alike(by_date.predict(pd.DataFrame(x, index=days, columns=["x"])), by_date.predict())
    with pytest.raises(ValueError, match="wanted a timestamp"):
        by_date.predict(pd.DataFrame(x, columns=["x"]))


# --- drawing and scoring


def test_samples_have_the_requested_shape(model):
    drawn = model.sample(3, times=[0, 1.5])
    assert list(drawn) == ["series", "time", "wave", "burst", "on"]
    assert drawn["series"].tolist() == [0, 0, 1, 1, 2, 2]
    assert drawn["time"].tolist() == [0, 1.5] * 3
    pd.testing.assert_frame_equal(model.sample(3, times=[0, 1.5]), drawn, check_exact=True)
    assert len(model.sample()) == model.setup_.cut.window
    for n, times in ((0, None), (1, [-1.0]), (1, []), (1, [NAN])):
        with pytest.raises(ValueError, match="wanted"):
            model.sample(n, times)


def test_score_and_evaluate(model, table):
    assert np.isfinite(model.score())
    assert model.score(table) == model.score()
    evaluation = model.evaluate(table)
    assert list(evaluation) == ["what", "channel", "values", "model", "last_value", "baseline"]
    assert set(evaluation["what"]) == {"forecast", "filling"}
    assert set(model.evaluation_["what"]) == {"forecast", "filling"}
    with pytest.raises(ValueError, match="every series is too short to hold out its end"):
        model.score(table[table["who"] == "one"])


def test_holdout_0_holds_out_nothing(table):
    model = small(holdout=0, max_epochs=2).fit(table, **LONG)
    assert model.evaluation_.empty
    assert list(model.evaluation_) == ["what", "channel", "values", "model", "last_value", "baseline"]
    assert model.n_iter_ == 2
    assert np.isfinite(model.score())


def test_without_refit_there_is_one_training(table):
    class Counting(Callback):
        fits = 0

        def on_fit_start(self, trainer, pl_module):
            self.fits += 1

    recorder = Counting()
    small(refit=False).fit(table, **LONG, callbacks=lambda stage: [recorder])
    assert recorder.fits == 1
    small(refit=True).fit(table, **LONG, callbacks=lambda stage: [recorder])
    assert recorder.fits == 3


# --- tables of every form


def test_timestamps_keep_their_time_zone():
    # across the start of daylight saving time
    at = pd.date_range("2026-03-28", periods=12, freq="12h", tz="Europe/Berlin")
    table = pd.DataFrame({"when": at, "x": np.sin(np.arange(12.0))})
    model = small().fit(table, time="when")
    assert model.predict()["when"].tolist() == at.tolist()
    ahead = model.forecast(horizon=2)["when"]
    assert ahead.tolist() == [at[-1] + pd.Timedelta("12h"), at[-1] + pd.Timedelta("24h")]
    given = model.predict(times=["2026-04-03T00:00+02:00", at[-1]])["when"]
    assert given.tolist() == [pd.Timestamp("2026-04-03", tz="Europe/Berlin"), at[-1]]
    with pytest.raises(ValueError, match="before the first observation at 2026-03-28 00:00:00\\+01:00"):
        model.predict(times=["2026-03-27T00:00Z"])
    with pytest.raises(ValueError, match="with no time zone"):
        model.predict(times=["2026-04-03"])


def test_files_frames_and_arrays_are_equivalent(tmp_path):
    x = np.stack([np.sin(np.arange(15.0)), np.cos(np.arange(15.0))], 1)
    frame = pd.DataFrame(x, columns=["a", "b"])
    frame.to_csv(tmp_path / "x.csv", index=False)
    by_frame, by_array = small().fit(frame), small().fit(x)
    by_path = small().fit(str(tmp_path / "x.csv"))
    assert (by_frame.channels_, by_array.channels_) == (("a", "b"), ("x0", "x1"))
    assert by_frame.feature_names_in_.tolist() == ["a", "b"]
    assert not hasattr(by_path, "feature_names_in_")
    alike(by_path.forecast(), by_frame.forecast(), 0)
    alike(by_path.forecast(tmp_path / "x.csv"), by_frame.forecast(), 0)
    alike(by_frame.forecast(tmp_path / "x.csv"), by_frame.forecast(), 0)
    alike(by_path.forecast(frame[["b", "a"]]), by_frame.forecast(), 0)
    alike(by_path.forecast(x), by_frame.forecast(), 0)
    alike(by_array.forecast(x)[["mean"]], by_frame.forecast()[["mean"]], 0)
    assert len(by_frame.predict(frame[:1])) == len(by_array.predict(x[:1])) == 2
    with pytest.raises(ValueError, match="feature names"):
        by_frame.predict(frame[["b", "a"]])
    assert not hasattr(by_frame.fit(frame, values=["a"]), "feature_names_in_")
    assert by_frame.n_features_in_ == 1
    alike(by_frame.forecast(frame), by_frame.forecast(), 0)


def test_fit_accepts_a_wide_array_of_constants():
    model = small(max_epochs=1).fit(np.tile(np.arange(20.0), (6, 1)))
    found = model.forecast()
    assert len(found) == 20
    assert np.isfinite(found["mean"]).all()
    assert model.setup_.latent == 2


def test_fit_accepts_series_of_single_observations():
    table = pd.DataFrame({"who": ["a", "b", "c"], "t": [0.0, 5.0, 2.0], "x": [1.0, 2.0, 3.0]})
    model = small().fit(table, series="who", time="t")
    assert model.evaluation_.empty
    assert model.forecast(horizon=2)["t"].tolist() == [1.0, 2.0, 6.0, 7.0, 3.0, 4.0]


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ((pd.DataFrame({"t": [0, 1], "x": ["1", "n/a?"]}), {"time": "t"}), "column 'x' has 'n/a\\?' at row 2"),
        ((pd.DataFrame({"x": ["1", "n/a?"]}), {}), "column 'x' has 'n/a\\?' at row 2"),
        ((np.ones((3, 1)), {"time": "t"}), "time names a column, but X is a ndarray; wanted a frame or a path"),
        (
            (pd.DataFrame({"channel": [0, 1], "x": [1, 2]}), {"series": "channel"}),
            "series='channel' is the name of a column",
        ),
        ((np.full((3, 1), np.inf), {}), "X contains infinity"),
    ],
)
def test_invalid_tables_are_rejected(arguments, sentence):
    X, columns = arguments
    with pytest.raises(ValueError, match=sentence):
        small().fit(X, **columns)


def test_a_value_lower_than_in_training_does_not_dominate(model, table):
    own = table[table["who"] == "short"]
    low = own.assign(burst=own["burst"].where(own.index != own["burst"].last_valid_index(), 0.0))
    assert np.isfinite(model.forecast(low, horizon=3)["mean"]).all()
    assert model.scaling_.apply(np.array([NAN, 0.0, NAN]))[1] >= -10 - 1e-9


# --- keeping

FRESH = """
import sys
from neuralode.estimators import LatentODEForecaster
model = LatentODEForecaster.load(sys.argv[1])
print([model.predict().to_json(double_precision=15), model.forecast(horizon=3)["mean"].tolist(),
       model.forecast(sys.argv[2], horizon=3)["q95"].tolist(), model.get_params()])
"""


def test_a_fresh_process_predicts_the_same_bits_from_a_folder(model, table, tmp_path):
    table.to_csv(tmp_path / "table.csv", index=False)
    model.save(tmp_path / "kept")
    command = [sys.executable, "-c", FRESH, str(tmp_path / "kept"), str(tmp_path / "table.csv")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    expected = [
        model.predict().to_json(double_precision=15),
        model.forecast(horizon=3)["mean"].tolist(),
        model.forecast(tmp_path / "table.csv", horizon=3)["q95"].tolist(),
        model.get_params(),
    ]
    assert done.stdout.strip() == str(expected)
    assert done.stderr == ""


def test_a_loaded_forecaster_is_complete_and_never_unpickled(model, tmp_path, monkeypatch):
    model.save(tmp_path)
    monkeypatch.setattr("pickle.Unpickler", None)
    monkeypatch.setattr("torch.load", None)
    before = torch.get_rng_state()
    loaded = LatentODEForecaster.load(tmp_path)
    assert torch.equal(torch.get_rng_state(), before)
    assert vars(loaded).keys() == vars(model).keys()
    alike(loaded.impute(), model.impute(), 0)
    alike(loaded.sample(2), model.sample(2), 0)
    alike(loaded.evaluation_, model.evaluation_, 0)
    assert json.loads((tmp_path / "estimator.json").read_text())["estimator"] == "LatentODEForecaster"


def test_set_params_does_not_change_predictions(table, tmp_path):
    model = small(random_state=None).fit(table, **LONG)
    model.set_params(recognition="rnn", hidden=9, rtol=0.1).save(tmp_path)
    loaded = LatentODEForecaster.load(tmp_path)
    assert loaded.get_params() == model.get_params()
    alike(loaded.predict(), model.predict(), 0)


def test_a_loaded_forecaster_checks_names_of_columns(tmp_path):
    frame = pd.DataFrame({"a": np.sin(np.arange(9.0)), "b": 1.0})
    model = small().fit(frame)
    model.save(tmp_path)
    loaded = LatentODEForecaster.load(tmp_path)
    alike(loaded.predict(frame), model.predict(frame), 0)
    with pytest.raises(ValueError, match="feature names"):
        loaded.predict(frame[["b", "a"]])


# --- training


class Stop(Callback):
    """Press Ctrl-C in an epoch."""

    def __init__(self, epoch: int) -> None:
        self.epoch = epoch

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        if trainer.current_epoch == self.epoch:
            raise KeyboardInterrupt


class Counting(Callback):
    """Record the epochs that are completed in each stage."""

    def __init__(self) -> None:
        self.epochs: dict[str, list[int]] = {}

    def __call__(self, stage):
        self.stage = stage
        return [self]

    def on_train_epoch_end(self, trainer, pl_module):
        self.epochs.setdefault(self.stage, []).append(trainer.current_epoch)


def test_an_interrupted_training_keeps_the_best_epoch_and_resumes(table, tmp_path):
    interrupted = small(max_epochs=4).fit(table, **LONG, checkpoints=tmp_path, callbacks=lambda stage: [Stop(2)])
    assert (interrupted.interrupted_, interrupted.n_iter_) == (True, 2)
    assert not (tmp_path / "refit").exists()
    assert len(interrupted.evaluation_)
    kept = Checkpoints(tmp_path / "first")
    best = kept.read(kept.files()[0])["callbacks"]["Best"]["weights"]
    for name, weights in interrupted.network_.state_dict().items():
        assert torch.equal(weights, best[f"model.{name}"].double())
    recorder = Counting()
    complete = small(max_epochs=4).fit(table, **LONG, checkpoints=tmp_path, callbacks=recorder)
    assert recorder.epochs["first"][-1] == 3
    assert 0 not in recorder.epochs["first"]
    assert len(recorder.epochs["refit"]) == complete.n_iter_
    assert not complete.interrupted_


def test_an_interrupted_refit_keeps_the_first_training(table, tmp_path):
    first = small(max_epochs=2, refit=False).fit(table, **LONG)
    stop = small(max_epochs=2).fit(
        table, **LONG, checkpoints=tmp_path, callbacks=lambda stage: [Stop(0)] if stage == "refit" else []
    )
    assert stop.interrupted_
    alike(stop.predict(), first.predict(), 0)
    recorder = Counting()
    complete = small(max_epochs=2).fit(table, **LONG, checkpoints=tmp_path, callbacks=recorder)
    uninterrupted = small(max_epochs=2).fit(table, **LONG)
    assert list(recorder.epochs) == ["refit"]  # a completed stage is not repeated
    assert not complete.interrupted_
    alike(complete.evaluation_, uninterrupted.evaluation_, 0)
    alike(complete.predict(), uninterrupted.predict(), 0)


@pytest.mark.parametrize("stage", ["first", "refit"])
def test_a_training_resumed_at_any_step_gives_the_same_bits(table, tmp_path, monkeypatch, stage):
    monkeypatch.setattr("neuralode.training.resume.SECONDS", 0.0)  # a checkpoint each step
    uninterrupted = small(max_epochs=2).fit(table, **LONG)
    for step in (3, 24):  # in the first epoch and in the second
        with pytest.raises(Interruption):
            small(max_epochs=2).fit(
                table, **LONG, checkpoints=tmp_path,
                callbacks=lambda name, step=step: [InterruptAt(step)] if name == stage else [],
            )  # fmt: skip
        assert Checkpoints(tmp_path / stage).files()
    resumed = small(max_epochs=2).fit(table, **LONG, checkpoints=tmp_path)
    assert all(map(torch.equal, resumed.network_.state_dict().values(), uninterrupted.network_.state_dict().values()))
    alike(resumed.evaluation_, uninterrupted.evaluation_, 0)


def test_checkpoints_of_another_table_or_other_parameters_are_rejected(table, tmp_path):
    other = table.assign(wave=table["wave"] + 1)
    done, interrupted = tmp_path / "done", tmp_path / "cut off"
    small().fit(table, **LONG, checkpoints=done)
    small(max_epochs=2).fit(table, **LONG, checkpoints=interrupted, callbacks=lambda stage: [Stop(1)])
    for folder, options, rows in (
        (done, {}, other),
        (done, {"learning_rate": 0.02}, table),
        (interrupted, {"max_epochs": 2}, other),
        (interrupted, {"max_epochs": 2, "random_state": 1}, table),
        (interrupted, {"max_epochs": 3}, table),
    ):
        with pytest.raises(ValueError, match=r"holds another training|is of another training: its task differs"):
            small(**options).fit(rows, **LONG, checkpoints=folder)
    small(verbose=True).fit(table, **LONG, checkpoints=done)


def test_diverging_training_raises(table, monkeypatch):
    class Spoil(Callback):
        def on_train_end(self, trainer, pl_module):
            torch.nn.init.constant_(next(pl_module.parameters()), NAN)

    with pytest.raises(ValueError, match="learning_rate=0.01 led to weights that are not finite; wanted a lower one"):
        small(holdout=0).fit(table, **LONG, callbacks=lambda stage: [Spoil()])


def test_a_damped_oscillation_is_forecast_better_than_by_its_last_value():
    t = np.arange(40) / 2
    damped = np.exp(-t / 20)
    whole = pd.concat(
        pd.DataFrame({"who": k, "t": t, "x": damped * np.sin(1.3 * t + phase)}) for k, phase in enumerate([0, 2])
    )
    seen = whole[whole["t"] < 16]
    options = {"max_epochs": 15, "learning_rate": 3e-2, "window": 16, "batch_size": 8, "refit": False, "samples": 50}
    model = LatentODEForecaster(**options, random_state=0).fit(seen, series="who", time="t")
    ahead = model.forecast(horizon=8)
    truth = whole[whole["t"] >= 16]
    assert ahead["t"].tolist() == truth["t"].tolist()
    own = [x for _, x in seen.groupby("who")]
    naive = np.concatenate([last_value(x["t"].to_numpy(), x[["x"]].to_numpy(), t[32:])[:, 0] for x in own])
    errors = [rmse(found, truth["x"].to_numpy()) for found in (ahead["mean"].to_numpy(), naive)]
    assert errors[0] < 0.4 * errors[1]


def test_the_mean_of_a_logged_channel_is_that_of_the_observations():
    rng = np.random.default_rng(0)
    frame = pd.DataFrame({"v": np.exp(1.5 * rng.normal(size=80))})
    model = small(samples=4000, refit=False, max_epochs=3).fit(frame)
    assert model.scaling_.logged.all()
    forecast = model.forecast(horizon=1)
    values = model._predict(model.table_.pairs(), [np.array([80.0])])[0].values
    assert forecast["mean"].item() == pytest.approx(values.mean(), rel=0.2)
    assert forecast["mean"].item() > 1.5 * forecast["q50"].item()


@pytest.mark.parametrize("name", ["channel", "mean", "q05", "q97.5"])
@pytest.mark.parametrize("role", ["series", "time"])
def test_ids_and_times_must_not_have_names_of_prediction_columns(name, role):
    frame = pd.DataFrame({name: np.arange(12), "v": np.arange(12.0)})
    with pytest.raises(ValueError, match="is the name of a column of predictions; wanted another name"):
        small().fit(frame, **{role: name})


def test_a_series_column_named_time_gets_a_separate_time_column():
    frame = pd.DataFrame({"time": list("aaaaaabbbbbb"), "v": np.arange(12.0)})
    forecast = small(refit=False).fit(frame, series="time").forecast(horizon=1)
    assert forecast["time"].tolist() == ["a", "b"]
    assert forecast["_time"].tolist() == [6.0, 6.0]


def test_samples_have_index_columns_with_unused_names():
    frame = pd.DataFrame({"day": np.arange(12), "time": np.arange(12.0), "series": 1.0})
    drawn = small(refit=False).fit(frame, time="day").sample(2, times=[0.0, 1.0])
    assert drawn.columns.tolist() == ["_series", "_time", "time", "series"]


def test_an_interrupted_refit_keeps_the_epochs_of_the_first_training(table):
    class Stop(Callback):
        def on_train_epoch_start(self, trainer, pl_module):
            raise KeyboardInterrupt

    model = small(max_epochs=2).fit(table, **LONG, callbacks=lambda stage: [Stop()] if stage == "refit" else [])
    assert (model.interrupted_, model.n_iter_) == (True, 2)
