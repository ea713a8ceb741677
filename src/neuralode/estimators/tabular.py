"""Labels and numbers from the rows of a table, in scikit-learn's manner: a neural ODE beside its `MLPClassifier`."""

from __future__ import annotations

import warnings
from dataclasses import asdict
from typing import Any, cast

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from scipy.special import softmax
from sklearn.base import ClassifierMixin, RegressorMixin
from sklearn.utils import Tags
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import _check_sample_weight, check_is_fitted, column_or_1d, validate_data
from torch import Tensor, nn

from neuralode.data.tables import cells
from neuralode.data.tables.rows import Rows, Standard
from neuralode.estimators.parameters import check_above_zero, check_not_below_zero, check_share, check_whole
from neuralode.estimators.persistence import Keepable
from neuralode.estimators.series_classifier.training import held_out, own_random_state, seed_of, undisturbed
from neuralode.training.fit import FitOptions
from neuralode.training.modules.tabular import (
    Architecture,
    Loss,
    Part,
    cross_entropies,
    predict_rows,
    squared_errors,
    train_tabular,
)


class _OfRows(Keepable):
    """What both share: a network on the common scale of the columns."""

    def __init__(
        self,
        *,
        hidden: int = 32,
        width: int = 64,
        layers: int = 1,
        method: str = "tsit5",
        rtol: float = 1e-3,
        gradient: str = "replay",
        learning_rate: float = 5e-3,
        weight_decay: float = 0.3,
        batch_size: int = 128,
        max_epochs: int = 60,
        patience: int = 20,
        validation_fraction: float = 0.1,
        random_state: Any = None,
        accelerator: str = "cpu",
        verbose: bool = False,
    ) -> None:
        self.hidden = hidden
        self.width = width
        self.layers = layers
        self.method = method
        self.rtol = rtol
        self.gradient = gradient
        self.learning_rate = learning_rate
        self.weight_decay = weight_decay
        self.batch_size = batch_size
        self.max_epochs = max_epochs
        self.patience = patience
        self.validation_fraction = validation_fraction
        self.random_state = random_state
        self.accelerator = accelerator
        self.verbose = verbose

    def _learned(self) -> tuple[dict[str, Any], nn.Module]:
        config = {
            "standard": self.standard_.to_json(),
            "architecture": asdict(self.architecture_),
            "epochs": self.n_iter_,
            "best_loss": self.best_loss_,
            **self._told(),
        }
        return config, self.network_

    def _take(self, config: dict[str, Any], tensors: dict[str, Tensor]) -> None:
        self.standard_ = Standard.from_json(config["standard"])
        vars(self)["n_features_in_"] = len(self.standard_.names)
        self.n_iter_, self.best_loss_ = config["epochs"], config["best_loss"]
        self.architecture_ = Architecture(**config["architecture"])
        self.network_ = self.architecture_.build(self.standard_.features, self._tell(config)).eval()
        self.network_.load_state_dict(tensors)

    def _told(self) -> dict[str, Any]:
        """What one of the two knows besides, as JSON has it."""
        raise NotImplementedError

    def _tell(self, config: dict[str, Any]) -> int:
        """Take that back; how many numbers the network answers with."""
        raise NotImplementedError

    def _learn(
        self,
        rows: NDArray[np.float64],
        targets: NDArray[Any],
        weights: NDArray[np.float64],
        loss: Loss,
        *,
        outputs: int,
        kinds: NDArray[np.int64],
    ) -> None:
        """Fit the scale of the rows, and the network; rows of each kind are held out in proportion."""
        names = getattr(self, "feature_names_in_", [f"x{column}" for column in range(rows.shape[1])])
        self.standard_ = Standard.of(Rows(tuple(map(str, names)), rows))
        # as it is now: parameters may be set to something else between fitting and saving
        self.architecture_ = Architecture(
            int(self.hidden), int(self.width), int(self.layers), self.method, float(self.rtol), self.gradient
        )
        seed = seed_of(self.random_state)
        inputs, heavy = (torch.as_tensor(part, dtype=torch.float32) for part in (self.standard_.apply(rows), weights))
        part = Part(inputs, torch.as_tensor(targets), heavy)
        learned, held = (part.at(torch.as_tensor(places)) for places in held_out(kinds, self.validation_fraction, seed))
        with own_random_state(seed):
            self.network_ = self.architecture_.build(self.standard_.features, outputs)
            done = train_tabular(
                self.network_,
                loss,
                train=learned,
                validation=held,
                options=FitOptions(int(self.max_epochs), int(self.patience), self.accelerator),
                batch_size=int(self.batch_size),
                learning_rate=self.learning_rate,
                weight_decay=self.weight_decay,
                progress_bar=bool(self.verbose),
            )
        if done.interrupted:
            warnings.warn(f"training was interrupted after {done.epochs} epochs; the best is kept.", stacklevel=3)
        self.n_iter_, self.best_loss_ = done.epochs, done.best

    def _answers(self, X: Any) -> NDArray[np.float64]:
        """What the network says of each row."""
        check_is_fitted(self)
        _refuse_text(X)
        rows = np.asarray(validate_data(self, X, reset=False, dtype=np.float64))
        return predict_rows(self.network_, self.standard_.apply(rows))

    def _check_parameters(self) -> None:
        asked = self.get_params(deep=False)
        check_whole(asked, "hidden", "width", "layers", "batch_size", "max_epochs", "patience")
        check_above_zero(asked, "learning_rate", "rtol")
        check_not_below_zero(asked, "weight_decay")
        check_share(asked, "validation_fraction")


class ODENetClassifier(ClassifierMixin, _OfRows):
    """Learn to name the rows of a table: a network whose depth is a differential equation.

    Columns enter with mean 0 and deviation 1. A linear map lifts a row to a state, the state follows a field that is
    learned, from time 0 to 1, and logits are read off its end linearly: `neuralode.nn.TabularODENet`. The epoch with
    the lowest cross entropy on held-out rows is kept.

    Parameters
    ----------
    hidden : int
        Numbers in the state.
    width, layers : int
        Numbers in a hidden layer of the field, and how many of these.
    method, rtol, gradient
        Of the solver in training, as in `neuralode.solve`; the method is one that adapts its steps.
    learning_rate, weight_decay : float
        Of AdamW.
    batch_size, max_epochs, patience : int
        Rows a step; passes over them at most (an epoch is 10 steps at least); and without a lower validation loss.
    validation_fraction : float
        Of the rows, held out, in proportion to the classes; with 0, or too few rows for that, the training rows
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
        Columns of X, and their names where it is a frame whose columns are named by text.
    n_iter_, best_loss_ : int, float
        Epochs trained; the cross entropy on held-out rows in the one that was kept, in nats.
    network_ : TabularODENet
        What was learned, on the common scale.
    standard_ : Standard
        From the columns to that scale.

    Notes
    -----
    X is an array or a frame of finite numbers. Columns of text are refused: encode them first, as scikit-learn's
    pipelines do. A column that is the same in every row that was learned from is left out.

    Predictions are computed in double precision to a tolerance of 1e-7, each row at its own steps: they do not depend
    on the company.

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> X, y = load_iris(return_X_y=True)
    >>> model = ODENetClassifier(max_epochs=2, random_state=0).fit(X, y)
    >>> model.predict_proba(X).shape, model.predict(X).shape
    ((150, 3), (150,))
    """

    classes_: np.ndarray

    @undisturbed
    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> ODENetClassifier:
        """Learn from rows and their labels.

        Parameters
        ----------
        X : array or frame [rows, columns]
            Finite numbers.
        y : array [rows]
            A label each: numbers or text.
        sample_weight : array [rows], optional
            How much each row counts, relative to the others; a row of weight 0 is as if it were not there. For classes
            of unequal size, see `sklearn.utils.class_weight.compute_sample_weight`.

        Raises
        ------
        ValueError
            For parameters, rows, labels or weights that do not fit; the sentence says which.
        """
        self._check_parameters()
        _refuse_text(X)
        rows, labels = validate_data(self, X, y, dtype=np.float64, ensure_min_samples=2)
        labels = column_or_1d(labels, warn=True)
        check_classification_targets(labels)
        rows, labels, weights = _counted(np.asarray(rows), labels, sample_weight)
        self.classes_, codes = np.unique(labels, return_inverse=True)
        if len(self.classes_) < 2:
            raise ValueError(f"y has 1 class, {self.classes_.tolist()[0]!r}; wanted two or more to tell apart.")
        self._learn(rows, codes, weights, cross_entropies, outputs=len(self.classes_), kinds=codes)
        return self

    def predict_proba(self, X: Any) -> NDArray[np.float64]:
        """Probabilities [rows, classes], in the order of ``classes_``."""
        return softmax(self._answers(X), axis=1)

    def predict(self, X: Any) -> np.ndarray:
        """The likeliest label of each row."""
        chosen = self._answers(X).argmax(1)
        return self.classes_[chosen]

    def _told(self) -> dict[str, Any]:
        return {"classes": self.classes_, "classes_dtype": str(self.classes_.dtype)}

    def _tell(self, config: dict[str, Any]) -> int:
        self.classes_ = np.array(config["classes"], dtype=config["classes_dtype"])
        return len(self.classes_)


class ODENetRegressor(RegressorMixin, _OfRows):
    """Learn the numbers that belong to the rows of a table: a network whose depth is a differential equation.

    As `ODENetClassifier`, with targets in the place of logits. They enter with mean 0 and deviation 1 each; the epoch
    with the lowest squared error on held-out rows, on this scale, is kept.

    Parameters
    ----------
    hidden, width, layers, method, rtol, gradient, learning_rate, weight_decay, batch_size, max_epochs, patience
        As in `ODENetClassifier`.
    validation_fraction, random_state, accelerator, verbose
        As there; rows are held out by chance alone.

    Attributes
    ----------
    n_features_in_, feature_names_in_ : int, array of str
        Columns of X, and their names where it is a frame whose columns are named by text.
    n_iter_, best_loss_ : int, float
        Epochs trained; the mean squared error on held-out rows in the one that was kept, where targets have deviation
        1, on average over them: about one minus R².
    network_ : TabularODENet
        What was learned, on the common scales.
    standard_, targets_ : Standard
        From the columns, and from the targets, to these scales.

    Notes
    -----
    What is said there of X, weights and predictions holds here too. A target that is the same in every row is predicted
    as that.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> X = rng.normal(size=(200, 2))
    >>> model = ODENetRegressor(max_epochs=2, random_state=0).fit(X, np.sin(X) @ [[1.0, 0.0], [1.0, 3.0]])
    >>> model.predict(X).shape
    (200, 2)
    """

    @undisturbed
    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> ODENetRegressor:
        """Learn from rows and their numbers.

        Parameters
        ----------
        X : array or frame [rows, columns]
            Finite numbers.
        y : array [rows] or [rows, targets]
            One number a row, or several; predictions have this form.
        sample_weight : array [rows], optional
            How much each row counts, relative to the others; a row of weight 0 is as if it were not there.

        Raises
        ------
        ValueError
            For parameters, rows, targets or weights that do not fit; the sentence says which.
        """
        self._check_parameters()
        _refuse_text(X)
        asked: dict[str, Any] = {"multi_output": True, "y_numeric": True, "ensure_min_samples": 2}
        rows, numbers = validate_data(self, X, y, dtype=np.float64, **asked)
        rows, numbers, weights = _counted(np.asarray(rows), np.asarray(numbers, np.float64), sample_weight)
        self.flat_ = numbers.ndim == 1
        numbers = numbers.reshape(len(rows), -1)
        if not np.ptp(numbers, axis=0).any():
            raise ValueError(f"y is {numbers[0].tolist()} in every row; wanted a number that changes.")
        self.targets_ = Standard.of(Rows(tuple(f"y{target}" for target in range(numbers.shape[1])), numbers))
        targets = self.targets_.apply(numbers).astype(np.float32)
        kinds = np.zeros(len(rows), np.int64)
        self._learn(rows, targets, weights, squared_errors, outputs=self.targets_.features, kinds=kinds)
        return self

    def predict(self, X: Any) -> NDArray[np.float64]:
        """The number of each row, or its numbers, in the units and the form of y."""
        scaled = self._answers(X)
        found = self.targets_.undo(scaled)
        return found[:, 0] if self.flat_ else found

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        tags.target_tags.multi_output = True
        return tags

    def _told(self) -> dict[str, Any]:
        return {"targets": self.targets_.to_json(), "flat": self.flat_}

    def _tell(self, config: dict[str, Any]) -> int:
        self.targets_, self.flat_ = Standard.from_json(config["targets"]), config["flat"]
        return self.targets_.features


def _refuse_text(X: Any) -> None:
    """Raise for a frame with a column that is not of numbers; the rest is scikit-learn's to say."""
    if not isinstance(X, pd.DataFrame):
        return
    for name, column in X.items():
        column = cells.tidy(column, cast(str, name))
        wanted = "numbers: encode such a column first, as by scikit-learn's OneHotEncoder in a pipeline"
        cells.refuse(np.isnan(cells.numbers(column)) & ~column.isna(), column, "{}", wanted)


def _counted(
    rows: NDArray[np.float64], y: np.ndarray, sample_weight: Any
) -> tuple[NDArray[np.float64], np.ndarray, NDArray[np.float64]]:
    """Rows, what belongs to them, and their weights; without those of weight 0."""
    weights = _check_sample_weight(sample_weight, rows, dtype=np.float64, ensure_non_negative=True)
    counted = weights > weights.max() * np.finfo(np.float32).tiny  # less is nothing beside the heaviest
    if counted.sum() < 2:
        raise ValueError(f"sample_weight is above 0 in {counted.sum()} row of {len(rows)}; wanted two or more.")
    # relative to the heaviest: of any size they are numbers in single precision
    return rows[counted], y[counted], weights[counted] / weights.max()
