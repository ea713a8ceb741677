"""Training with Lightning: one file per task, and the folder that a run leaves behind."""

from neuralode.core.extras import require

require("train", "lightning", "torchmetrics", "safetensors", "sklearn", "matplotlib")

from neuralode.training.run import Run  # noqa: E402  (after the sentence above)

__all__ = ["Run"]
