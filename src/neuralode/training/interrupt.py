"""Ctrl-C ends a training, and nothing else."""

from __future__ import annotations

import signal
from pathlib import Path

import lightning as L


def fit_until_interrupted(
    trainer: L.Trainer, task: L.LightningModule, data: L.LightningDataModule, resume_from: Path | None = None
) -> bool:
    """Fit, and return whether Ctrl-C cut it short.

    Lightning answers Ctrl-C by closing down, ignoring further ones and leaving the process. We stay, to keep what has
    been learned, and listen to Ctrl-C again.
    """
    handler = signal.getsignal(signal.SIGINT)
    try:
        trainer.fit(task, data, ckpt_path=resume_from, weights_only=True)
    except SystemExit:
        if not trainer.interrupted:
            raise
        return True
    finally:
        signal.signal(signal.SIGINT, handler)
    return False
