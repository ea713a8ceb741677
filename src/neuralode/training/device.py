"""Whether Lightning can train on a device, without what it says besides."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import lightning as L
from lightning.fabric.utilities.exceptions import MisconfigurationException

SILENT: dict[str, Any] = {"enable_checkpointing": False, "enable_progress_bar": False, "enable_model_summary": False}


def check_device(accelerator: str, devices: str, precision: Any) -> None:
    """Raise `ValueError` where Lightning cannot use a device, or not in such a precision."""
    try:
        with quiet():
            L.Trainer(accelerator=accelerator, devices=devices, precision=precision, logger=False, **SILENT)
    except (MisconfigurationException, TypeError, ValueError) as error:
        asked = f"accelerator={accelerator!r}, devices={devices!r}, precision={precision!r}"
        raise ValueError(f"{asked} cannot be used here: {error}") from error


@contextmanager
def quiet() -> Iterator[None]:
    """Without what Lightning says besides: hardware it found, advice on data loading."""
    logger = logging.getLogger("lightning.pytorch")
    level = logger.level
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module="lightning")
        logger.setLevel(logging.ERROR)
        try:
            yield
        finally:
            logger.setLevel(level)
