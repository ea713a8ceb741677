"""Classification of series, in scikit-learn's interface."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping
from dataclasses import asdict, field
from typing import Any, ClassVar, cast

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from sklearn.base import ClassifierMixin
from sklearn.metrics import accuracy_score
from sklearn.utils import Tags
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_array, check_is_fitted, column_or_1d, validate_data

from neuralode.estimators.base import ValidatedEstimator, estimator, split_for_validation
from neuralode.estimators.constraints import COUNT, FRACTION, Constraint, check_parameters, one_of
from neuralode.estimators.isolation import forked_rng, isolated, seed_from
from neuralode.estimators.serialization import Tensors
from neuralode.estimators.series_classifier.inputs import (
    TableColumns,
    is_table,
    read_labels,
    read_training_table,
    series_from_grid,
    series_from_sequences,
)
from neuralode.estimators.series_classifier.scaling import SeriesScaling
from neuralode.estimators.series_classifier.training import MODELS, Architecture, train_series_net
from neuralode.nn import Observations, SeriesNet

PREDICTION_BATCH = 256  # series
NAN_ALLOWED: dict[str, Any] = {"dtype": np.float64, "ensure_all_finite": "allow-nan"}  # NaN is a missing value


@estimator
class SeriesClassifier(ClassifierMixin, ValidatedEstimator):
    """Classification of time series, which may be irregular, incomplete and of unequal length.

    A recurrent network reads a series observation by observation. A small network maps its hidden states (the last,
    the maximum and the mean) to logits. Values are standardized, and times are in units of the typical length of a
    series. The epoch with the lowest cross entropy on held-out series is kept.

    Parameters
    ----------
    model : {'odernn', 'gru-decay', 'rnn'}, default='odernn'
        How the hidden state evolves between observations: along a learned differential equation, by exponential decay,
        or not at all, with the elapsed time as an input.
    hidden : int, default=32
        Number of units of the hidden state.
    width : int, default=64
        Number of units in the hidden layers of the vector field and of the classification head.
    method : str, default='midpoint'
        Solver from one observation to the next, as in `neuralode.nn.Evolve`.
    steps : int or None, default=1
        Number of solver steps from one observation to the next, as in `neuralode.nn.Evolve`.
    dropout : float, default=0.2
        Dropout probability in the classification head, as in `neuralode.nn.SeriesNet`.

    Attributes
    ----------
    classes_ : array [classes]
        The labels, sorted.
    n_features_in_ : int
        Number of columns where X has a row for each series, else number of channels.
    feature_names_in_ : array of str
        Names of the columns; only where X is a frame with a row for each series.
    n_iter_ : int
        Number of epochs trained.
    best_loss_ : float
        Cross entropy on held-out series, in nats, of the epoch that was kept.
    network_ : SeriesNet
        The trained network, on scaled series.

    Notes
    -----
    The series, X, are one of

    - an array or frame [series, steps] of single-channel series at times 0, 1, 2, …;
    - an array [series, steps, channels] at the same times;
    - a list of ``(times, values)`` tuples or of arrays [steps, channels], of any lengths;
    - `neuralode.nn.Observations`;
    - a frame in long form, or the path of a .csv, .tsv or .parquet file, with a row for each time of each series. `fit`
      is given the names of the columns, and predictions follow the order in which series first appear.

    NaN is a missing value. Validation series are stratified by class; the training series are used for validation if
    there are too few for that. Predictions are computed in double precision and do not depend on the other series in X.

    Examples
    --------
    >>> t = np.linspace(0, 1, 8)
    >>> X = [(t[:5 + k % 3], np.sin((3 if k % 2 else 6) * t[:5 + k % 3] + k)) for k in range(20)]
    >>> y = ["slow" if k % 2 else "fast" for k in range(20)]
    >>> model = SeriesClassifier(hidden=8, max_epochs=2, random_state=0).fit(X, y)
    >>> model.classes_.tolist(), model.predict_proba(X).shape
    (['fast', 'slow'], (20, 2))
    """

    model: str = field(default="odernn", kw_only=False)
    hidden: int = 32
    width: int = 64
    method: str = "midpoint"
    steps: int | None = 1
    dropout: float = 0.2

    _constraints: ClassVar[Mapping[str, Constraint]] = {
        "model": one_of(MODELS),
        **ValidatedEstimator._constraints,
        "hidden": COUNT,
        "width": COUNT,
        "dropout": FRACTION,
    }

    @isolated
    def fit(
        self,
        X: Any,
        y: Any = None,
        *,
        series: str | None = None,
        time: str | None = None,
        label: str | None = None,
        values: Iterable[str] | None = None,
    ) -> SeriesClassifier:
        """Fit the classifier to labelled series.

        Parameters
        ----------
        X : series
            The series to learn from, as the notes of the class describe them.
        y : array [series], optional
            The labels; omitted where ``label`` names a column.
        series : str, optional
            Column of a table in long form that identifies the series.
        time : str, optional
            Column of times; row numbers within the series unless given.
        label : str, optional
            Column of labels, which are constant within a series.
        values : iterable of str, optional
            Columns of measurements; all remaining columns unless given.

        Returns
        -------
        SeriesClassifier
            The fitted estimator.

        Raises
        ------
        ValueError
            For invalid parameters, series or labels.
        """
        check_parameters(self)
        columns = {"series": series, "time": time, "label": label, "values": values}
        observed, table_labels = self._read_training_series(X, columns)
        if y is not None and table_labels is not None:
            raise ValueError(f"y is given, and label={label!r} as well; wanted one of them.")
        codes = self._encode_labels(table_labels if y is None else y, len(observed))
        self.scale_ = SeriesScaling.fit(observed)
        self.architecture_ = self._architecture()
        seed = seed_from(self.random_state)
        scaled, targets = self.scale_.apply(observed).to(torch.float32), torch.as_tensor(codes)
        training, validation = map(torch.as_tensor, split_for_validation(codes, self.validation_fraction, seed))
        with forked_rng(seed):
            self.network_ = self._network()
            result = train_series_net(
                self.network_,
                train=(scaled[training], targets[training]),
                validation=(scaled[validation], targets[validation]),
                options=self._fit_options(),
                classes=len(self.classes_),
                **self._training_arguments(),
            )
        self._set_training_result(result)
        return self

    def predict_proba(self, X: Any) -> NDArray[np.float64]:
        """Return the probability of each class, in the order of ``classes_``, as an array [series, classes]."""
        check_is_fitted(self)
        observed = self.scale_.apply(self._read_series(X))
        network = copy.deepcopy(self.network_).double()
        order = observed.lengths.argsort(stable=True)  # batches of similar lengths need little padding
        with torch.no_grad():
            logits = torch.cat([network(observed[rows]) for rows in order.split(PREDICTION_BATCH)])
        return logits[order.argsort()].softmax(-1).numpy()

    def predict(self, X: Any) -> np.ndarray:
        """Return the most probable label of each series."""
        most_probable = self.predict_proba(X).argmax(1)
        return self.classes_[most_probable]

    def score(self, X: Any, y: Any = None, sample_weight: Any = None) -> float:
        """Return the accuracy. y may be omitted for a table with the column of labels that `fit` was given."""
        check_is_fitted(self)
        predicted = self.predict(X)
        if y is None and self.columns_ is not None and self.columns_.label is not None:
            y = read_labels(X, self.columns_.series, self.columns_.label)
        return float(accuracy_score(y, predicted, sample_weight=sample_weight))

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        tags.input_tags.allow_nan = True
        tags.input_tags.three_d_array = True
        return tags

    def _read_training_series(self, X: Any, columns: dict[str, Any]) -> tuple[Observations, np.ndarray | None]:
        """Return the series and, if a column has them, the labels; record the form of X for predictions."""
        given = [name for name, column in columns.items() if column is not None]
        self.columns_, self.rows_, labels = None, False, None
        if is_table(X) and (given or not isinstance(X, pd.DataFrame)):
            observed, self.columns_, labels = read_training_table(X, **columns)
        elif given:
            raise ValueError(f"{given[0]} names a column, but X is a {type(X).__name__}; wanted a frame or a path.")
        elif (sequences := series_from_sequences(X)) is not None:
            observed = sequences
        else:
            self.rows_ = True
            rows = validate_data(self, cast(Any, X), **NAN_ALLOWED)
            return series_from_grid(np.asarray(rows)[..., None]), None
        self.n_features_in_ = observed.channels
        vars(self).pop("feature_names_in_", None)  # set by an earlier fit
        return observed, labels

    def _read_series(self, X: Any) -> Observations:
        """Return the series to predict for."""
        if self.columns_ is not None and is_table(X):
            return self.columns_.read(X)
        if (sequences := series_from_sequences(X)) is not None:
            return sequences
        rows = validate_data(self, X, reset=False, **NAN_ALLOWED) if self.rows_ else check_array(X, **NAN_ALLOWED)
        return series_from_grid(np.asarray(rows)[..., None])

    def _encode_labels(self, y: Any, count: int) -> NDArray[np.int64]:
        """Return the code of each label, and set ``classes_``."""
        if y is None:
            raise ValueError("SeriesClassifier requires y to be passed, but the target y is None; or name it by label.")
        y = column_or_1d(y, warn=True)
        if count != len(y):
            raise ValueError(f"X has {count} series and y {len(y)} labels; wanted one label for each series.")
        check_classification_targets(y)
        self.classes_, codes = np.unique(y, return_inverse=True)
        if len(self.classes_) < 2:
            raise ValueError(f"y has 1 class, {self.classes_.tolist()[0]!r}; wanted two or more to tell apart.")
        return codes

    def _architecture(self) -> Architecture:
        """Return the present parameters of the network: they may be changed between `fit` and `save`."""
        return Architecture(
            model=self.model,
            hidden=int(self.hidden),
            width=int(self.width),
            method=self.method,
            steps=self.steps,
            dropout=float(self.dropout),
        )

    def _network(self) -> SeriesNet:
        return self.architecture_.build(self.scale_.channels, self.scale_.covariates, len(self.classes_))

    def _fitted_state(self) -> tuple[dict[str, Any], Tensors]:
        config = {
            "classes": self.classes_,
            "classes_dtype": str(self.classes_.dtype),
            "rows": self.rows_,
            "features": self.n_features_in_,
            "columns": None if self.columns_ is None else self.columns_.to_json(),
            "scale": self.scale_.to_json(),
            "architecture": asdict(self.architecture_),
            **self._training_state(),
        }
        return config, self.network_.state_dict()

    def _restore(self, config: dict[str, Any], tensors: Tensors) -> None:
        self.classes_ = np.array(config["classes"], dtype=config["classes_dtype"])
        self.rows_, self.n_features_in_ = config["rows"], config["features"]
        self.columns_ = None if config["columns"] is None else TableColumns.from_json(config["columns"])
        self.scale_ = SeriesScaling.from_json(config["scale"])
        self._restore_training_state(config)
        self.architecture_ = Architecture(**config["architecture"])
        self.network_ = self._network().eval()
        self.network_.load_state_dict(tensors)
