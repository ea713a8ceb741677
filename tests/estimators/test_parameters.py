"""Constructors, documentation and constraints that estimators inherit from their base, and the names that they save."""

from __future__ import annotations

import inspect
import json
import pydoc
import re
from dataclasses import is_dataclass

import numpy as np
import pandas as pd
import pytest
from safetensors.torch import load_file

from neuralode.estimators import CNFDensity, LatentODEForecaster, ODENetClassifier, ODENetRegressor, SeriesClassifier
from neuralode.estimators.base import TrainedEstimator
from neuralode.estimators.constraints import check_parameters

ESTIMATORS = [CNFDensity, LatentODEForecaster, ODENetClassifier, ODENetRegressor, SeriesClassifier]
each = pytest.mark.parametrize("kind", ESTIMATORS)

# Defaults of the parameters that estimators inherit; None for those that they do not have.
INHERITED = {
    "learning_rate": [0.01, 0.01, 0.005, 0.005, 0.01],
    "weight_decay": [0.01, None, 0.3, 0.3, 0.01],
    "batch_size": [256, 16, 128, 128, 32],
    "max_epochs": [50, 100, 60, 60, 100],
    "patience": [20, 25, 20, 20, 20],
    "validation_fraction": [0.1, None, 0.1, 0.1, 0.1],
    "accelerator": ["cpu"] * 5,
    "verbose": [False] * 5,
}


def parameters(kind) -> dict[str, inspect.Parameter]:
    return dict(inspect.signature(kind).parameters)


@each
def test_help_lists_each_parameter_once_with_its_default(kind):
    text = pydoc.plain(pydoc.render_doc(kind))
    for name, parameter in parameters(kind).items():
        entries = re.findall(rf"^ \|  {name} : (.*)$", text, re.MULTILINE)
        assert len(entries) == 1, name
        assert entries[0].endswith(f", default={parameter.default!r}"), name


@each
def test_the_docstring_documents_no_other_parameter(kind):
    section = re.search(r"^Parameters\n-+\n(.*?)\n\n^\w", inspect.getdoc(kind), re.MULTILINE | re.DOTALL)[1]
    assert set(re.findall(r"^(\w+) : ", section, re.MULTILINE)) == set(parameters(kind))


@each
def test_parameters_are_keywords_except_the_model_of_a_series_classifier(kind):
    positional = [name for name, p in parameters(kind).items() if p.kind is not inspect.Parameter.KEYWORD_ONLY]
    assert positional == (["model"] if kind is SeriesClassifier else [])


@each
def test_the_constructor_stores_its_parameters_and_nothing_else(kind):
    values = {name: object() for name in parameters(kind)}
    assert vars(kind(**values)) == values
    assert is_dataclass(kind)
    assert kind.__init__.__qualname__.startswith(kind.__qualname__)
    assert kind() != kind()  # compared by identity, as other estimators


@pytest.mark.parametrize(("name", "defaults"), INHERITED.items())
def test_inherited_parameters_have_the_defaults_of_each_estimator(name, defaults):
    found = [parameters(kind)[name].default if name in parameters(kind) else None for kind in ESTIMATORS]
    assert found == defaults


@each
def test_inherited_constraints_are_checked_and_belong_to_parameters(kind):
    assert TrainedEstimator._constraints.items() <= kind._constraints.items()
    assert kind._constraints.keys() <= parameters(kind).keys()
    check_parameters(kind())
    with pytest.raises(ValueError, match="patience=0; wanted a whole number of at least 1"):
        check_parameters(kind(patience=0))


# The names below "config" in version 1 of the format, by which saved estimators are loaded.
STANDARD = {"standard.names", "standard.mean", "standard.deviation", "standard.reach"}
TABULAR = {*STANDARD, *(f"architecture.{name}" for name in ("hidden", "width", "layers", "method", "rtol", "gradient"))}
COMMON = {"feature_names", "epochs", "best_loss"}
SAVED = {
    ODENetClassifier: {*COMMON, *TABULAR, "classes", "classes_dtype"},
    ODENetRegressor: {*COMMON, *TABULAR, *(name.replace("standard", "targets") for name in STANDARD), "flat"},
    CNFDensity: {*COMMON, *STANDARD, "features", "framed", "remarks", *(
        f"architecture.{name}"
        for name in ("width", "layers", "divergence", "jitter", "method", "rtol", "step_size", "gradient")
    )},
    SeriesClassifier: {
        *COMMON, "classes", "classes_dtype", "rows", "features",
        "columns.series", "columns.time", "columns.label", "columns.values", "columns.clock.kind", "columns.clock.tz",
        "scale.values.mean", "scale.values.deviation", "scale.values.logged", "scale.static", "scale.span",
        *(f"architecture.{name}" for name in ("model", "hidden", "width", "method", "steps", "dropout")),
    },
    LatentODEForecaster: {
        "feature_names", "binary", "named", "n_iter", "interrupted", "seed",
        "scaling.mean", "scaling.deviation", "scaling.logged", "setup.cut.window", "setup.cut.context",
        *(f"setup.{name}" for name in
          ("unit", "spacing", "latent", "hidden", "width", "recognition", "rtol", "atol")),
        *(f"table.{name}" for name in ("names", "channels", "series_column", "time_column", "lengths", "rows")),
        "table.clock.kind", "table.clock.tz",
        *(f"evaluation.{name}" for name in ("what", "channel", "values", "model", "last_value", "baseline")),
    },
}  # fmt: skip


def names_below(value: object, prefix: str = "") -> set[str]:
    if not isinstance(value, dict):
        return {prefix}
    return {name for key, part in value.items() for name in names_below(part, f"{prefix}.{key}" if prefix else key)}


def fitted(kind):
    rng = np.random.default_rng(0)
    X, small = rng.normal(size=(20, 2)), {"max_epochs": 1, "width": 4, "random_state": 0}
    table = pd.DataFrame({"who": np.repeat(list("abcd"), 6), "t": [*range(6)] * 4, "x": rng.normal(size=24)})
    if kind is CNFDensity:
        return kind(layers=1, **small).fit(X)
    if kind is LatentODEForecaster:
        return kind(hidden=4, samples=5, **small).fit(table, series="who", time="t")
    if kind is SeriesClassifier:
        labelled = table.assign(label=np.repeat([0, 1], 12))
        return kind(hidden=4, **small).fit(labelled, series="who", time="t", label="label")
    return kind(hidden=4, **small).fit(X, X[:, 0] > 0)


@each
def test_the_format_keeps_its_names(kind, tmp_path):
    fitted(kind).save(tmp_path)
    saved = json.loads((tmp_path / "estimator.json").read_text())
    assert saved.keys() == {"estimator", "format", "params", "config", "weights", "versions"}
    assert (saved["estimator"], saved["format"]) == (kind.__name__, 1)
    assert saved["params"].keys() == parameters(kind).keys()
    assert names_below(saved["config"]) == SAVED[kind]
    table = {name for name in load_file(tmp_path / saved["weights"]) if name.startswith("table.")}
    assert table == ({"table.times", "table.values", "table.rows"} if kind is LatentODEForecaster else set())
