"""Classification and regression for the rows of a table with a neural ODE, beside scikit-learn's `MLPClassifier`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any, ClassVar, NamedTuple, cast

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from scipy.special import softmax
from sklearn.base import ClassifierMixin, RegressorMixin
from sklearn.utils import Tags
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import _check_sample_weight, check_is_fitted, column_or_1d, validate_data

from neuralode.data.tables import cells
from neuralode.data.tables.rows import Rows
from neuralode.data.tables.standardization import Standardization
from neuralode.estimators.base import ValidatedEstimator, estimator, split_for_validation
from neuralode.estimators.constraints import COUNT, POSITIVE, Constraint, check_parameters
from neuralode.estimators.isolation import forked_rng, isolated, seed_from
from neuralode.estimators.serialization import Tensors
from neuralode.training.fit import FitResult
from neuralode.training.modules.tabular import (
    Architecture,
    Loss,
    Part,
    cross_entropies,
    predict_rows,
    squared_errors,
    train_tabular,
)


@estimator
class TabularEstimator(ValidatedEstimator):
    """A neural ODE between standardized columns and outputs.

    Parameters
    ----------
    hidden : int, default=32
        Dimension of the ODE's state.
    width : int, default=64
        Number of units in each hidden layer of the vector field.
    layers : int, default=1
        Number of hidden layers of the vector field.
    method : str, default='tsit5'
        Adaptive solver in training, as in `neuralode.solve`.
    rtol : float, default=0.001
        Relative and absolute tolerance of the solver in training.
    gradient : str, default='replay'
        How gradients of the solve are computed, as in `neuralode.solve`.
    """

    hidden: int = 32
    width: int = 64
    layers: int = 1
    method: str = "tsit5"
    rtol: float = 1e-3
    gradient: str = "replay"
    learning_rate: float = 5e-3
    weight_decay: float = 0.3
    batch_size: int = 128
    max_epochs: int = 60

    _constraints: ClassVar[Mapping[str, Constraint]] = {
        **ValidatedEstimator._constraints,
        "hidden": COUNT,
        "width": COUNT,
        "layers": COUNT,
        "rtol": POSITIVE,
    }

    def _train(self, data: _Samples, loss: Loss, *, outputs: int, strata: NDArray[np.int64]) -> FitResult:
        """Fit the standardization of the columns and the network; validation rows are stratified."""
        names = getattr(self, "feature_names_in_", [f"x{column}" for column in range(data.X.shape[1])])
        self.standard_ = Standardization.fit(Rows(tuple(map(str, names)), data.X))
        self.architecture_ = self._architecture()
        seed = seed_from(self.random_state)
        inputs, weights = (
            torch.as_tensor(x, dtype=torch.float32) for x in (self.standard_.apply(data.X), data.sample_weight)
        )
        rows = Part(inputs, torch.as_tensor(data.y), weights)
        training, validation = map(torch.as_tensor, split_for_validation(strata, self.validation_fraction, seed))
        with forked_rng(seed):
            self.network_ = self.architecture_.build(self.standard_.features, outputs)
            return train_tabular(
                self.network_,
                loss,
                train=rows.at(training),
                validation=rows.at(validation),
                options=self._fit_options(),
                **self._training_arguments(),
            )

    def _outputs(self, X: Any) -> NDArray[np.float64]:
        """Return the network's output for each row, on the standardized scale."""
        check_is_fitted(self)
        _check_numeric_columns(X)
        rows = np.asarray(validate_data(self, X, reset=False, dtype=np.float64))
        return predict_rows(self.network_, self.standard_.apply(rows))

    def _architecture(self) -> Architecture:
        """Return the present parameters of the network: they may be changed between `fit` and `save`."""
        return Architecture(
            hidden=int(self.hidden),
            width=int(self.width),
            layers=int(self.layers),
            method=self.method,
            rtol=float(self.rtol),
            gradient=self.gradient,
        )

    def _fitted_state(self) -> tuple[dict[str, Any], Tensors]:
        config = {
            "standard": self.standard_.to_json(),
            "architecture": asdict(self.architecture_),
            **self._training_state(),
            **self._target_state(),
        }
        return config, self.network_.state_dict()

    def _restore(self, config: dict[str, Any], tensors: Tensors) -> None:
        self.standard_ = Standardization.from_json(config["standard"])
        vars(self)["n_features_in_"] = len(self.standard_.names)
        self._restore_training_state(config)
        self.architecture_ = Architecture(**config["architecture"])
        self.network_ = self.architecture_.build(self.standard_.features, self._restore_target_state(config)).eval()
        self.network_.load_state_dict(tensors)

    def _target_state(self) -> dict[str, Any]:
        """Return the fitted attributes that describe y."""
        raise NotImplementedError

    def _restore_target_state(self, config: dict[str, Any]) -> int:
        """Set the fitted attributes that describe y, and return the number of outputs of the network."""
        raise NotImplementedError


@estimator
class ODENetClassifier(ClassifierMixin, TabularEstimator):
    """Classification of the rows of a table with a neural ODE, a network of continuous depth.

    Columns are standardized. A linear layer lifts a row to the initial state, the state follows a learned vector field
    from time 0 to 1, and a linear layer maps the final state to logits: `neuralode.nn.TabularODENet`. The epoch with
    the lowest cross entropy on held-out rows is kept. An epoch has at least 10 optimizer steps.

    Attributes
    ----------
    classes_ : array [classes]
        The labels, sorted.
    n_features_in_ : int
        Number of columns of X.
    feature_names_in_ : array of str
        Names of the columns; only for frames whose columns are named by strings.
    n_iter_ : int
        Number of epochs trained.
    best_loss_ : float
        Cross entropy on held-out rows, in nats, of the epoch that was kept.
    network_ : TabularODENet
        The trained network, on standardized columns.
    standard_ : Standardization
        The standardization of the columns.

    Notes
    -----
    X is an array or a frame of finite numbers. Text columns are rejected: encode them first, for example with
    scikit-learn's OneHotEncoder in a pipeline. Columns that are constant in the training rows are left out.

    Validation rows are stratified by class. The training rows are used for validation if there are too few for that.

    Predictions are computed in double precision to a tolerance of 1e-7, and each row with its own steps, so the
    prediction for a row does not depend on the other rows.

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> X, y = load_iris(return_X_y=True)
    >>> model = ODENetClassifier(max_epochs=2, random_state=0).fit(X, y)
    >>> model.predict_proba(X).shape, model.predict(X).shape
    ((150, 3), (150,))
    """

    @isolated
    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> ODENetClassifier:
        """Fit the classifier to labelled rows.

        Parameters
        ----------
        X : array or DataFrame [rows, columns]
            Finite numbers.
        y : array [rows]
            The labels, numbers or text.
        sample_weight : array [rows], optional
            Relative weights of the rows; a row of weight 0 is left out. For imbalanced classes, see
            `sklearn.utils.class_weight.compute_sample_weight`.

        Returns
        -------
        ODENetClassifier
            The fitted estimator.

        Raises
        ------
        ValueError
            For invalid parameters, rows, labels or weights.
        """
        check_parameters(self)
        _check_numeric_columns(X)
        rows, labels = validate_data(self, X, y, dtype=np.float64, ensure_min_samples=2)
        labels = column_or_1d(labels, warn=True)
        check_classification_targets(labels)
        data = _drop_zero_weights(np.asarray(rows), labels, sample_weight)
        self.classes_, codes = np.unique(data.y, return_inverse=True)
        if len(self.classes_) < 2:
            raise ValueError(f"y has 1 class, {self.classes_.tolist()[0]!r}; wanted two or more to tell apart.")
        data = data._replace(y=codes)
        self._set_training_result(self._train(data, cross_entropies, outputs=len(self.classes_), strata=codes))
        return self

    def predict_proba(self, X: Any) -> NDArray[np.float64]:
        """Return the probability of each class, in the order of ``classes_``, as an array [rows, classes]."""
        return softmax(self._outputs(X), axis=1)

    def predict(self, X: Any) -> np.ndarray:
        """Return the most probable label of each row."""
        outputs = self._outputs(X)
        return self.classes_[outputs.argmax(1)]

    def _target_state(self) -> dict[str, Any]:
        return {"classes": self.classes_, "classes_dtype": str(self.classes_.dtype)}

    def _restore_target_state(self, config: dict[str, Any]) -> int:
        self.classes_ = np.array(config["classes"], dtype=config["classes_dtype"])
        return len(self.classes_)


@estimator
class ODENetRegressor(RegressorMixin, TabularEstimator):
    """Regression for the rows of a table with a neural ODE, a network of continuous depth.

    The network is that of `ODENetClassifier`, with targets in place of logits. Columns and targets are standardized.
    The epoch with the lowest squared error on held-out rows, on the standardized scale, is kept. An epoch has at least
    10 optimizer steps.

    Attributes
    ----------
    n_features_in_ : int
        Number of columns of X.
    feature_names_in_ : array of str
        Names of the columns; only for frames whose columns are named by strings.
    n_iter_ : int
        Number of epochs trained.
    best_loss_ : float
        Mean squared error on held-out rows, of standardized targets, of the epoch that was kept: about 1 − R².
    network_ : TabularODENet
        The trained network, between standardized columns and standardized targets.
    standard_ : Standardization
        The standardization of the columns.
    targets_ : Standardization
        The standardization of the targets.

    Notes
    -----
    The notes of `ODENetClassifier` on X, weights and predictions apply. A target that is constant in the training rows
    is predicted as that constant.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> X = rng.normal(size=(200, 2))
    >>> model = ODENetRegressor(max_epochs=2, random_state=0).fit(X, np.sin(X) @ [[1.0, 0.0], [1.0, 3.0]])
    >>> model.predict(X).shape
    (200, 2)
    """

    @isolated
    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> ODENetRegressor:
        """Fit the regressor to rows with their targets.

        Parameters
        ----------
        X : array or DataFrame [rows, columns]
            Finite numbers.
        y : array [rows] or [rows, targets]
            One or several targets per row. Predictions have the same form.
        sample_weight : array [rows], optional
            Relative weights of the rows; a row of weight 0 is left out.

        Returns
        -------
        ODENetRegressor
            The fitted estimator.

        Raises
        ------
        ValueError
            For invalid parameters, rows, targets or weights.
        """
        check_parameters(self)
        _check_numeric_columns(X)
        checks: dict[str, Any] = {"multi_output": True, "y_numeric": True, "ensure_min_samples": 2}
        rows, targets = validate_data(self, X, y, dtype=np.float64, **checks)
        data = _drop_zero_weights(np.asarray(rows), np.asarray(targets, np.float64), sample_weight)
        self.flat_ = data.y.ndim == 1
        targets = data.y.reshape(len(data.y), -1)
        if not np.ptp(targets, axis=0).any():
            raise ValueError(f"y is {targets[0].tolist()} in every row; wanted a number that changes.")
        self.targets_ = Standardization.fit(Rows(tuple(f"y{target}" for target in range(targets.shape[1])), targets))
        data = data._replace(y=self.targets_.apply(targets).astype(np.float32))
        strata = np.zeros(len(targets), np.int64)
        result = self._train(data, squared_errors, outputs=self.targets_.features, strata=strata)
        self._set_training_result(result)
        return self

    def predict(self, X: Any) -> NDArray[np.float64]:
        """Return the target or targets of each row, in the units and the form of y."""
        outputs = self._outputs(X)
        targets = self.targets_.invert(outputs)
        return targets[:, 0] if self.flat_ else targets

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        tags.target_tags.multi_output = True
        return tags

    def _target_state(self) -> dict[str, Any]:
        return {"targets": self.targets_.to_json(), "flat": self.flat_}

    def _restore_target_state(self, config: dict[str, Any]) -> int:
        self.targets_, self.flat_ = Standardization.from_json(config["targets"]), config["flat"]
        return self.targets_.features


class _Samples(NamedTuple):
    X: NDArray[np.float64]
    y: np.ndarray
    sample_weight: NDArray[np.float64]


def _check_numeric_columns(X: Any) -> None:
    """Raise for a frame with a column that is not numeric; scikit-learn checks everything else."""
    if not isinstance(X, pd.DataFrame):
        return
    for name, column in X.items():
        column = cells.normalize(column, cast(str, name))
        text = np.isnan(cells.to_numbers(column)) & ~column.isna()
        wanted = "numbers: encode such a column first, as by scikit-learn's OneHotEncoder in a pipeline"
        cells.check_cells(column, text, found="{}", wanted=wanted)


def _drop_zero_weights(X: NDArray[np.float64], y: np.ndarray, sample_weight: Any) -> _Samples:
    """Return the samples of positive weight, with weights relative to the largest."""
    weights = _check_sample_weight(sample_weight, X, dtype=np.float64, ensure_non_negative=True)
    positive = weights > weights.max() * np.finfo(np.float32).tiny  # smaller ratios underflow in single precision
    if positive.sum() < 2:
        raise ValueError(f"sample_weight is above 0 in {positive.sum()} row of {len(X)}; wanted two or more.")
    return _Samples(X[positive], y[positive], weights[positive] / weights.max())
