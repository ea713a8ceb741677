"""The command `neuralode`."""

import sys

from neuralode.core.extras import require

__all__ = ["app"]

try:
    require("cli", "typer", "rich")
except ImportError as missing:
    sentence = f"The neuralode command cannot start: {missing}"

    def app() -> None:
        """Say which extra is missing."""
        sys.exit(sentence)
else:
    from neuralode.cli.main import app
