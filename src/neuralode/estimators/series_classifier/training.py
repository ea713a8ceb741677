"""The network of `SeriesClassifier` and its training."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Any

from jaxtyping import Int64
from torch import Tensor

from neuralode.nn import ODERNN, RNN, GRUDecay, Observations, Recurrent, SeriesNet
from neuralode.training.fit import FitOptions, FitResult, fit, prepare_for_inference
from neuralode.training.modules.series_classification import SeriesClassificationData, SeriesClassificationModule

MODELS = ("odernn", "gru-decay", "rnn")

LabelledObservations = tuple[Observations, Int64[Tensor, " series"]]  # on the common scale, with codes of classes


@dataclass(frozen=True)
class Architecture:
    """The parameters of the network, as `neuralode.estimators.SeriesClassifier` documents them.

    Examples
    --------
    >>> architecture = Architecture("rnn", hidden=8, width=8, method="midpoint", steps=1, dropout=0.0)
    >>> net = architecture.build(channels=2, covariates=0, classes=3)
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
        """Return a network with initial weights from torch's global generator."""
        reader: Recurrent
        if self.model == "odernn":
            reader = ODERNN(channels, self.hidden, width=self.width, method=self.method, steps=self.steps)
        else:
            reader = (RNN if self.model == "rnn" else GRUDecay)(channels, self.hidden)
        return SeriesNet(reader, classes, static=covariates, width=self.width, dropout=self.dropout)


def train_series_net(
    network: SeriesNet,
    train: LabelledObservations,
    validation: LabelledObservations,
    *,
    options: FitOptions,
    classes: int,
    batch_size: int,
    learning_rate: float,
    weight_decay: float,
    progress_bar: bool = False,
) -> FitResult:
    """Train a network, and leave it on the CPU in evaluation mode, without gradients.

    Parameters
    ----------
    network : SeriesNet
        The network to train, from series to logits.
    train, validation : (Observations, LongTensor[series])
        Series on the common scale with codes of their classes.
    options : FitOptions
        Epochs, patience and accelerator.
    classes : int
        Number of classes.
    batch_size : int
        Number of series per optimizer step.
    learning_rate, weight_decay : float
        Parameters of AdamW.
    progress_bar : bool, default=False
        Whether to show Lightning's progress bar.

    Raises
    ------
    ValueError
        If training leads to weights that are not finite.
    """
    module = SeriesClassificationModule(
        network, classes=classes, learning_rate=learning_rate, weight_decay=weight_decay
    )
    data = SeriesClassificationData(train, validation, batch_size)
    with warnings.catch_warnings():
        # torchmetrics, where the held-out series show one of two classes only
        warnings.filterwarnings("ignore", "No (positive|negative) samples")
        result = fit(module, data, options, progress_bar=progress_bar)
    prepare_for_inference(network, learning_rate)
    return result
