"""How a classifier comes by its network; and what estimators share: a random state of their own, series held out."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import wraps
from typing import Any, TypeVar, cast

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.model_selection import train_test_split
from sklearn.utils import check_random_state

from neuralode.nn import ODERNN, RNN, GRUDecay, Observations, Recurrent, SeriesNet
from neuralode.training.fit import FitOptions, FitResult, fit, prepare_for_inference
from neuralode.training.modules.series_classification import SeriesClassificationData, SeriesClassificationModule

MODELS = ("odernn", "gru-decay", "rnn")
F = TypeVar("F", bound=Callable[..., Any])


@dataclass(frozen=True)
class Architecture:
    """What a network from series to logits is made of, as `neuralode.estimators.SeriesClassifier` has it.

    Examples
    --------
    >>> net = Architecture("rnn", hidden=8, width=8, method="midpoint", steps=1, dropout=0.0).build(2, 0, 3)
    >>> net.reader.channels, net.head[-1].out_features
    (2, 3)
    """

    model: str
    hidden: int
    width: int
    method: Any
    steps: int | None
    dropout: float

    def build(self, channels: int, covariates: int, classes: int) -> SeriesNet:
        """The network, its weights by torch's random state."""
        reader: Recurrent
        if self.model == "odernn":
            reader = ODERNN(channels, self.hidden, width=self.width, method=self.method, steps=self.steps)
        else:
            reader = (RNN if self.model == "rnn" else GRUDecay)(channels, self.hidden)
        return SeriesNet(reader, classes, static=covariates, width=self.width, dropout=self.dropout)


def train_to_label(
    network: Callable[[], SeriesNet],
    observed: Observations,
    codes: NDArray[np.int64],
    effort: FitOptions,
    *,
    seed: int,
    validation_fraction: float,
    batch_size: int,
    learning_rate: float,
    weight_decay: float,
    progress_bar: bool = False,
) -> tuple[SeriesNet, FitResult]:
    """Make a network from series to logits and train it; returned on the CPU, to be evaluated, without gradients.

    Parameters
    ----------
    network : callable
        Makes it, once the random state is its own.
    observed : Observations
        All series, on a common scale.
    codes : array [series]
        Their classes, from 0.
    effort : FitOptions
        How long, and on what.
    seed : int
        Decides the first weights, who is held out, the batches and the dropout.
    validation_fraction, batch_size, learning_rate, weight_decay, progress_bar
        As `neuralode.estimators.SeriesClassifier` has them.

    Raises
    ------
    ValueError
        Where it came to weights that are not finite.
    """
    labels = torch.as_tensor(codes)
    learned, held = (torch.as_tensor(rows) for rows in held_out(codes, validation_fraction, seed))
    data = SeriesClassificationData((observed[learned], labels[learned]), (observed[held], labels[held]), batch_size)
    with own_random_state(seed), warnings.catch_warnings():
        # torchmetrics, where of two classes the held-out series show one
        warnings.filterwarnings("ignore", "No (positive|negative) samples")
        model = network()
        module = SeriesClassificationModule(
            model, classes=int(codes.max()) + 1, learning_rate=learning_rate, weight_decay=weight_decay
        )
        done = fit(module, data, effort, progress_bar=progress_bar)
    if done.interrupted:
        warnings.warn(f"training was interrupted after {done.epochs} epochs; the best is kept.", stacklevel=3)
    prepare_for_inference(model, learning_rate)
    return model, done


def undisturbed(fit: F) -> F:
    """Decorate a ``fit``: settings of others do not reach it, and where it fails the estimator stays as it was.

    These are the default dtype, which is float32 within, and whether gradients are recorded.
    """

    @wraps(fit)
    def fitting(self: Any, *args: Any, **kwargs: Any) -> Any:
        before = dict(vars(self))
        try:
            with torch.inference_mode(False), torch.enable_grad(), single_precision():
                return fit(self, *args, **kwargs)
        except BaseException:
            vars(self).clear()
            vars(self).update(before)
            raise

    return cast(F, fitting)


@contextmanager
def single_precision() -> Iterator[None]:
    """Networks that are made within are of float32, whatever is the default outside."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float32)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


@contextmanager
def own_random_state(seed: int) -> Iterator[None]:
    """Random numbers by a seed of one's own; those of others go on afterwards as if nothing had been.

    Examples
    --------
    >>> with own_random_state(0):
    ...     first = torch.rand(1)
    >>> with own_random_state(0):
    ...     bool(torch.rand(1) == first)
    True
    """
    with torch.random.fork_rng(range(torch.cuda.device_count())):
        torch.manual_seed(seed)
        yield


def seed_of(random_state: Any) -> int:
    """A seed from what scikit-learn calls a random state; None gives a new one, and leaves numpy's global state alone.

    Examples
    --------
    >>> seed_of(0) == seed_of(np.random.RandomState(0)), seed_of(None) == seed_of(None)
    (True, False)
    """
    generator = np.random.RandomState() if random_state is None else check_random_state(random_state)
    return int(generator.randint(2**31 - 1))


def held_out(codes: NDArray[np.int64], fraction: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Which rows to learn from and which to validate on, classes in proportion.

    All are for both where either part would be too small for every class.

    Examples
    --------
    >>> [len(rows) for rows in held_out(np.arange(20) % 2, 0.2, 0)]
    [16, 4]
    >>> [len(rows) for rows in held_out(np.arange(20) % 2, 0.05, 0)]
    [20, 20]
    """
    rows, counts = np.arange(len(codes)), np.bincount(codes)
    held = round(fraction * len(codes))
    if counts.min() < 2 or not len(counts) <= held <= len(codes) - len(counts):
        return rows, rows
    learned, rest = train_test_split(rows, test_size=held, stratify=codes, random_state=seed)
    return np.asarray(learned), np.asarray(rest)
