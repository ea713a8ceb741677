"""Check that Lightning can use a device, without its log output."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import lightning as L
from lightning.fabric.utilities.exceptions import MisconfigurationException

# Trainer flags that turn off everything it would write or print.
SILENT: dict[str, Any] = {"enable_checkpointing": False, "enable_progress_bar": False, "enable_model_summary": False}


def check_device(accelerator: str, devices: str, precision: Any) -> None:
    """Raise `ValueError` if Lightning cannot use the device, or not at this precision."""
    try:
        with quiet():
            L.Trainer(accelerator=accelerator, devices=devices, precision=precision, logger=False, **SILENT)
    except (MisconfigurationException, TypeError, ValueError) as error:
        flags = f"accelerator={accelerator!r}, devices={devices!r}, precision={precision!r}"
        raise ValueError(f"{flags} cannot be used here: {error}") from error


@contextmanager
def quiet() -> Iterator[None]:
    """Suppress Lightning's messages and warnings, such as those on hardware and data loading."""
    logger = logging.getLogger("lightning.pytorch")
    level = logger.level
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module="lightning")
        logger.setLevel(logging.ERROR)
        try:
            yield
        finally:
            logger.setLevel(level)
