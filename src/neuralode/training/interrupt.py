"""Let Ctrl-C end a training without ending the process."""

from __future__ import annotations

import signal
from pathlib import Path

import lightning as L


def fit_until_interrupted(
    trainer: L.Trainer, module: L.LightningModule, data: L.LightningDataModule, *, resume_from: Path | None = None
) -> bool:
    """Call ``trainer.fit`` and return whether Ctrl-C interrupted it.

    On Ctrl-C Lightning shuts down, ignores further signals and exits the process. This function keeps the process alive
    and restores the signal handler, so that the caller can save the weights.
    """
    handler = signal.getsignal(signal.SIGINT)
    try:
        trainer.fit(module, data, ckpt_path=resume_from, weights_only=True)
    except SystemExit:
        if not trainer.interrupted:
            raise
        return True
    finally:
        signal.signal(signal.SIGINT, handler)
    return False
