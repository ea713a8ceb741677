"""Base classes of the Lightning modules: metrics that survive a restart, and the default optimizer."""

from __future__ import annotations

from typing import Any, cast

import lightning as L
import torch
from torch import Tensor, nn
from torchmetrics import MeanMetric, Metric

from neuralode.training.checkpoints import expect

METRICS = "metrics"  # key of the metric states in a checkpoint


class MetricsModule(L.LightningModule):
    """Lightning module whose metric states are part of its checkpoints.

    A training that is resumed in the middle of an epoch thus reports the metrics of the whole epoch.
    """

    def __init__(self) -> None:
        super().__init__()
        self.means = nn.ModuleDict()

    def log_mean(self, name: str, value: Tensor | float, size: int = 1) -> None:
        """Log the mean of ``value`` over the samples of an epoch.

        Parameters
        ----------
        name : str
            Name of the metric.
        value : Tensor or float
            Mean over this batch.
        size : int, default=1
            Number of samples in this batch.
        """
        if name not in self.means:
            self.means[name] = _mean_metric().to(self.device)
        mean = cast(MeanMetric, self.means[name])
        mean.update(value.detach() if isinstance(value, Tensor) else value, size)
        self.log(name, mean, on_step=False, on_epoch=True, metric_attribute=f"means.{name}")

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add the metric states; none at the end of an epoch, where metrics are reset."""
        epoch_ended = self.trainer.is_last_batch
        metrics = {name: part for name, part in self.named_modules() if isinstance(part, Metric) and not epoch_ended}
        checkpoint[METRICS] = {name: dict(metric.metric_state) for name, metric in metrics.items()}

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Restore the metric states."""
        for name, state in checkpoint.get(METRICS, {}).items():
            parent, _, mean_name = name.partition(".")
            if parent == "means" and mean_name not in self.means:
                self.means[mean_name] = _mean_metric()
            metric = cast(Metric, self.get_submodule(name))
            for attribute, value in state.items():
                setattr(metric, attribute, expect(value, type(metric.metric_state[attribute]), attribute))


class TrainingModule(MetricsModule):
    """Lightning module with AdamW and a cosine schedule; subclasses log ``val_loss``, which selects the best epoch.

    Parameters
    ----------
    learning_rate : float
        Initial learning rate. It falls to a hundredth along a half cosine.
    weight_decay : float, default=0.0
        As in `torch.optim.AdamW`.
    """

    def __init__(self, learning_rate: float, weight_decay: float = 0.0) -> None:
        super().__init__()
        self.learning_rate, self.weight_decay = learning_rate, weight_decay

    def configure_optimizers(self) -> Any:
        """Return AdamW and its schedule."""
        optimizer = torch.optim.AdamW(self.parameters(), self.learning_rate, weight_decay=self.weight_decay)
        steps = max(1, int(self.trainer.estimated_stepping_batches))
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps, self.learning_rate / 100)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


def _mean_metric() -> Metric:
    return MeanMetric(nan_strategy="disable").set_dtype(torch.get_default_dtype())
