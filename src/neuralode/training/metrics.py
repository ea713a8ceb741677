"""Figures of an epoch that are whole though the training was cut off in the middle of it."""

from __future__ import annotations

from typing import Any, cast

import lightning as L
import torch
from torch import Tensor, nn
from torchmetrics import MeanMetric, Metric

from neuralode.training.checkpoints import expect

KEPT = "metrics"  # their place in a checkpoint


class Measured(L.LightningModule):
    """A task whose metrics go into its checkpoints; means over the batches of an epoch are among them."""

    def __init__(self) -> None:
        super().__init__()
        self.means = nn.ModuleDict()

    def log_mean(self, name: str, value: Tensor | float, size: int = 1) -> None:
        """Log the mean of ``value`` over the samples of an epoch, of which there are ``size`` in this batch."""
        if name not in self.means:
            self.means[name] = _mean().to(self.device)
        mean = cast(MeanMetric, self.means[name])
        mean.update(value.detach() if isinstance(value, Tensor) else value, size)
        self.log(name, mean, on_step=False, on_epoch=True, metric_attribute=f"means.{name}")

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add where the metrics stand; at the end of an epoch they begin anew."""
        over = self.trainer.is_last_batch
        found = {name: part for name, part in self.named_modules() if isinstance(part, Metric) and not over}
        checkpoint[KEPT] = {name: dict(metric.metric_state) for name, metric in found.items()}

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Set the metrics to where they stood."""
        for name, state in checkpoint.get(KEPT, {}).items():
            first, _, rest = name.partition(".")
            if first == "means" and rest not in self.means:
                self.means[rest] = _mean()
            metric = cast(Metric, self.get_submodule(name))
            for what, value in state.items():
                setattr(metric, what, expect(value, type(metric.metric_state[what]), what))


def _mean() -> Metric:
    return MeanMetric(nan_strategy="disable").set_dtype(torch.get_default_dtype())
