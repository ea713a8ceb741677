"""`SeriesClassifier` passes scikit-learn's checks and accepts all forms of series."""

import json
import subprocess
import sys
import threading
import warnings
from importlib.util import find_spec

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.base import clone
from sklearn.model_selection import cross_val_score
from sklearn.utils.estimator_checks import parametrize_with_checks
from torch.nn.functional import cross_entropy

from neuralode.data.vowels import japanese_vowels
from neuralode.estimators import SeriesClassifier
from neuralode.estimators.series_classifier.inputs import series_from_sequences
from neuralode.nn import Observations

KINDS = ["odernn", "gru-decay", "rnn"]


def small(**options) -> SeriesClassifier:
    return SeriesClassifier(**{"hidden": 8, "width": 8, "max_epochs": 3, "random_state": 0, **options})


def waves(count: int = 24, channels: int = 2, seed: int = 0) -> tuple[list, np.ndarray]:
    """Return irregular series of different lengths with missing values, labelled slow or fast."""
    rng = np.random.default_rng(seed)
    kinds = np.arange(count) % 2
    series = []
    for kind in kinds:
        times = np.sort(rng.uniform(0, 10, rng.integers(5, 12)))
        values = np.sin((0.5 + kind) * times[:, None] + rng.uniform(0, 2, channels)) + 5
        values[rng.random(values.shape) < 0.2] = np.nan
        values[0, 0] = 5.0
        series.append((times, values))
    return series, np.array(["slow", "fast"])[kinds]


def long_form(series: list, labels) -> pd.DataFrame:
    frames = [
        pd.DataFrame({"who": f"p{k}", "when": times, "a": values[:, 0], "b": values[:, 1], "kind": label})
        for k, ((times, values), label) in enumerate(zip(series, labels, strict=True))
    ]
    return pd.concat(frames).reset_index(drop=True)


# No check is expected to fail.
@parametrize_with_checks([SeriesClassifier(hidden=8, width=8, max_epochs=6)])
def test_scikit_learn_accepts_it(estimator, check):
    check(estimator)


@pytest.mark.slow
@parametrize_with_checks([SeriesClassifier(kind, hidden=8, width=8, max_epochs=6) for kind in KINDS[1:]])
def test_scikit_learn_accepts_the_other_models(estimator, check):
    check(estimator)


@pytest.mark.parametrize("kind", KINDS)
def test_it_learns_irregular_series_with_gaps(kind):
    series, labels = waves(120)
    model = small(model=kind, hidden=16, width=16, max_epochs=40).fit(series, labels)
    others, other_labels = waves(60, seed=1)
    assert model.score(others, other_labels) > 0.8
    assert model.classes_.tolist() == ["fast", "slow"]
    assert model.n_features_in_ == 2
    assert model.n_iter_ <= 40


def test_parameters_are_stored_as_given_and_cloned():
    model = SeriesClassifier("rnn", hidden=5, steps=None, random_state=3)
    assert clone(model).get_params() == model.get_params()
    assert model.get_params()["model"] == "rnn"


@pytest.mark.parametrize("kind", KINDS)
def test_the_random_state_decides_every_bit(kind):
    series, labels = waves()
    torch.manual_seed(1)
    first = small(model=kind).fit(series, labels).predict_proba(series)
    before, numpy_before = torch.get_rng_state(), np.random.get_state()[1].copy()
    second = small(model=kind).fit(series, labels).predict_proba(series)
    assert np.array_equal(first, second)
    assert not np.array_equal(first, small(model=kind, random_state=1).fit(series, labels).predict_proba(series))
    small(random_state=None, max_epochs=1).fit(series, labels)
    assert torch.equal(torch.get_rng_state(), before)
    assert np.array_equal(np.random.get_state()[1], numpy_before)


@pytest.mark.parametrize("kind", KINDS)
def test_predictions_do_not_depend_on_other_series(kind):
    series, labels = waves(40)
    model = small(model=kind).fit(series, labels)
    together = model.predict_proba(series)
    order = np.random.default_rng(0).permutation(40)
    assert np.allclose(model.predict_proba([series[k] for k in order]), together[order], rtol=0, atol=1e-12)
    alone = np.concatenate([model.predict_proba([x]) for x in series])
    assert np.allclose(alone, together, rtol=0, atol=1e-12)


@pytest.mark.parametrize("kind", KINDS)
def test_gradients_reach_every_parameter(kind):
    series, labels = waves()
    model = small(model=kind).fit(series, labels)
    observed = model.scale_.apply(series_from_sequences(series)).to(torch.float32)
    cross_entropy(model.network_(observed), torch.as_tensor(labels == "slow").long()).backward()
    still = [name for name, p in model.network_.named_parameters() if p.grad is None or not p.grad.abs().sum()]
    assert still == []


def test_all_forms_of_the_same_series_are_equivalent():
    series, labels = waves()
    grid = np.full((24, 12, 2), np.nan)
    for row, (_, values) in enumerate(series):
        grid[row, : len(values)] = values
    arrays = [values for _, values in series]
    as_arrays = small().fit(arrays, labels).predict_proba(arrays)
    assert np.array_equal(small().fit(grid, labels).predict_proba(grid), as_arrays)
    assert np.array_equal(small().fit(torch.tensor(grid), labels).predict_proba(arrays), as_arrays)
    observed = Observations.gather(series, dtype=torch.float64)
    timed = small().fit(series, labels).predict_proba(observed)
    assert np.array_equal(small().fit(observed, labels).predict_proba(series), timed)


def test_rows_of_numbers_and_lists_of_their_series_agree():
    X, y = np.random.default_rng(0).normal(size=(30, 6)), np.arange(30) % 3
    model = small().fit(X, y)
    assert model.n_features_in_ == 6
    assert np.array_equal(model.predict_proba(X), model.predict_proba([x[:, None] for x in X]))
    ragged = [x[: 3 + k % 3] for k, x in enumerate(X)]
    assert small().fit(ragged, y).predict_proba(X[:, :4]).shape == (30, 3)


def test_tables_in_long_form_give_the_same_predictions(tmp_path):
    series, labels = waves()
    observed_rows = [(t[ok], x[ok]) for t, x in series for ok in [np.isfinite(x).any(1)]]
    table = long_form(series, labels)
    model = small().fit(table, series="who", time="when", label="kind")
    assert model.columns_.values == ("a", "b")
    expected = small().fit(observed_rows, labels).predict_proba(observed_rows)
    assert np.array_equal(model.predict_proba(table), expected)
    shuffled = table.sample(frac=1, random_state=0).drop(columns="kind")
    places = [int(who[1:]) for who in shuffled["who"].drop_duplicates()]
    assert np.allclose(model.predict_proba(shuffled), expected[places], rtol=0, atol=1e-12)
    assert model.score(table) == model.score(observed_rows, labels)
    for name, write in (("x.csv", table.to_csv), ("x.parquet", table.to_parquet)):
        write(tmp_path / name, index=False)
        from_file = small().fit(str(tmp_path / name), series="who", time="when", label="kind")
        assert np.array_equal(from_file.predict_proba(tmp_path / name), expected)
    given = small().fit(table, labels, series="who", time="when", values=["a", "b"])
    assert np.array_equal(given.predict_proba(table), expected)


def test_one_observation_of_a_new_series_suffices_for_a_prediction():
    series, labels = waves()
    model = small().fit(long_form(series, labels), series="who", time="when", label="kind")
    one = pd.DataFrame({"who": ["new"], "when": [3.0], "a": [np.nan], "b": [4.0]})
    assert model.predict(one).shape == (1,)


def test_covariates_are_used():
    series, labels = waves()
    static = torch.tensor(labels == "slow").float()[:, None] * 100 + torch.arange(24)[:, None] / 24
    observed = Observations.gather(series, static=static)
    model = small(max_epochs=40).fit(observed, labels)
    assert model.score(observed, labels) == 1
    with pytest.raises(ValueError, match="the series have 0 covariates; wanted 1"):
        model.predict(series)


FRESH = """
import json, sys, pandas as pd
from neuralode.estimators import SeriesClassifier
model = SeriesClassifier.load(sys.argv[1])
table = pd.read_parquet(sys.argv[2])
print(json.dumps([model.predict_proba(table).tolist(), model.predict(table).tolist(), model.get_params()]))
"""


def test_a_fresh_process_predicts_the_same_bits_from_a_folder(tmp_path):
    series, labels = waves()
    table = long_form(series, labels)
    table.to_parquet(tmp_path / "table.parquet")
    model = small(hidden=np.int64(7)).fit(table, series="who", time="when", label="kind")
    model.save(tmp_path / "kept")
    command = [sys.executable, "-c", FRESH, str(tmp_path / "kept"), str(tmp_path / "table.parquet")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    probabilities, labels_predicted, params = json.loads(done.stdout)
    assert probabilities == model.predict_proba(table).tolist()
    assert labels_predicted == model.predict(table).tolist()
    assert params == model.get_params()
    assert done.stderr == ""


@pytest.mark.parametrize("labels", [[3, 5], [True, False], [0.0, 1.0], ["a", "bb"]])
def test_a_loaded_classifier_has_the_same_classes_and_features(tmp_path, labels):
    X, y = pd.DataFrame(np.random.default_rng(0).normal(size=(10, 3)), columns=list("abc")), np.array(labels * 5)
    model = small(model="rnn", max_epochs=1).fit(X, y)
    model.save(tmp_path)
    loaded = SeriesClassifier.load(tmp_path)
    assert loaded.predict(X).dtype == y.dtype
    assert np.array_equal(loaded.predict_proba(X), model.predict_proba(X))
    assert vars(loaded).keys() == vars(model).keys()
    with pytest.raises(ValueError, match="feature names"):
        loaded.predict(X[["c", "b", "a"]])


def test_loading_keeps_the_random_state_and_set_params_keeps_predictions(tmp_path):
    series, labels = waves()
    model = small(max_epochs=1).fit(series, labels)
    model.set_params(hidden=3, method="rk4").save(tmp_path)
    before = torch.get_rng_state()
    loaded = SeriesClassifier.load(tmp_path)
    assert torch.equal(torch.get_rng_state(), before)
    assert loaded.hidden == 3
    assert np.array_equal(loaded.predict_proba(series), model.predict_proba(series))


def test_parameters_that_json_cannot_hold_are_rejected_before_writing(tmp_path):
    series, labels = waves()
    model = small(max_epochs=1).fit(series, labels).set_params(accelerator=object())
    with pytest.raises(TypeError, match="SeriesClassifier has something that JSON cannot hold"):
        model.save(tmp_path / "new")
    assert not (tmp_path / "new").exists()


def test_diverging_training_raises(monkeypatch):
    series, labels = waves()
    first = SeriesClassifier._network

    def spoiled(self):
        network = first(self)
        torch.nn.init.constant_(network.head[1].bias, torch.nan)
        return network

    monkeypatch.setattr(SeriesClassifier, "_network", spoiled)
    with pytest.raises(ValueError, match="learning_rate=0.01 led to weights that are not finite; wanted a lower one"):
        small().fit(series, labels)


def test_saving_again_replaces_the_estimator(tmp_path):
    series, labels = waves()
    small(max_epochs=1).fit(series, labels).save(tmp_path)
    model = small(max_epochs=2).fit(series, labels)
    model.save(tmp_path)
    assert len(list(tmp_path.iterdir())) == 2
    assert np.array_equal(SeriesClassifier.load(tmp_path).predict_proba(series), model.predict_proba(series))


def test_a_folder_of_another_estimator_is_rejected(tmp_path):
    with pytest.raises(FileNotFoundError, match="holds no estimator"):
        SeriesClassifier.load(tmp_path)
    (tmp_path / "estimator.json").write_text('{"estimator": "Other", "format": 1}')
    with pytest.raises(ValueError, match="holds a Other; wanted a SeriesClassifier"):
        SeriesClassifier.load(tmp_path)


def test_fitting_is_silent(capfd):
    series, labels = waves()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.filterwarnings("ignore", module="lightning")  # as fit() does, before the filter above
        small().fit(series, labels).predict(series)
    out, err = capfd.readouterr()
    assert out + err == ""


@pytest.mark.parametrize("labels", [["a", "b"], ["a", "a", "a", "b"], list("aaaaaaaaaabc")])
def test_with_few_series_of_a_class_training_series_are_validated(labels):
    series, _ = waves(len(labels))
    model = small().fit(series, labels)
    assert set(model.predict(series)) <= set(labels)
    assert np.isfinite(model.best_loss_)


def test_origin_and_unit_of_times_do_not_matter():
    series, labels = waves()
    elsewhere = [(1.7e9 + 3600 * times, values) for times, values in series]
    here = small().fit(series, labels).predict_proba(series)
    assert np.allclose(small().fit(elsewhere, labels).predict_proba(elsewhere), here, atol=1e-3)


def test_fit_works_outside_the_main_thread():
    series, labels = waves()
    found = []
    worker = threading.Thread(target=lambda: found.append(small(max_epochs=1).fit(series, labels).predict(series)))
    worker.start()
    worker.join()
    assert len(found[0]) == 24


def test_cross_validation_works():
    series, labels = waves(12)
    grid = np.stack([np.resize(values, (6, 2)) for _, values in series])
    assert len(cross_val_score(small(max_epochs=1), grid, labels, cv=2, error_score="raise")) == 2


@pytest.mark.parametrize(
    ("X", "y", "options", "sentence"),
    [
        (np.ones((4, 3)), None, {}, "requires y to be passed"),
        (np.ones((4, 3)), [0, 1, 0], {}, "X has 4 series and y 3 labels; wanted one label for each"),
        (np.ones((4, 3)), [0, 0, 0, 0], {}, "y has 1 class, 0; wanted two or more"),
        (np.full((4, 3), np.inf), [0, 1, 0, 1], {}, "infinity"),
        (np.full((2, 3, 1), np.nan), [0, 1], {}, "series 0 of X has no values"),
        (np.full((2, 3, 1), np.inf), [0, 1], {}, "X contains infinity"),
        ([np.ones((3, 2)), np.ones((3, 1))], [0, 1], {}, "the series have 1 or 2 channels; wanted the same in all"),
        ([([0.0, 1.0], [1.0, 2.0]), ([1.0, 0.0], [1.0, 2.0])], [0, 1], {}, "times of series 1 do not increase"),
        ([([0.0], [1.0]), 7.0], [0, 1], {}, "series 1 of X is not like the first"),
        (np.ones((4, 3)), [0, 1, 0, 1], {"time": "t"}, "time names a column, but X is a ndarray"),
        (pd.DataFrame({"a": [1.0]}), None, {"label": "a"}, "series is not given; wanted the column"),
    ],
)
def test_invalid_input_is_rejected(X, y, options, sentence):
    with pytest.raises(ValueError, match=sentence):
        small().fit(X, y, **options)


def test_labels_that_change_within_a_series_are_rejected():
    table = pd.DataFrame({"who": [1, 1, 2], "t": [0, 1, 0], "x": [1.0, 2.0, 3.0], "kind": ["a", "b", "a"]})
    with pytest.raises(ValueError, match=r"column 'kind' has 'b' after another label at row 2 \(series 1\)"):
        small().fit(table, series="who", time="t", label="kind")
    table["kind"] = ["a", "a", None]
    with pytest.raises(ValueError, match=r"has no label at row 3 \(series 2\)"):
        small().fit(table, series="who", time="t", label="kind")


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"model": "lstm"}, "model='lstm'; wanted one of 'odernn', 'gru-decay', 'rnn'"),
        ({"hidden": 0}, "hidden=0; wanted a whole number of at least 1"),
        ({"dropout": 1.0}, "dropout=1.0; wanted at least 0 and less than 1"),
        ({"learning_rate": 0}, "learning_rate=0; wanted a number above 0"),
        ({"method": "nope"}, "nope"),
    ],
)
def test_invalid_parameters_are_rejected(options, sentence):
    with pytest.raises(ValueError, match=sentence):
        small(**options).fit(np.ones((4, 3)), [0, 1, 0, 1])


def test_series_with_other_channels_are_rejected():
    series, labels = waves()
    model = small().fit(series, labels)
    with pytest.raises(ValueError, match="the series have 3 channels; wanted 2"):
        model.predict(waves(4, channels=3)[0])


@pytest.mark.skipif(find_spec("aeon") is None, reason="needs the files of aeon==1.6.0")
def test_speakers_of_japanese_vowels_are_identified():
    train, test = japanese_vowels()
    model = SeriesClassifier(max_epochs=30, random_state=0).fit(train.series, train.speakers)
    assert model.score(test.series, test.speakers) >= 0.95


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"label": "outcom"}, "no column 'outcom' for label; did you mean 'outcome'"),
        ({"label": "who"}, "is given for label and for another role"),
        ({"label": "outcome", "values": ["x", "outcome"]}, "is given for label and for another role"),
    ],
)
def test_the_label_column_has_no_other_role(options, says):
    frame = pd.DataFrame({"who": [0, 0, 1, 1], "day": [0, 1, 0, 1], "x": [1.0, 2, 3, 4], "outcome": [0, 0, 1, 1]})
    with pytest.raises(ValueError, match=says):
        SeriesClassifier().fit(frame, series="who", time="day", **options)
