"""Predict in-hospital mortality, as Rubanova et al. do."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torchmetrics.functional.classification import binary_accuracy, binary_auroc, binary_average_precision

from neuralode.data.physionet import Patients
from neuralode.nn import ODERNN, RNN, GRUDecay, Observations, Recurrent, SeriesNet
from neuralode.tasks.physionet.config import PhysioNetConfig

AT_ONCE = 400  # patients per batch without gradients


class CarryingODERNN(ODERNN):
    """ODE-RNN that receives the last value of each channel, and which channels are observed now.

    Mean area under the ROC curve on test patients over seeds 0, 1 and 2 with the other defaults: 0.855 with it, 0.845
    without (``carry=False``).
    """

    def inputs(self, observed: Observations) -> Float[Tensor, "series steps inputs"]:
        """Return values, carried forward from the last observation, and the mask of observed values."""
        values, _ = observed.carried()
        return torch.cat((values, observed.seen.to(values.dtype)), -1)


def ode_rnn(config: PhysioNetConfig, channels: int) -> Recurrent:
    """Return an ODE-RNN."""
    kind = CarryingODERNN if config.carry else ODERNN
    return kind(channels, config.hidden, width=config.width, method=config.method, steps=config.steps)


def ode_rnn_classifier(config: PhysioNetConfig, channels: int, covariates: int) -> nn.Module:
    """Return a classifier with an ODE-RNN."""
    return _classifier(config, ode_rnn(config, channels), covariates)


def gru_decay_classifier(config: PhysioNetConfig, channels: int, covariates: int) -> nn.Module:
    """Return a classifier with a GRU-Decay."""
    return _classifier(config, GRUDecay(channels, config.hidden), covariates)


def rnn_classifier(config: PhysioNetConfig, channels: int, covariates: int) -> nn.Module:
    """Return a classifier with a GRU."""
    return _classifier(config, RNN(channels, config.hidden), covariates)


@torch.no_grad()
def death_probabilities(model: nn.Module, observed: Observations) -> Float[Tensor, " patients"]:
    """Return the predicted probability of death of each patient."""
    rows = torch.arange(len(observed)).split(AT_ONCE)
    return torch.cat([model(observed[part]).softmax(-1)[:, 1] for part in rows])


def mortality_metrics(model: nn.Module, patients: Patients) -> dict[str, float]:
    """Return area under the ROC curve, average precision, accuracy and cross entropy on test patients."""
    probability, died = death_probabilities(model, patients.observed), patients.died.long()
    functions = {"auroc": binary_auroc, "average_precision": binary_average_precision, "accuracy": binary_accuracy}
    metrics = {f"test_{name}": round(float(function(probability, died)), 6) for name, function in functions.items()}
    return {**metrics, "test_loss": round(float(nn.functional.binary_cross_entropy(probability, died.float())), 6)}


def standardize(patients: Patients, train: Tensor) -> Patients:
    """Return patients standardised as the training patients."""
    return patients.standardized(patients[train])


def _classifier(config: PhysioNetConfig, reader: Recurrent, covariates: int) -> nn.Module:
    return SeriesNet(reader, outputs=2, static=covariates, dropout=config.dropout)
