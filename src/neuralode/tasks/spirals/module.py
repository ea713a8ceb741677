"""Lightning modules of the models of spirals."""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float64
from torch import Tensor

from neuralode.data.spirals import WINDOW
from neuralode.nn import LatentODE, Observations
from neuralode.tasks.spirals.data import Batch
from neuralode.tasks.spirals.models import AutoregressiveRNN, on_grid
from neuralode.training.module import TrainingModule

ENCODER_MARGIN = 0.2  # minimum time before the end of the encoded part at which states are compared for consistency
ANNEALING = 0.3  # fraction of the training until divergence and consistency have their full weight
WARM_UP = 0.1  # fraction of the training until the learning rate is highest


class SpiralsModule(TrainingModule):
    """Base class: validate by forecasts of the second half of windows."""

    def forecast(self, observed: Observations, times: Float64[Tensor, " steps"]) -> Tensor:
        """Return the expected points at ``times``, from 0 on: [series, steps, channels]."""
        raise NotImplementedError

    def validation_step(self, batch: Batch, index: int) -> None:  # noqa: D102
        observed, targets = batch
        times = torch.arange(WINDOW, dtype=torch.float64, device=targets.times.device) / WINDOW
        given, values = on_grid(targets, times)
        scored = given & (times >= 0.5)
        error = (self.forecast(observed, times) - values)[scored].square().mean()
        self.log("val_loss", error, on_epoch=True, batch_size=len(targets))

    def configure_optimizers(self) -> Any:
        """Return Adam and a one-cycle schedule, whose slow start keeps the latent states bounded."""
        optimizer = torch.optim.Adam(self.parameters(), self.learning_rate)
        schedule = torch.optim.lr_scheduler.OneCycleLR(
            optimizer, self.learning_rate, total_steps=max(2, self._steps()), pct_start=WARM_UP, cycle_momentum=False
        )
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def _steps(self) -> int:
        return int(self.trainer.estimated_stepping_batches)


class LatentODEModule(SpiralsModule):
    """Maximise the evidence lower bound of a latent ODE, with a penalty on states that are inconsistent over time.

    Parameters
    ----------
    model : LatentODE
        The model to train.
    learning_rate : float
        Maximum of the schedule.
    consistency : float
        Weight of the penalty: see `neuralode.nn.LatentODE.elbo`.
    """

    def __init__(self, model: LatentODE, learning_rate: float, consistency: float) -> None:
        super().__init__(learning_rate)
        self.model, self.consistency = model, consistency

    def training_step(self, batch: Batch, index: int) -> Tensor:  # noqa: D102
        observed, targets = batch
        weight = min(1.0, (1 + self.trainer.global_step) / (ANNEALING * self._steps()))
        elbo = self.model.elbo(
            observed,
            targets,
            kl_weight=weight,
            consistency=weight * self.consistency,
            within=observed.times <= observed.times[:, -1:] - ENCODER_MARGIN,
        )
        terms = {"train_loss": elbo.loss, "train_kl": elbo.kl.mean(), "train_inconsistency": elbo.inconsistency.mean()}
        for name, value in terms.items():
            self.log_mean(name, value, len(targets))
        return elbo.loss / WINDOW  # scaled so that the gradient is not always clipped

    def forecast(self, observed: Observations, times: Float64[Tensor, " steps"]) -> Tensor:  # noqa: D102
        mean = self.model.encode(observed).mean[None]
        z = self.model.follow(mean, observed.start, times.expand(len(observed), -1)).z[0]
        return self.model.likelihood.mean(self.model.decode(z))


class RecurrentModule(SpiralsModule):
    """Train a recurrent network to predict the next observation.

    Parameters
    ----------
    model : AutoregressiveRNN
        The model to train.
    learning_rate : float
        Maximum of the schedule.
    """

    def __init__(self, model: AutoregressiveRNN, learning_rate: float) -> None:
        super().__init__(learning_rate)
        self.model = model

    def training_step(self, batch: Batch, index: int) -> Tensor:  # noqa: D102
        observed, _ = batch
        loss = (self.model(observed) - observed.values)[observed.seen].square().mean()
        self.log_mean("train_loss", loss, len(observed))
        return loss

    def forecast(self, observed: Observations, times: Float64[Tensor, " steps"]) -> Tensor:  # noqa: D102
        return self.model.forecast(observed, times)
