"""Data sets with fixed splits, drawn from a seed."""

from neuralode.core.extras import require

require("train", "sklearn")

# This import needs the extra above.
from neuralode.data.digits import Split, digits, write_again  # noqa: E402

__all__ = ["Split", "digits", "write_again"]
