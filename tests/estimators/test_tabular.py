"""`ODENetClassifier` and `ODENetRegressor` pass scikit-learn's checks and predict for the rows of a table."""

import json
import pickle
import subprocess
import sys
import threading
import warnings

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.base import clone
from sklearn.datasets import load_iris
from sklearn.model_selection import cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder
from sklearn.utils.estimator_checks import parametrize_with_checks

import neuralode
from neuralode.estimators import ODENetClassifier, ODENetRegressor
from neuralode.nn import TabularODENet
from neuralode.training.fit import prepare_for_inference
from neuralode.training.modules.tabular import Architecture, Part, TabularData, predict_rows

KINDS = [ODENetClassifier, ODENetRegressor]
SMALL = {"hidden": 8, "width": 8, "max_epochs": 2, "random_state": 0}

both = pytest.mark.parametrize("kind", KINDS)


@pytest.fixture(autouse=True)
def _few_steps(monkeypatch):
    monkeypatch.setattr("neuralode.training.modules.tabular.STEPS", 2)


def rows(count: int = 60, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(count, 3)) * [1.0, 100.0, 0.01] + [0.0, 5.0, 1.0]


def targets(kind, X: np.ndarray) -> np.ndarray:
    return np.where(X[:, 0] > 0, "up", "down") if kind is ODENetClassifier else 7 + 20 * X[:, 0]


def outputs(model, X) -> np.ndarray:
    return model.predict_proba(X) if isinstance(model, ODENetClassifier) else model.predict(X)


def fitted(kind, X=None, **options):
    X = rows() if X is None else X
    return kind(**SMALL | options).fit(X, targets(kind, np.asarray(X)))


def _expected_to_fail(estimator) -> dict[str, str]:
    return {
        "check_sample_weight_equivalence_on_dense_data": "rows are held out and batches drawn by chance: a row twice "
        "is another draw than one of weight 2. Weights 0 and 1 are exact, which is tested below.",
    }


@parametrize_with_checks(
    [
        kind(hidden=8, width=4, max_epochs=6, learning_rate=0.05, batch_size=512, method="bosh3", rtol=0.1)
        for kind in KINDS
    ],
    expected_failed_checks=_expected_to_fail,
)
def test_scikit_learn_accepts_it(estimator, check):
    check(estimator)


def test_they_are_exported_by_the_package():
    assert neuralode.ODENetClassifier is ODENetClassifier
    assert neuralode.ODENetRegressor is ODENetRegressor
    assert isinstance(neuralode.nn.TabularODENet(2, 1), TabularODENet)


def test_the_classifier_learns_a_nonlinear_boundary(monkeypatch):
    monkeypatch.setattr("neuralode.training.modules.tabular.STEPS", 10)
    X = np.random.default_rng(0).uniform(-1, 1, size=(400, 2))
    inside = np.hypot(*X.T) < 0.75
    model = ODENetClassifier(hidden=8, width=16, max_epochs=20, learning_rate=0.03, random_state=0)
    model.fit(X[:300], inside[:300])
    assert model.classes_.tolist() == [False, True]
    assert model.score(X[300:], inside[300:]) > 0.9
    assert np.allclose(model.predict_proba(X).sum(1), 1)
    assert np.array_equal(model.classes_[model.predict_proba(X).argmax(1)], model.predict(X))


def test_the_regressor_learns_several_targets_of_different_scales(monkeypatch):
    monkeypatch.setattr("neuralode.training.modules.tabular.STEPS", 10)
    X = np.random.default_rng(0).uniform(-2, 2, size=(400, 2))
    y = np.column_stack([1e6 * np.sin(X[:, 0]) - 1e7, 1e-6 * X.prod(1)])
    model = ODENetRegressor(hidden=8, width=16, max_epochs=20, learning_rate=0.03, random_state=0).fit(X[:300], y[:300])
    found = model.predict(X[300:])
    assert found.shape == (100, 2)
    assert (1 - ((found - y[300:]) ** 2).mean(0) / y[300:].var(0) > 0.9).all()
    assert 0 < model.best_loss_ < 0.1


def test_predictions_have_the_form_of_y():
    X = rows()
    y = targets(ODENetRegressor, X)
    flat, column = ODENetRegressor(**SMALL).fit(X, y), ODENetRegressor(**SMALL).fit(X, y[:, None])
    assert flat.predict(X).shape == (60,)
    assert column.predict(X).shape == (60, 1)
    assert np.array_equal(column.predict(X)[:, 0], flat.predict(X))
    constant = ODENetRegressor(**SMALL).fit(X, np.column_stack([y, np.full(60, 0.1)])).predict(X)
    assert (constant[:, 1] == 0.1).all()
    assert np.allclose(
        constant[:, 0], flat.predict(X), rtol=1e-3
    )  # the mean of a strided column is rounded differently


@both
def test_parameters_are_stored_as_given_and_cloned(kind):
    model = kind(hidden=5, rtol=1e-2, gradient="direct", random_state=3)
    assert clone(model).get_params() == model.get_params()


@both
def test_the_random_state_decides_every_bit(kind):
    X = rows()
    torch.manual_seed(1)
    first = fitted(kind)
    before, numpy_before = torch.get_rng_state(), np.random.get_state()[1].copy()
    torch.manual_seed(2)
    assert np.array_equal(outputs(fitted(kind), X), outputs(first, X))
    torch.set_rng_state(before)
    assert not np.array_equal(outputs(fitted(kind, random_state=1), X), outputs(first, X))
    fitted(kind, random_state=None, max_epochs=1)
    assert torch.equal(torch.get_rng_state(), before)
    assert np.array_equal(np.random.get_state()[1], numpy_before)


@both
def test_predictions_do_not_depend_on_other_rows(kind, monkeypatch):
    X = rows(40)
    model = fitted(kind)
    together = outputs(model, X)
    alone = np.concatenate([outputs(model, row[None]) for row in X])
    assert np.allclose(alone, together, rtol=0, atol=1e-12 * np.abs(together).max())
    # distant rows take other steps; on a shared clock, all rows would take them
    far = np.concatenate([X, 1e4 * X[:5]])
    assert np.allclose(outputs(model, far)[:40], together, rtol=0, atol=1e-12 * np.abs(together).max())
    monkeypatch.setattr("neuralode.training.modules.tabular.AT_ONCE", 7)
    assert np.allclose(outputs(model, X), together, rtol=0, atol=1e-12 * np.abs(together).max())


def test_predictions_solve_the_equation_to_a_tight_tolerance():
    network = Architecture(hidden=6, width=8).build(3, 2)
    for parameter in network.parameters():
        parameter.data *= 2
    X = rows() / rows().std(0)
    reference = predict_rows(network, X, tolerance=1e-12)
    assert np.abs(predict_rows(network, X) - reference).max() < 1e-5
    assert network.ode.rtol == 1e-3  # the network is not changed
    assert next(network.parameters()).dtype == torch.float32
    with torch.no_grad():
        as_trained = network(torch.as_tensor(X, dtype=torch.float32)).numpy()
    assert np.abs(as_trained - reference).max() < 0.05


@both
def test_rows_of_weight_0_are_ignored(kind):
    X = rows()
    y = targets(kind, X)
    expected = outputs(kind(**SMALL).fit(X, y), X)
    more, odd = np.concatenate([1e9 * X, X]), np.concatenate([y[::-1], y])
    weights = np.repeat([0.0, 3.0], 60)  # the scale of positive weights does not matter
    assert np.array_equal(outputs(kind(**SMALL).fit(more, odd, sample_weight=weights), X), expected)


def test_rows_of_larger_weight_count_more():
    X = np.random.default_rng(0).normal(size=(100, 1))
    y = np.arange(100) % 2  # only class frequencies can be learned
    options = {**SMALL, "max_epochs": 20, "learning_rate": 0.03}
    plain = ODENetClassifier(**options).fit(X, y).predict_proba(X)[:, 1].mean()
    heavy = ODENetClassifier(**options).fit(X, y, sample_weight=1.0 + 8 * y).predict_proba(X)[:, 1].mean()
    assert abs(plain - 0.5) < 0.1
    assert abs(heavy - 0.9) < 0.1


def test_validation_is_the_weighted_mean_over_all_batches(monkeypatch):
    monkeypatch.setattr("neuralode.training.modules.tabular.AT_ONCE", 2)
    part = Part(torch.zeros(5, 1), torch.arange(5.0)[:, None], torch.tensor([1.0, 2.0, 3.0, 4.0, 0.5]))
    batches = list(TabularData(part, part, size=2).val_dataloader())
    assert [len(batch.rows) for batch in batches] == [2, 2, 1]
    weights = torch.cat([batch.weights for batch in batches])
    torch.testing.assert_close(weights, part.weights / part.weights.mean())


def test_names_of_columns_are_recorded_and_checked():
    frame = pd.DataFrame(rows(), columns=["a", "b", "c"])
    model = fitted(ODENetRegressor, frame)
    assert list(model.feature_names_in_) == ["a", "b", "c"]
    assert np.array_equal(model.predict(frame), fitted(ODENetRegressor).predict(rows()))
    with pytest.raises(ValueError, match="feature names"):
        model.predict(frame[["b", "a", "c"]])
    with pytest.raises(ValueError, match="2 features, but ODENetRegressor is expecting 3"):
        fitted(ODENetRegressor, max_epochs=1).predict(np.ones((2, 2)))


@both
def test_a_constant_column_is_left_out(kind):
    X = rows()
    expected = outputs(fitted(kind), X)
    wide = np.insert(X, 1, 0.3, axis=1)
    model = kind(**SMALL).fit(wide, targets(kind, X))
    assert model.n_features_in_ == 4
    assert np.array_equal(outputs(model, wide), expected)
    wide[:, 1] = 9.0
    assert np.array_equal(outputs(model, wide), expected)


def test_text_is_encoded_in_a_pipeline():
    frame = pd.DataFrame({"kind": ["rose", "tulip", "rose"] * 20, "odd": [True, False, True] * 20})
    model = make_pipeline(OneHotEncoder(), ODENetClassifier(**SMALL))
    with pytest.raises(TypeError, match=r"[Ss]parse"):
        model.fit(frame, frame["odd"])
    model = make_pipeline(OneHotEncoder(sparse_output=False), ODENetClassifier(**{**SMALL, "learning_rate": 0.1}))
    assert model.fit(frame, frame["odd"]).score(frame, frame["odd"]) == 1
    truths = ODENetClassifier(**{**SMALL, "learning_rate": 0.1}).fit(frame[["odd"]], frame["kind"])
    assert truths.score(frame[["odd"]], frame["kind"]) == 1


FRESH = """
import json, sys, numpy as np, neuralode
model = getattr(neuralode, sys.argv[1]).load(sys.argv[2])
X = np.load(sys.argv[3])
predicted = model.predict_proba(X) if hasattr(model, "predict_proba") else model.predict(X)
print(json.dumps([predicted.tolist(), model.predict(X).tolist(), model.get_params()]))
"""


@both
def test_a_fresh_process_gives_the_same_bits_from_a_folder(kind, tmp_path):
    X = rows()
    np.save(tmp_path / "rows.npy", X)
    model = fitted(kind, hidden=np.int64(7))
    model.save(tmp_path / "saved")
    command = [sys.executable, "-c", FRESH, kind.__name__, str(tmp_path / "saved"), str(tmp_path / "rows.npy")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    probabilities, labels, params = json.loads(done.stdout)
    assert probabilities == outputs(model, X).tolist()
    assert labels == model.predict(X).tolist()
    assert params == model.get_params()
    assert done.stderr == ""


@both
@pytest.mark.parametrize("form", [rows, lambda: pd.DataFrame(rows(), columns=["a", "b", "c"])])
def test_a_loaded_estimator_has_the_same_attributes(kind, form, tmp_path):
    X = form()
    model = fitted(kind, X, max_epochs=1)
    model.set_params(width=3, method="nope").save(tmp_path)
    before = torch.get_rng_state()
    loaded = kind.load(tmp_path)
    assert torch.equal(torch.get_rng_state(), before)
    assert vars(loaded).keys() == vars(model).keys()
    assert loaded.width == 3
    assert np.array_equal(outputs(loaded, X), outputs(model, X))
    assert loaded.predict(X).dtype == model.predict(X).dtype
    assert np.array_equal(outputs(pickle.loads(pickle.dumps(model)), X), outputs(model, X))


@pytest.mark.parametrize("labels", [np.array(["a", "b"]), np.array(["a", "b"], object), np.array([-1, 7]), [0.5, 2.0]])
def test_labels_keep_their_dtype(labels, tmp_path):
    X = rows()
    y = np.asarray(labels)[(X[:, 0] > 0).astype(int)]
    model = ODENetClassifier(**SMALL).fit(X, y) if y.dtype.kind != "f" else None
    if model is None:
        with pytest.raises(ValueError, match="Unknown label type: continuous"):
            ODENetClassifier(**SMALL).fit(X, y)
        return
    model.save(tmp_path)
    assert model.predict(X).dtype == ODENetClassifier.load(tmp_path).predict(X).dtype == y.dtype


def test_a_damaged_folder_is_rejected(tmp_path):
    fitted(ODENetRegressor, max_epochs=1).save(tmp_path)
    with pytest.raises(ValueError, match="holds a ODENetRegressor; wanted a ODENetClassifier"):
        ODENetClassifier.load(tmp_path)
    (weights,) = tmp_path.glob("*.safetensors")
    file, content, saved = tmp_path / "estimator.json", weights.read_bytes(), (tmp_path / "estimator.json").read_text()
    for spoiled in (content[:-7], content[:-1] + b"\x01", b""):
        weights.write_bytes(spoiled)
        with pytest.raises(ValueError, match=r"safetensors is damaged: .* wanted it as save\(\) wrote it"):
            ODENetRegressor.load(tmp_path)
    weights.unlink()
    with pytest.raises(
        FileNotFoundError, match=r"weights-.*safetensors does not exist; wanted the tensors of the estimator"
    ):
        ODENetRegressor.load(tmp_path)
    weights.write_bytes(content)
    for spoiled in (saved[:-9], "[]", "{}", saved.replace('"config"', '"confit"'), "\x00"):
        file.write_text(spoiled)
        with pytest.raises(ValueError, match=r"estimator.json is damaged: .* wanted it as save\(\) wrote it"):
            ODENetRegressor.load(tmp_path)
    for entry in ("standard", "architecture", "targets"):
        without = json.loads(saved)
        del without["config"][entry]
        file.write_text(json.dumps(without))
        with pytest.raises(ValueError, match=f"does not hold what ODENetRegressor.save\\(\\) wrote: '{entry}'"):
            ODENetRegressor.load(tmp_path)
    other = json.loads(saved)
    other["config"]["architecture"]["hidden"] = 9
    file.write_text(json.dumps(other))
    with pytest.raises(ValueError, match=r"(?s)does not hold what ODENetRegressor.save\(\) wrote: .*size mismatch"):
        ODENetRegressor.load(tmp_path)
    with pytest.raises(FileNotFoundError, match="holds no estimator"):
        ODENetRegressor.load(tmp_path / "elsewhere")


@both
def test_fitting_is_silent_and_works_outside_the_main_thread(kind, capfd):
    found = []

    def work():
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            warnings.filterwarnings("ignore", module="lightning")  # as fit() does, before the filter above
            found.append(outputs(fitted(kind, max_epochs=1), rows()))

    work()
    worker = threading.Thread(target=work)
    worker.start()
    worker.join()
    assert np.array_equal(*found)
    out, err = capfd.readouterr()
    assert out + err == ""


def test_diverging_training_raises(monkeypatch):
    def spoiled(network, learning_rate):
        torch.nn.init.constant_(next(network.parameters()), torch.nan)
        return prepare_for_inference(network, learning_rate)

    monkeypatch.setattr("neuralode.training.modules.tabular.prepare_for_inference", spoiled)
    with pytest.raises(ValueError, match="learning_rate=0.5 led to weights that are not finite; wanted a lower one"):
        fitted(ODENetRegressor, learning_rate=0.5)


def test_cross_validation_works():
    X, y = load_iris(return_X_y=True)
    for kind in KINDS:
        assert len(cross_val_score(kind(**SMALL), X, y, cv=2, error_score="raise")) == 2


@both
@pytest.mark.parametrize(
    ("X", "sentence"),
    [
        (
            pd.DataFrame({"size": [1.0, 2.0] * 10, "kind": ["rose", "tulip"] * 10}),
            "column 'kind' has 'rose' at row 1; wanted numbers: encode such a column first, as by .*OneHotEncoder",
        ),
        (pd.DataFrame({"day": pd.date_range("2026", periods=20)}), "column 'day' has 2026-01-01 .*; wanted numbers"),
        (np.full((20, 2), np.nan), "contains NaN"),
        (np.full((20, 2), np.inf), "contains infinity"),
        (np.ones((20, 2)), "no column changes among 'x0', 'x1'"),
        (np.ones(20), "Expected 2D array, got 1D array"),
    ],
)
def test_invalid_rows_are_rejected(kind, X, sentence):
    with pytest.raises(ValueError, match=sentence):
        kind(**SMALL).fit(X, np.arange(20) % 2)


@pytest.mark.parametrize(
    ("kind", "y", "weights", "sentence"),
    [
        (ODENetClassifier, np.ones(60), None, "y has 1 class, 1.0; wanted two or more to tell apart"),
        (ODENetClassifier, np.arange(60) % 2, np.arange(60) % 2, "y has 1 class, 1; wanted two or more"),
        (ODENetRegressor, np.ones(60), None, r"y is \[1.0\] in every row; wanted a number that changes"),
        (ODENetRegressor, np.arange(60) % 2, np.zeros(60), "Sample weights must contain at least one non-zero number"),
        (ODENetRegressor, np.arange(60) % 2, np.eye(60)[3], "sample_weight is above 0 in 1 row of 60; wanted two or"),
        (ODENetRegressor, np.arange(60) % 2, -np.ones(60), "[Nn]egative values in data passed to `sample_weight`"),
        (ODENetRegressor, np.full(60, np.nan), None, "Input y contains NaN"),
    ],
)
def test_invalid_targets_and_weights_are_rejected(kind, y, weights, sentence):
    with pytest.raises(ValueError, match=sentence):
        kind(**SMALL).fit(rows(), y, sample_weight=weights)


@both
@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"width": 0}, "width=0; wanted a whole number of at least 1"),
        ({"max_epochs": 1.5}, "max_epochs=1.5; wanted a whole number"),
        ({"learning_rate": 0}, "learning_rate=0; wanted a number above 0"),
        ({"weight_decay": -1}, "weight_decay=-1; wanted a number not below 0"),
        ({"validation_fraction": 1.0}, "validation_fraction=1.0; wanted at least 0 and less than 1"),
        ({"method": "nope"}, "nope"),
        ({"method": "rk4"}, "step_size"),
    ],
)
def test_invalid_parameters_are_rejected(kind, options, sentence):
    with pytest.raises(ValueError, match=sentence):
        fitted(kind, **options)
