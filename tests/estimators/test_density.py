"""`CNFDensity` passes scikit-learn's checks and accepts all forms of tables."""

import json
import math
import subprocess
import sys
import threading
import warnings

import numpy as np
import pandas as pd
import pytest
import torch
from scipy.stats import multivariate_normal
from sklearn.base import clone
from sklearn.model_selection import cross_val_score
from sklearn.utils.estimator_checks import parametrize_with_checks

import neuralode
from neuralode.estimators import CNFDensity
from neuralode.training.fit import prepare_for_inference

MEAN, FACTOR = np.array([3.0, -1.0]), np.array([[1.0, 0.0], [0.8, 0.6]])


@pytest.fixture(autouse=True)
def _few_steps(monkeypatch):
    monkeypatch.setattr("neuralode.training.modules.density_module.STEPS", 2)


def small(**options) -> CNFDensity:
    return CNFDensity(**{"width": 8, "layers": 1, "max_epochs": 2, "random_state": 0, **options})


def normal_rows(count: int = 60, seed: int = 0) -> np.ndarray:
    return MEAN + np.random.default_rng(seed).normal(size=(count, 2)) @ FACTOR.T


def framed(count: int = 60, seed: int = 0) -> pd.DataFrame:
    return pd.DataFrame(normal_rows(count, seed), columns=["height", "weight"])


# No check is expected to fail.
@parametrize_with_checks([CNFDensity(width=4, layers=1, max_epochs=1)])
@pytest.mark.filterwarnings("ignore:most rows repeat a value", "ignore:a column among", "ignore:column")
def test_scikit_learn_accepts_it(estimator, check):
    check(estimator)


def test_it_is_exported_by_the_package():
    assert neuralode.CNFDensity is CNFDensity


def test_it_learns_a_normal_distribution_and_detects_outliers():
    model = small(width=32, max_epochs=12, learning_rate=1e-2, batch_size=128).fit(normal_rows(1000))
    test, truth = normal_rows(500, seed=1), multivariate_normal(MEAN, FACTOR @ FACTOR.T)
    scores = model.score_samples(test)
    assert abs(scores.mean() - truth.logpdf(test).mean()) < 0.05
    assert np.abs(scores - truth.logpdf(test)).mean() < 0.25
    assert model.score(test) == pytest.approx(scores.sum())
    far = MEAN + 8 * np.array([[1.0, -1.0], [-1.0, 0.0], [0.0, 1.0], [100.0, 100.0]])
    assert model.score_samples(far).max() < scores.min()
    drawn = model.sample(1000, random_state=0)
    assert np.allclose(drawn.mean(0), MEAN, atol=0.2)
    assert np.allclose(np.cov(drawn.T), FACTOR @ FACTOR.T, atol=0.3)


def test_parameters_are_stored_as_given_and_cloned():
    model = CNFDensity(width=5, divergence="hutchinson", step_size=0.5, random_state=3)
    assert clone(model).get_params() == model.get_params()


@pytest.mark.parametrize("divergence", ["exact", "hutchinson"])
def test_the_random_state_decides_every_bit(divergence):
    X = normal_rows()
    torch.manual_seed(1)
    first = small(divergence=divergence).fit(X)
    before, numpy_before = torch.get_rng_state(), np.random.get_state()[1].copy()
    second = small(divergence=divergence).fit(X)
    assert np.array_equal(first.score_samples(X), second.score_samples(X))
    assert np.array_equal(first.sample(5, 0), second.sample(5, 0))
    other = small(divergence=divergence, random_state=1).fit(X)
    assert not np.array_equal(first.score_samples(X), other.score_samples(X))
    small(random_state=None, max_epochs=1).fit(X).sample(2)
    assert torch.equal(torch.get_rng_state(), before)
    assert np.array_equal(np.random.get_state()[1], numpy_before)


def test_scores_do_not_depend_on_other_rows():
    X = normal_rows(30)
    model = small().fit(X)
    together = model.score_samples(X)
    alone = np.concatenate([model.score_samples(row[None]) for row in X])
    assert np.allclose(alone, together, rtol=0, atol=1e-9)


def test_all_forms_of_the_same_table_are_equivalent(tmp_path):
    frame = framed()
    frame.to_csv(tmp_path / "t.csv", index=False)
    frame.to_parquet(tmp_path / "t.parquet")
    model = small().fit(frame)
    expected = model.score_samples(frame)
    assert list(model.feature_names_in_) == ["height", "weight"]
    for source in (str(tmp_path / "t.csv"), tmp_path / "t.parquet"):
        from_file = small().fit(source)
        assert np.array_equal(from_file.score_samples(source), expected)
        assert np.array_equal(from_file.score_samples(frame), expected)
        assert list(from_file.sample(2)) == ["height", "weight"]
    from_array = small().fit(frame.to_numpy())
    assert np.array_equal(from_array.score_samples(frame.to_numpy()), expected)
    assert isinstance(from_array.sample(2), np.ndarray)
    assert np.array_equal(small().fit(torch.tensor(frame.to_numpy())).score_samples(frame.to_numpy()), expected)


def test_samples_are_a_frame_where_columns_are_named_by_text():
    assert isinstance(small(max_epochs=1).fit(framed()).sample(2), pd.DataFrame)
    assert isinstance(small(max_epochs=1).fit(pd.DataFrame(normal_rows())).sample(2), np.ndarray)


def test_columns_in_another_order_are_rejected():
    model = small().fit(framed())
    with pytest.raises(ValueError, match="feature names"):
        model.score_samples(framed()[["weight", "height"]])
    with pytest.raises(ValueError, match="3 features, but CNFDensity is expecting 2"):
        small(max_epochs=1).fit(normal_rows()).score_samples(np.ones((2, 3)))


def test_larger_samples_begin_with_smaller_ones():
    model = small().fit(framed())
    drawn = model.sample(20, random_state=5)
    assert isinstance(drawn, pd.DataFrame)
    assert list(drawn) == ["height", "weight"]
    assert np.allclose(model.sample(3, random_state=5), drawn[:3], rtol=0, atol=1e-5)
    assert not np.allclose(model.sample(20, random_state=6), drawn)
    assert model.sample().shape == (1, 2)
    for count in (0, 2.5, True):
        with pytest.raises(ValueError, match="n_samples=.*; wanted a whole number of at least 1"):
            model.sample(count)


def test_a_change_of_units_shifts_scores_by_its_logarithm():
    X = normal_rows()
    units = np.array([100.0, 0.01 * math.e])
    here, there = small().fit(X), small().fit(X * units)
    assert np.allclose(here.score_samples(X) - there.score_samples(X * units), 1, rtol=0, atol=1e-4)


def test_constant_columns_are_left_out_with_a_warning_and_restored_in_samples():
    frame = framed().assign(rate=0.3)
    with pytest.warns(UserWarning, match="column 'rate' is constant in the training rows and left out"):
        model = small().fit(frame)
    plain = small().fit(framed())
    assert np.array_equal(model.score_samples(frame), plain.score_samples(framed()))
    assert (model.sample(5)["rate"] == 0.3).all()
    assert (model.score_samples(frame.assign(rate=0.4)) == -np.inf).all()
    assert len(model.remarks_) == 1


def test_repeated_values_are_dequantized_with_a_warning():
    X = np.arange(200)[:, None] % 2 * 5.0
    options = {"width": 16, "max_epochs": 25, "patience": 25, "learning_rate": 3e-2, "kinetic": 0.0, "frobenius": 0.0}
    with pytest.warns(UserWarning, match="most rows repeat a value in 'x0'"):
        spread = small(**options).fit(X)
    with pytest.warns(UserWarning, match="most rows repeat a value in 'x0'"):
        bare = small(**options, spread=False).fit(X)
    # two values with noise of width 5 each have a density of 1/10
    assert spread.score_samples(X).max() < math.log(1 / 10) + 0.5
    assert bare.score_samples(X).mean() > spread.score_samples(X).mean() + 0.3
    # with noise, no epoch beats the entropy except by chance; without it, epochs do
    assert spread.best_loss_ > math.log(10) - 0.1
    assert bare.best_loss_ < math.log(10) - 0.3


FRESH = """
import json, sys, pandas as pd
from neuralode.estimators import CNFDensity
model = CNFDensity.load(sys.argv[1])
table = pd.read_parquet(sys.argv[2])
drawn = model.sample(5, random_state=0)
print(json.dumps([model.score_samples(table).tolist(), drawn.to_numpy().tolist(), list(drawn), model.get_params()]))
"""


def test_a_fresh_process_gives_the_same_bits_from_a_folder(tmp_path):
    table = framed().assign(rate=7.0)
    table.to_parquet(tmp_path / "table.parquet")
    with pytest.warns(UserWarning, match="rate"):
        model = small(width=np.int64(7)).fit(table)
    model.save(tmp_path / "kept")
    command = [sys.executable, "-c", FRESH, str(tmp_path / "kept"), str(tmp_path / "table.parquet")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    scores, drawn, names, params = json.loads(done.stdout)
    assert scores == model.score_samples(table).tolist()
    assert drawn == model.sample(5, random_state=0).to_numpy().tolist()
    assert names == ["height", "weight", "rate"]
    assert params == model.get_params()
    assert done.stderr == ""


@pytest.mark.parametrize("form", [framed, normal_rows])
def test_a_loaded_estimator_has_the_same_attributes(form, tmp_path):
    X = form()
    model = small(max_epochs=1).fit(X)
    model.set_params(width=3, method="rk4").save(tmp_path)
    before = torch.get_rng_state()
    loaded = CNFDensity.load(tmp_path)
    assert torch.equal(torch.get_rng_state(), before)
    assert vars(loaded).keys() == vars(model).keys()
    assert loaded.width == 3
    assert np.array_equal(loaded.score_samples(X), model.score_samples(X))
    assert type(loaded.sample(2)) is type(model.sample(2))


def test_a_folder_of_another_estimator_is_rejected(tmp_path):
    (tmp_path / "estimator.json").write_text('{"estimator": "Other", "format": 1}')
    with pytest.raises(ValueError, match="holds a Other; wanted a CNFDensity"):
        CNFDensity.load(tmp_path)


def test_diverging_training_raises(monkeypatch):
    def spoiled(flow, learning_rate):
        torch.nn.init.constant_(next(flow.parameters()), torch.nan)
        return prepare_for_inference(flow, learning_rate)

    monkeypatch.setattr("neuralode.training.modules.row_density.prepare_for_inference", spoiled)
    with pytest.raises(ValueError, match="learning_rate=0.01 led to weights that are not finite; wanted a lower one"):
        small().fit(normal_rows())


def test_fitting_is_silent_and_works_outside_the_main_thread(capfd):
    found = []

    def work():
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            warnings.filterwarnings("ignore", module="lightning")  # as fit() does, before the filter above
            found.append(small(max_epochs=1).fit(normal_rows()).score_samples(normal_rows()))

    work()
    worker = threading.Thread(target=work)
    worker.start()
    worker.join()
    assert np.array_equal(*found)
    out, err = capfd.readouterr()
    assert out + err == ""


def test_cross_validation_works():
    assert len(cross_val_score(small(max_epochs=1), normal_rows(40), cv=2, error_score="raise")) == 2


@pytest.mark.parametrize(
    ("X", "sentence"),
    [
        (framed().assign(kind="rose"), "column 'kind' has 'rose' at row 1; wanted a number"),
        (framed().assign(ill=True), "column 'ill' has True at row 1; wanted a number"),
        (framed().mask(framed() > 4.5), "has nothing at row"),
        (np.full((20, 2), np.nan), "contains NaN"),
        (np.ones((20, 2)), "no column changes among 'x0', 'x1'"),
        (normal_rows(9), "the table has 9 rows of 2 columns; wanted at least 10 rows"),
        (np.ones(20), "Expected 2D array, got 1D array"),
    ],
)
def test_invalid_input_is_rejected(X, sentence):
    with pytest.raises(ValueError, match=sentence):
        small().fit(X)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"width": 0}, "width=0; wanted a whole number of at least 1"),
        ({"max_epochs": 1.5}, "max_epochs=1.5; wanted a whole number"),
        ({"learning_rate": 0}, "learning_rate=0; wanted a number above 0"),
        ({"kinetic": -1}, "kinetic=-1; wanted a number not below 0"),
        ({"validation_fraction": 1.0}, "validation_fraction=1.0; wanted at least 0 and less than 1"),
        ({"method": "nope"}, "nope"),
        ({"divergence": "exat"}, "did you mean 'exact'"),
    ],
)
def test_invalid_parameters_are_rejected(options, sentence):
    with pytest.raises(ValueError, match=sentence):
        small(**options).fit(normal_rows())
