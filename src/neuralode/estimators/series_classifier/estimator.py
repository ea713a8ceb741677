"""Name what kind of series one has seen, in scikit-learn's manner."""

from __future__ import annotations

import copy
from collections.abc import Iterable
from dataclasses import asdict
from typing import Any, cast

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from sklearn.base import ClassifierMixin
from sklearn.metrics import accuracy_score
from sklearn.utils import Tags
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_array, check_is_fitted, column_or_1d, validate_data
from torch import Tensor, nn

from neuralode.estimators.parameters import check_above_zero, check_not_below_zero, check_share, check_whole
from neuralode.estimators.persistence import Keepable
from neuralode.estimators.series_classifier.inputs import (
    Columns,
    Scale,
    first_table,
    from_array,
    from_series,
    is_table,
    labels_of,
)
from neuralode.estimators.series_classifier.training import MODELS, Architecture, seed_of, train_to_label, undisturbed
from neuralode.nn import Observations, SeriesNet
from neuralode.training.fit import FitOptions

AT_ONCE = 256  # series in a batch of predictions
GAPS: dict[str, Any] = {"dtype": np.float64, "ensure_all_finite": "allow-nan"}  # scikit-learn's checks: NaN is a gap


class SeriesClassifier(ClassifierMixin, Keepable):
    """Learn to name series: irregular ones, with gaps, and of unequal length if need be.

    A recurrent network reads a series observation by observation, and a small network answers from the hidden state
    where it ended, where it was highest and on average. Values enter with mean 0 and deviation 1, times in units of a
    typical series. The epoch with the lowest cross entropy on held-out series is kept.

    Parameters
    ----------
    model : {"odernn", "gru-decay", "rnn"}
        What the hidden state does between observations: follow a differential equation that is learned, decay, or
        stay (with the network told how long).
    hidden, width : int
        Numbers in the hidden state; and in the hidden layers of the field and of the network that answers.
    method, steps : str, int or None
        How the equation is solved from one observation to the next: as in `neuralode.nn.Evolve`.
    dropout : float
        As in `neuralode.nn.SeriesNet`.
    learning_rate, weight_decay : float
        Of AdamW.
    batch_size, max_epochs, patience : int
        Series a step; passes over them at most; and without a lower validation loss.
    validation_fraction : float
        Of the series, held out in proportion to the classes; with 0, or too few series for that, the training series
        themselves decide which epoch is kept.
    random_state : int, RandomState or None
        Same number, same bits. None is a new one each time. The global random states are neither read nor moved.
    accelerator, verbose : str, bool
        Lightning's, for training (predictions are made on the CPU); and whether it shows a progress bar.

    Attributes
    ----------
    classes_ : array [classes]
        The labels, sorted.
    n_features_in_, feature_names_in_ : int, array of str
        Columns of X where it has a row for each series (names where it is a frame); else channels, and no names.
    n_iter_, best_loss_ : int, float
        Epochs trained; the cross entropy on held-out series in the one that was kept.
    network_ : SeriesNet
        What was learned.

    Notes
    -----
    Series, X, may be

    - an array or frame [series, steps] of single-channel series at times 0, 1, 2, …;
    - an array [series, steps, channels] at the same times;
    - a list of ``(times, values)`` tuples or of arrays [steps, channels], of any lengths;
    - `neuralode.nn.Observations`;
    - a frame in long form, or the path of a .csv, .tsv or .parquet file: a row for each time of each series. Columns
      are named in `fit` and remembered; answers come in the order in which series first appear.

    NaN is a gap. Predictions are computed in double precision: they do not
    depend on which series are predicted together.

    Examples
    --------
    >>> t = np.linspace(0, 1, 8)
    >>> X = [(t[:5 + k % 3], np.sin((3 if k % 2 else 6) * t[:5 + k % 3] + k)) for k in range(20)]
    >>> y = ["slow" if k % 2 else "fast" for k in range(20)]
    >>> model = SeriesClassifier(hidden=8, max_epochs=2, random_state=0).fit(X, y)
    >>> model.classes_.tolist(), model.predict_proba(X).shape
    (['fast', 'slow'], (20, 2))
    """

    def __init__(
        self,
        model: str = "odernn",
        *,
        hidden: int = 32,
        width: int = 64,
        method: str = "midpoint",
        steps: int | None = 1,
        dropout: float = 0.2,
        learning_rate: float = 1e-2,
        weight_decay: float = 1e-2,
        batch_size: int = 32,
        max_epochs: int = 100,
        patience: int = 20,
        validation_fraction: float = 0.1,
        random_state: Any = None,
        accelerator: str = "cpu",
        verbose: bool = False,
    ) -> None:
        self.model = model
        self.hidden = hidden
        self.width = width
        self.method = method
        self.steps = steps
        self.dropout = dropout
        self.learning_rate = learning_rate
        self.weight_decay = weight_decay
        self.batch_size = batch_size
        self.max_epochs = max_epochs
        self.patience = patience
        self.validation_fraction = validation_fraction
        self.random_state = random_state
        self.accelerator = accelerator
        self.verbose = verbose

    @undisturbed
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
        """Learn from series and their labels.

        Parameters
        ----------
        X
            Series; see the notes of the class.
        y : array [series], optional
            A label each; left out where ``label`` names a column.
        series, time, label : str, optional
            Columns of a table in long form: which series, when (row numbers unless given), and what to predict, which
            is the same in all rows of a series.
        values : names, optional
            Its columns of measurements; all that remain unless given.

        Raises
        ------
        ValueError
            For parameters, series or labels that do not fit; the sentence says which.
        """
        self._check_parameters()
        observed, told = self._first(X, {"series": series, "time": time, "label": label, "values": values})
        if y is not None and told is not None:
            raise ValueError(f"y is given, and label={label!r} as well; wanted one of them.")
        y = told if y is None else y
        if y is None:
            raise ValueError("SeriesClassifier requires y to be passed, but the target y is None; or name it by label.")
        y = column_or_1d(y, warn=True)
        if len(observed) != len(y):
            raise ValueError(f"X has {len(observed)} series and y {len(y)} labels; wanted one label for each series.")
        check_classification_targets(y)
        self.classes_, codes = np.unique(y, return_inverse=True)
        if len(self.classes_) < 2:
            raise ValueError(f"y has 1 class, {self.classes_.tolist()[0]!r}; wanted two or more to tell apart.")
        self.scale_ = Scale.of(observed)
        # as it is now: parameters may be set to something else between fitting and saving
        self.architecture_ = Architecture(
            self.model, int(self.hidden), int(self.width), self.method, self.steps, float(self.dropout)
        )
        self.network_, done = train_to_label(
            self._network,
            self.scale_.apply(observed).to(torch.float32),
            codes,
            FitOptions(int(self.max_epochs), int(self.patience), self.accelerator),
            seed=seed_of(self.random_state),
            validation_fraction=self.validation_fraction,
            batch_size=int(self.batch_size),
            learning_rate=self.learning_rate,
            weight_decay=self.weight_decay,
            progress_bar=bool(self.verbose),
        )
        self.n_iter_, self.best_loss_ = done.epochs, done.best
        return self

    def predict_proba(self, X: Any) -> NDArray[np.float64]:
        """Probabilities [series, classes], in the order of ``classes_``."""
        check_is_fitted(self)
        observed = self.scale_.apply(self._next(X))
        network = copy.deepcopy(self.network_).double()
        order = observed.lengths.argsort(stable=True)  # series of like length together: little padding
        with torch.no_grad():
            logits = torch.cat([network(observed[rows]) for rows in order.split(AT_ONCE)])
        return logits[order.argsort()].softmax(-1).numpy()

    def predict(self, X: Any) -> np.ndarray:
        """The likeliest label of each series."""
        chosen = self.predict_proba(X).argmax(1)
        return self.classes_[chosen]

    def score(self, X: Any, y: Any = None, sample_weight: Any = None) -> float:
        """The share of series named rightly; y may be left out for a table with the column of labels."""
        check_is_fitted(self)
        named = self.predict(X)
        if y is None and self.columns_ is not None and self.columns_.label is not None:
            y = labels_of(X, self.columns_.series, self.columns_.label)
        return float(accuracy_score(y, named, sample_weight=sample_weight))

    def _learned(self) -> tuple[dict[str, Any], nn.Module]:
        config = {
            "classes": self.classes_,
            "classes_dtype": str(self.classes_.dtype),
            "rows": self.rows_,
            "features": self.n_features_in_,
            "columns": None if self.columns_ is None else self.columns_.to_json(),
            "scale": self.scale_.to_json(),
            "architecture": asdict(self.architecture_),
            "epochs": self.n_iter_,
            "best_loss": self.best_loss_,
        }
        return config, self.network_

    def _take(self, config: dict[str, Any], tensors: dict[str, Tensor]) -> None:
        self.classes_ = np.array(config["classes"], dtype=config["classes_dtype"])
        self.rows_, self.n_features_in_ = config["rows"], config["features"]
        self.columns_ = None if config["columns"] is None else Columns.from_json(config["columns"])
        self.scale_ = Scale.from_json(config["scale"])
        self.n_iter_, self.best_loss_ = config["epochs"], config["best_loss"]
        self.architecture_ = Architecture(**config["architecture"])
        self.network_ = self._network().eval()
        self.network_.load_state_dict(tensors)

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        tags.input_tags.allow_nan = True
        tags.input_tags.three_d_array = True
        return tags

    def _check_parameters(self) -> None:
        if self.model not in MODELS:
            raise ValueError(f"model={self.model!r}; wanted one of {', '.join(map(repr, MODELS))}.")
        asked = self.get_params(deep=False)
        check_whole(asked, "hidden", "width", "batch_size", "max_epochs", "patience")
        check_above_zero(asked, "learning_rate")
        check_not_below_zero(asked, "weight_decay")
        check_share(asked, "dropout", "validation_fraction")

    def _first(self, X: Any, named: dict[str, Any]) -> tuple[Observations, np.ndarray | None]:
        """Series to learn from, and the labels if they came along; what form X has is remembered."""
        given = [name for name, columns in named.items() if columns is not None]
        self.columns_, self.rows_, labels = None, False, None
        if is_table(X) and (given or not isinstance(X, pd.DataFrame)):
            observed, self.columns_, labels = first_table(X, **named)
        elif given:
            raise ValueError(f"{given[0]} names a column, but X is a {type(X).__name__}; wanted a frame or a path.")
        elif (found := from_series(X)) is not None:
            observed = found
        else:
            self.rows_ = True
            rows = validate_data(self, cast(Any, X), **GAPS)
            return from_array(np.asarray(rows)[..., None]), None
        self.n_features_in_ = observed.channels
        vars(self).pop("feature_names_in_", None)  # of an earlier fit
        return observed, labels

    def _next(self, X: Any) -> Observations:
        """Series to predict for."""
        if self.columns_ is not None and is_table(X):
            return self.columns_.read(X)
        if (found := from_series(X)) is not None:
            return found
        table = validate_data(self, X, reset=False, **GAPS) if self.rows_ else check_array(X, **GAPS)
        return from_array(np.asarray(table)[..., None])

    def _network(self) -> SeriesNet:
        return self.architecture_.build(self.scale_.channels, self.scale_.covariates, len(self.classes_))
