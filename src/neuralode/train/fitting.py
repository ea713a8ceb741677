"""One way to fit: Lightning trains, the epoch with the lowest validation loss is kept, and Ctrl-C only ends it."""

from __future__ import annotations

import logging
import tempfile
import threading
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.pytorch.callbacks import Callback, EarlyStopping, ModelCheckpoint
from torch import nn

from neuralode.train.interrupt import fit_until_interrupted


@dataclass(frozen=True)
class Effort:
    """How long to train, and on what.

    Parameters
    ----------
    epochs : int
        At most.
    patience : int or None
        Epochs without a lower validation loss after which it stops; None trains them all, without validation.
    accelerator, devices, precision
        Lightning's flags.
    """

    epochs: int
    patience: int | None
    accelerator: str = "cpu"
    devices: str = "1"
    precision: Any = "32-true"


@dataclass(frozen=True)
class Fitted:
    """How it went.

    Attributes
    ----------
    epochs : int
        Trained in all.
    best : float
        The lowest validation loss; NaN without validation.
    best_epoch : int
        Epochs trained up to that, or all.
    interrupted : bool
        Whether Ctrl-C cut it short.
    """

    epochs: int
    best: float
    best_epoch: int
    interrupted: bool


class Watched(L.LightningModule):
    """A task whose loss, validated once an epoch, says which weights to keep. Adam, and a clipped gradient."""

    def __init__(self, learning_rate: float, weight_decay: float = 0.0) -> None:
        super().__init__()
        self.learning_rate, self.weight_decay = learning_rate, weight_decay

    def configure_optimizers(self) -> Any:
        """Adam, its rate falling along a half cosine to a hundredth."""
        optimizer = torch.optim.AdamW(self.parameters(), self.learning_rate, weight_decay=self.weight_decay)
        steps = max(1, int(self.trainer.estimated_stepping_batches))
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps, self.learning_rate / 100)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


def fit(
    task: L.LightningModule,
    data: L.LightningDataModule,
    effort: Effort,
    *,
    folder: Path | None = None,
    resume: bool = False,
    callbacks: Sequence[Callback] = (),
    progress_bar: bool = False,
) -> Fitted:
    """Train ``task`` and leave it with the weights of its best epoch.

    Parameters
    ----------
    task : LightningModule
        It logs ``val_loss``.
    data : LightningDataModule
        With training and validation batches.
    effort : Effort
        When to stop.
    folder : Path, optional
        Where checkpoints stay, to go on from; else they are gone in the end.
    resume : bool
        Go on from the last checkpoint in ``folder``.
    callbacks : sequence of Callback
        Lightning's.
    progress_bar : bool
        Lightning's own.
    """
    with tempfile.TemporaryDirectory() as passing, _quiet():
        kept = Path(passing) if folder is None else folder
        # by itself the one that keeps the best writes nothing in other epochs: hence another, for those who go on
        latest = ModelCheckpoint(kept, "last", enable_version_counter=False)
        best = ModelCheckpoint(kept, "best", monitor="val_loss", enable_version_counter=False)
        deciding = [] if effort.patience is None else [best, EarlyStopping("val_loss", patience=effort.patience)]
        trainer = L.Trainer(
            accelerator=effort.accelerator,
            devices=effort.devices,
            precision=effort.precision,
            max_epochs=effort.epochs,
            gradient_clip_val=1.0,
            callbacks=[latest, *deciding, *callbacks],
            logger=False,
            num_sanity_val_steps=0,
            limit_val_batches=None if deciding else 0,
            enable_model_summary=False,
            enable_progress_bar=progress_bar,
            default_root_dir=kept,
        )
        last = kept / "last.ckpt"
        if resume and not last.exists():
            raise FileNotFoundError(f"{kept} has no checkpoint to go on from: not one epoch was finished.")
        origin = last if resume else None
        if threading.current_thread() is threading.main_thread():
            interrupted = fit_until_interrupted(trainer, task, data, origin)
        else:  # Ctrl-C comes to the main thread alone, and only there can it be listened to
            trainer.fit(task, data, ckpt_path=origin, weights_only=True)
            interrupted = False
        epochs = chosen = trainer.current_epoch
        if deciding and best.best_model_path:
            found = torch.load(best.best_model_path, weights_only=True)
            task.load_state_dict(found["state_dict"])
            chosen = found["epoch"] + 1
        score = float("nan") if best.best_model_score is None else float(best.best_model_score)
        return Fitted(epochs, score, chosen, interrupted)


def settle(model: nn.Module, learning_rate: float) -> None:
    """Leave a trained model on the CPU, to be evaluated, without gradients.

    Raises
    ------
    ValueError
        Where it came to weights that are not finite.
    """
    if not all(bool(parameter.isfinite().all()) for parameter in model.parameters()):
        raise ValueError(f"learning_rate={learning_rate} led to weights that are not finite; wanted a lower one.")
    model.zero_grad(set_to_none=True)
    model.cpu().eval()


@contextmanager
def _quiet() -> Iterator[None]:
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
