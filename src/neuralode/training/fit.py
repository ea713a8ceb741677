"""One way to fit: Lightning trains, the epoch with the lowest validation loss is kept, and no ending loses it."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.fabric.utilities.rank_zero import rank_zero_only
from lightning.pytorch.callbacks import Callback
from torch import nn

from neuralode.training.checkpoints import Checkpoints, Kept
from neuralode.training.device import quiet
from neuralode.training.interrupt import fit_until_interrupted
from neuralode.training.metrics import Measured
from neuralode.training.preflight import check_folder, check_room
from neuralode.training.resume import Best, Patience, Safekeeping, identity_of

# What comes of a checkpoint that holds something else than what was written.
WRONG = (
    ArithmeticError,
    AssertionError,
    AttributeError,
    LookupError,
    MisconfigurationException,
    RuntimeError,
    TypeError,
    ValueError,
)

DIVERGED = "learning_rate={} led to weights that are not finite; wanted a lower one."


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
    clip : float or None
        The norm of the gradient at most.
    batches : int, optional
        Of an epoch, at most.
    checkpoint_every : int, optional
        Steps of the optimizer from one checkpoint to the next; as many as ten seconds have, unless given.
    """

    epochs: int
    patience: int | None
    accelerator: str = "cpu"
    devices: str = "1"
    precision: Any = "32-true"
    clip: float | None = 1.0
    batches: int | None = None
    checkpoint_every: int | None = None


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


class Watched(Measured):
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
    belongs_to: str = "",
) -> Fitted:
    """Train ``task`` and leave it with the weights of its best epoch.

    Parameters
    ----------
    task : LightningModule
        It logs ``val_loss``. What it does besides in a step it does in ``training_step`` or ``optimizer_step``.
    data : LightningDataModule
        With training and validation batches; where the former are `Resumable`, a training goes on within an epoch.
    effort : Effort
        When to stop.
    folder : Path, optional
        Where checkpoints go, to go on from; without, there are none.
    resume : bool
        Go on from the newest checkpoint in ``folder``, or begin where there is none. On the CPU, with the same number
        of threads, the weights become what they would have become.
    callbacks : sequence of Callback
        Lightning's.
    progress_bar : bool
        Lightning's own.
    belongs_to : str
        Whose the checkpoints are, such as `neuralode.training.run.Run.digest`: those of another are refused.

    Raises
    ------
    OSError
        Where ``folder`` cannot be written or has no room, before the first step; where the disk fills up later on.
    ValueError
        Where there are checkpoints to go on from, but all are damaged or of another training; where training came to
        weights that are not finite.
    """
    best, deciding = Best(), []
    if effort.patience is not None:
        deciding = [best, Patience(effort.patience)]
    keeping = None if folder is None else _keeping(task, effort, folder, belongs_to)
    with quiet():
        trainer = L.Trainer(
            accelerator=effort.accelerator,
            devices=effort.devices,
            precision=effort.precision,
            max_epochs=effort.epochs,
            limit_train_batches=effort.batches,
            gradient_clip_val=effort.clip,
            callbacks=[*deciding, *callbacks, *([keeping] if keeping else [])],
            plugins=[Kept(keeping.checkpoints)] if keeping else None,
            enable_checkpointing=keeping is not None,
            logger=False,
            num_sanity_val_steps=0,
            limit_val_batches=None if deciding else 0,
            enable_model_summary=False,
            enable_progress_bar=progress_bar,
            default_root_dir=folder,
        )
        interrupted = _run(trainer, task, data, keeping, resume)
    progress: Any = trainer.fit_loop.epoch_progress.current  # `current_epoch` is one behind where it stopped early
    epochs = chosen = progress.processed
    if best.weights:
        task.load_state_dict(best.weights)
        chosen = best.epochs
    if not _is_finite(task):
        raise _diverged(task)
    return Fitted(epochs, best.score, chosen, interrupted)


def is_global_zero() -> bool:
    """Whether this process, of those that train together, is the one that writes and speaks."""
    return getattr(rank_zero_only, "rank", 0) == 0


def _keeping(task: L.LightningModule, effort: Effort, folder: Path, belongs_to: str) -> Safekeeping:
    check_folder(folder)
    check_room(folder, sum(part.nbytes for part in task.state_dict().values()))
    folder.mkdir(parents=True, exist_ok=True)
    return Safekeeping(Checkpoints(folder), identity_of(task, belongs_to), effort.checkpoint_every)


def _run(
    trainer: L.Trainer,
    task: L.LightningModule,
    data: L.LightningDataModule,
    keeping: Safekeeping | None,
    resume: bool,
) -> bool:
    """Train, and return whether Ctrl-C cut it short."""
    origin = None
    if keeping is not None:
        origin = keeping.checkpoints.newest(partial(keeping.check, trainer)) if resume else None
        if is_global_zero():
            (keeping.checkpoints.tidy if resume else keeping.checkpoints.clear)()
    try:
        if threading.current_thread() is threading.main_thread():
            return fit_until_interrupted(trainer, task, data, origin)
        # Ctrl-C comes to the main thread alone, and only there can it be listened to
        trainer.fit(task, data, ckpt_path=origin, weights_only=True)
        return False
    except WRONG as error:
        if origin is None or keeping is None or keeping.started:
            if _is_finite(task):
                raise
            raise _diverged(task) from error  # whoever met them first, this is why
        # what a checkpoint holds is found out to be wrong, at the latest, as the first step is taken from it
        raise ValueError(
            f"{origin} cannot be gone on from ({error!r}); delete it to go on from the one before."
        ) from error


def settle(model: nn.Module, learning_rate: float) -> None:
    """Leave a trained model on the CPU, to be evaluated, without gradients.

    Raises
    ------
    ValueError
        Where it came to weights that are not finite.
    """
    if not _is_finite(model):
        raise ValueError(DIVERGED.format(learning_rate))
    model.zero_grad(set_to_none=True)
    model.cpu().eval()


def _is_finite(model: nn.Module) -> bool:
    return all(bool(parameter.isfinite().all()) for parameter in model.parameters())


def _diverged(task: L.LightningModule) -> ValueError:
    return ValueError(DIVERGED.format(getattr(task, "learning_rate", "that of this task")))
