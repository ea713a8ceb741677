"""Global state does not affect `fit`, and a fit that fails leaves the estimator unchanged."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import torch

from neuralode.estimators import CNFDensity, LatentODEForecaster, ODENetClassifier, ODENetRegressor, SeriesClassifier

rng = np.random.default_rng(0)
X = rng.normal(size=(40, 3))
LABELS, NUMBERS = X[:, 0] > 0, X[:, 0] + X[:, 1]
SERIES = rng.normal(size=(12, 6, 2))
TABLE = pd.DataFrame({"x": np.sin(np.arange(30.0))})
SMALL = {"max_epochs": 1, "random_state": 0}

# estimator, arguments of fit, prediction, arguments that fit rejects
CASES = {
    "ODENetClassifier": (
        ODENetClassifier(hidden=4, width=4, **SMALL), (X, LABELS),
        lambda model: model.predict_proba(X), (np.ones_like(X), np.where(LABELS, "x", "z")),
    ),
    "ODENetRegressor": (
        ODENetRegressor(hidden=4, width=4, **SMALL), (X, NUMBERS),
        lambda model: model.predict(X), (np.ones_like(X), np.c_[NUMBERS, NUMBERS]),
    ),
    "CNFDensity": (
        CNFDensity(width=4, layers=1, **SMALL), (X,), lambda model: model.score_samples(X), (np.ones_like(X),)
    ),
    "SeriesClassifier": (
        SeriesClassifier(hidden=4, width=4, **SMALL), (SERIES, LABELS[:12]),
        lambda model: model.predict_proba(SERIES), (SERIES[:, :, :1], np.zeros(12)),
    ),
    "LatentODEForecaster": (
        LatentODEForecaster(latent=2, hidden=4, width=4, samples=5, **SMALL), (TABLE,),
        lambda model: model.forecast(horizon=2)["mean"].to_numpy(), (TABLE.assign(x="text"),),
    ),
}  # fmt: skip
each = pytest.mark.parametrize(("model", "data", "predict", "invalid"), CASES.values(), ids=CASES)


def fresh(model):
    return type(model)(**model.get_params())


@each
def test_networks_ignore_the_default_dtype(model, data, predict, invalid, tmp_path):
    expected = predict(fresh(model).fit(*data))
    torch.set_default_dtype(torch.float64)
    try:
        fitted = fresh(model).fit(*data)
        predicted = predict(fitted)
        fitted.save(tmp_path)
        loaded = predict(type(model).load(tmp_path))
        assert torch.get_default_dtype() == torch.float64
    finally:
        torch.set_default_dtype(torch.float32)
    np.testing.assert_array_equal(predicted, expected)
    np.testing.assert_array_equal(loaded, expected)


@each
@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_fit_works_where_gradients_are_disabled(model, data, predict, invalid, mode):
    expected = predict(fresh(model).fit(*data))
    with mode():
        np.testing.assert_array_equal(predict(fresh(model).fit(*data)), expected)
    assert torch.is_grad_enabled()


@each
def test_a_rejected_fit_leaves_the_estimator_unchanged(model, data, predict, invalid):
    model = fresh(model).fit(*data)
    expected = predict(model)
    with pytest.raises(ValueError, match="."):
        model.fit(*invalid)
    np.testing.assert_array_equal(predict(model), expected)


@each
def test_a_diverging_fit_raises_and_leaves_the_estimator_unchanged(model, data, predict, invalid, monkeypatch):
    model = fresh(model).fit(*data)
    expected = predict(model)

    def diverge(self):
        for part in self.parameters():
            torch.nn.init.constant_(part, torch.nan)

    monkeypatch.setattr("neuralode.training.module.TrainingModule.on_train_start", diverge, raising=False)
    with pytest.raises(ValueError, match=r"learning_rate=0.0\d+ led to weights that are not finite"):
        model.fit(*data)
    np.testing.assert_array_equal(predict(model), expected)


@pytest.mark.parametrize("kind", [ODENetClassifier, ODENetRegressor])
@pytest.mark.parametrize("scale", [1e39, 1e-46, 1e300, 1e-300])
def test_sample_weights_are_relative_at_any_scale(kind, scale):
    model = kind(hidden=4, width=4, **SMALL)
    weights = np.where(LABELS, 1.0, 2.0)
    plain, scaled = (fresh(model).fit(X, LABELS, sample_weight=w) for w in (weights, scale * weights))
    np.testing.assert_allclose(plain.predict(X), scaled.predict(X), rtol=1e-5)


NUMERIC_PARAMETERS = [
    (model, data, name)
    for model, data, _, _ in CASES.values()
    for name in ("learning_rate", "rtol", "weight_decay", "validation_fraction", "kl_weight", "dropout")
    if name in model.get_params()
]


@pytest.mark.parametrize(("model", "data", "name"), NUMERIC_PARAMETERS, ids=str)
@pytest.mark.parametrize("value", ["0.1", None, True])
def test_a_parameter_that_is_not_a_number_is_rejected(model, data, name, value):
    with pytest.raises(ValueError, match=rf"^{name}={value!r}; wanted "):
        fresh(model).set_params(**{name: value}).fit(*data)
