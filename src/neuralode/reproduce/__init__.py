"""Published tables, computed again: one file a table."""

from neuralode.core.extras import require

require("train", "lightning", "torchmetrics", "safetensors", "sklearn", "matplotlib")

from neuralode.reproduce.table2 import table2  # noqa: E402  (after the sentence above)

__all__ = ["table2"]
