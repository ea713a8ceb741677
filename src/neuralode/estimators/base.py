"""The base classes of the estimators: the parameters of training that they share, and the steps of `fit`."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, TypeVar, dataclass_transform

import numpy as np
from numpy.typing import NDArray
from sklearn.model_selection import train_test_split

from neuralode.estimators.constraints import COUNT, FRACTION, NON_NEGATIVE, POSITIVE, Constraint
from neuralode.estimators.docstrings import with_inherited_parameters
from neuralode.estimators.serialization import SavedEstimator
from neuralode.training.fit import FitOptions, FitResult

T = TypeVar("T")


@dataclass_transform(kw_only_default=True, eq_default=False, field_specifiers=(field,))
def estimator(cls: type[T]) -> type[T]:
    """Turn the annotated attributes of a class into the parameters of an estimator.

    The class gets a keyword-only constructor that stores its parameters and does nothing else, as scikit-learn
    requires. Parameters, their documentation and their constraints are inherited; a subclass changes a default by
    repeating the attribute. Do not annotate attributes that `fit` sets in the body of the class: they would become
    parameters.
    """
    made = dataclass(kw_only=True, eq=False, repr=False, match_args=False)(cls)
    made.__doc__ = with_inherited_parameters(made)
    return made


@estimator
class TrainedEstimator(SavedEstimator):
    """An estimator that trains a network with AdamW.

    Parameters
    ----------
    learning_rate : float, default=0.01
        Initial learning rate. It decays to a hundredth of this value along a half cosine.
    batch_size : int, default=32
        Number of samples per optimizer step.
    max_epochs : int, default=100
        Maximum number of epochs.
    patience : int, default=20
        Number of epochs without a lower validation loss after which training stops.
    random_state : int, RandomState instance or None, default=None
        Seed of everything that is random in `fit`: the same seed gives the same bits. None draws a new seed on each
        call. Global random states are neither used nor changed.
    accelerator : str, default='cpu'
        Lightning accelerator for training. Predictions are computed on the CPU.
    verbose : bool, default=False
        Whether to show a progress bar during training.
    """

    learning_rate: float = 1e-2
    batch_size: int = 32
    max_epochs: int = 100
    patience: int = 20
    random_state: Any = None
    accelerator: str = "cpu"
    verbose: bool = False

    _constraints: ClassVar[Mapping[str, Constraint]] = {
        "learning_rate": POSITIVE,
        "batch_size": COUNT,
        "max_epochs": COUNT,
        "patience": COUNT,
    }

    def _fit_options(self) -> FitOptions:
        return FitOptions(int(self.max_epochs), int(self.patience), self.accelerator)


@estimator
class ValidatedEstimator(TrainedEstimator):
    """An estimator that holds out a random part of its samples and keeps the epoch with the lowest loss on it.

    Parameters
    ----------
    weight_decay : float, default=0.01
        Weight decay of AdamW.
    validation_fraction : float, default=0.1
        Fraction of the samples that is held out for validation. With 0, the training samples are used for validation
        as well.
    """

    weight_decay: float = 1e-2
    validation_fraction: float = 0.1

    _constraints: ClassVar[Mapping[str, Constraint]] = {
        **TrainedEstimator._constraints,
        "weight_decay": NON_NEGATIVE,
        "validation_fraction": FRACTION,
    }

    def _training_arguments(self) -> dict[str, Any]:
        """Return the keyword arguments that the training functions of all estimators take."""
        return {
            "batch_size": int(self.batch_size),
            "learning_rate": self.learning_rate,
            "weight_decay": self.weight_decay,
            "progress_bar": bool(self.verbose),
        }

    def _set_training_result(self, result: FitResult) -> None:
        """Set the attributes that describe the training; call this from `fit` itself, for the place of the warning."""
        if result.interrupted:
            warnings.warn(
                f"training was interrupted after {result.epochs} epochs; the best epoch is kept.", stacklevel=4
            )
        self.n_iter_, self.best_loss_ = result.epochs, result.best

    def _training_state(self) -> dict[str, Any]:
        return {"epochs": self.n_iter_, "best_loss": self.best_loss_}

    def _restore_training_state(self, config: Mapping[str, Any]) -> None:
        self.n_iter_, self.best_loss_ = config["epochs"], config["best_loss"]


def split_for_validation(
    strata: NDArray[np.int64], fraction: float, seed: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the indices of the samples for training and for validation, stratified.

    Parameters
    ----------
    strata : array [samples]
        The stratum of each sample, an integer from 0 on.
    fraction : float
        Fraction of the samples for validation.
    seed : int
        Seed of the split.

    Returns
    -------
    training, validation : array of int
        Both are all samples where one of them would have fewer samples than there are strata.

    Examples
    --------
    >>> [len(rows) for rows in split_for_validation(np.arange(20) % 2, 0.2, 0)]
    [16, 4]
    >>> [len(rows) for rows in split_for_validation(np.arange(20) % 2, 0.05, 0)]
    [20, 20]
    """
    samples, counts = np.arange(len(strata)), np.bincount(strata)
    held_out = round(fraction * len(strata))
    if counts.min() < 2 or not len(counts) <= held_out <= len(strata) - len(counts):
        return samples, samples
    training, validation = train_test_split(samples, test_size=held_out, stratify=strata, random_state=seed)
    return np.asarray(training), np.asarray(validation)
