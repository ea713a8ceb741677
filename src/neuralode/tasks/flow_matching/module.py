"""Lightning module of flow matching, with an exponential moving average of the weights."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, nn

from neuralode.nn.flows import Path, drop_condition, flow_matching_loss
from neuralode.nn.flows.flow_matching import Coupling
from neuralode.tasks.flow_matching.data import Batch
from neuralode.training.module import TrainingModule

WARM_UP = 10  # steps after which the average starts to cover more than the last few


class FlowMatchingModule(TrainingModule):
    """Train a field by flow matching; the average of its weights is validated and kept.

    Parameters
    ----------
    field : Module
        ``field(t, x)``, or ``field(t, x, label)``.
    path : str or Path, default="linear"
        As in `neuralode.nn.flows.flow_matching_loss`.
    coupling : callable, default=None
        As in `neuralode.nn.flows.flow_matching_loss`.
    classes : int, default=0
        Number of classes. The label ``classes`` stands for no class.
    dropped : float, default=0.1
        Fraction of the labels that are dropped, which guidance needs.
    averaged : float, default=0.999
        Decay of the moving average of the weights.
    learning_rate : float, default=2e-3
        As in `TrainingModule`.
    weight_decay : float, default=1e-2
        As in `TrainingModule`.
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
        conditions = [drop_condition(label, self.classes, self.dropped) for label in labels]
        loss = flow_matching_loss(self.field, x, *conditions, path=self.path, coupling=self.coupling)
        self.log_mean("train_loss", loss, len(x))
        return loss

    def optimizer_step(self, *args: Any, **kwargs: Any) -> None:
        """Update the weights and their average, which follows closely at first."""
        super().optimizer_step(*args, **kwargs)
        rate = max(1 - self.averaged, 1 / (1 + (self.global_step + 1) / WARM_UP))
        with torch.no_grad():
            for mean, parameter in zip(self.mean.parameters(), self.field.parameters(), strict=True):
                mean.lerp_(parameter, rate)

    def validation_step(self, batch: Batch, index: int) -> None:  # noqa: D102
        x, *labels = batch
        generator = torch.Generator().manual_seed(index)  # the same noise and times in every epoch
        loss = flow_matching_loss(self.mean, x, *labels, path=self.path, coupling=self.coupling, generator=generator)
        self.log("val_loss", loss, on_epoch=True, batch_size=len(x))
