"""Data sets, split once and for all by a seed."""

from neuralode.core.extras import require

require("train", "sklearn")

from neuralode.data.digits import Split, digits, write_again  # noqa: E402  (after the sentence above)

__all__ = ["Split", "digits", "write_again"]
