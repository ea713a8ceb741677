"""Lightning's view of flow matching: a field that is taught velocities, and the running mean of its weights."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, nn

from neuralode.nn.flows import Path, drop_condition, flow_matching_loss
from neuralode.nn.flows.flow_matching import Coupling
from neuralode.tasks.flow_matching.data import Batch
from neuralode.training.module import TrainingModule

WARM_UP = 10  # steps over which the running mean begins to look further back than to the last few


class Taught(TrainingModule):
    """Teach a field; what validates, and is kept, is the running mean of its weights.

    Parameters
    ----------
    field : Module
        ``field(t, x)``, or ``field(t, x, label)``.
    path, coupling
        As in `neuralode.nn.flows.flow_matching_loss`.
    classes : int
        How many labels there are; one more stands for none.
    dropped : float
        Share of the labels that are dropped: what guidance wants.
    averaged : float
        Share of the mean of weights that a step leaves as it is.
    learning_rate, weight_decay
        Of `TrainingModule`.
    """

    def __init__(
        self,
        field: nn.Module,
        *,
        path: str | Path = "linear",
        coupling: Coupling | None = None,
        classes: int = 0,
        dropped: float = 0.1,
        averaged: float = 0.999,
        learning_rate: float = 2e-3,
        weight_decay: float = 1e-2,
    ) -> None:
        super().__init__(learning_rate, weight_decay)
        self.field, self.mean = field, copy.deepcopy(field).requires_grad_(False)
        self.path, self.coupling = path, coupling
        self.classes, self.dropped, self.averaged = classes, dropped, averaged

    def training_step(self, batch: Batch, index: int) -> Tensor:  # noqa: D102
        x, *labels = batch
        known = [drop_condition(label, self.classes, self.dropped) for label in labels]
        loss = flow_matching_loss(self.field, x, *known, path=self.path, coupling=self.coupling)
        self.log_mean("train_loss", loss, len(x))
        return loss

    def optimizer_step(self, *args: Any, **kwargs: Any) -> None:
        """Let the mean follow, at first closely."""
        super().optimizer_step(*args, **kwargs)
        share = max(1 - self.averaged, 1 / (1 + (self.global_step + 1) / WARM_UP))
        with torch.no_grad():
            for mean, parameter in zip(self.mean.parameters(), self.field.parameters(), strict=True):
                mean.lerp_(parameter, share)

    def validation_step(self, batch: Batch, index: int) -> None:  # noqa: D102
        x, *labels = batch
        drawing = torch.Generator().manual_seed(index)  # the same noise and times each epoch
        loss = flow_matching_loss(self.mean, x, *labels, path=self.path, coupling=self.coupling, generator=drawing)
        self.log("val_loss", loss, on_epoch=True, batch_size=len(x))
