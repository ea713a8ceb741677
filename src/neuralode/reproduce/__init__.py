"""Reproduce tables and figures of Chen et al. 2018: one file for each."""

from neuralode.core.extras import require

_NEEDED = ("lightning", "torchmetrics", "safetensors", "sklearn", "matplotlib")
require("train", *_NEEDED)

from neuralode.reproduce.table2 import table2  # noqa: E402  (after the check for optional packages)

__all__ = ["table2"]
