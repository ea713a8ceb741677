"""Train networks with Lightning: fitting, checkpoints, resuming, and the run folder that a training writes."""

from neuralode.core.extras import require

require("train", *("lightning", "torchmetrics", "safetensors", "sklearn", "matplotlib"))

from neuralode.training.run import Run  # noqa: E402  (after the check for the extra)

__all__ = ["Run"]
