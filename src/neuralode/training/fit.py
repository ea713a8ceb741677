"""Fit a Lightning module, keep the weights of the epoch with the lowest validation loss, and write checkpoints."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import lightning as L
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.fabric.utilities.rank_zero import rank_zero_only
from lightning.pytorch.callbacks import Callback
from torch import nn

from neuralode.training.checkpoints import CheckpointPlugin, Checkpoints
from neuralode.training.device import quiet
from neuralode.training.interrupt import fit_until_interrupted
from neuralode.training.preflight import check_folder, check_room
from neuralode.training.resume import BestWeights, CheckpointCallback, Patience, identity_of

# Errors that Lightning and torch raise for a checkpoint with inconsistent content.
INVALID_STATE = (
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
class FitOptions:
    """Options of `fit`.

    Parameters
    ----------
    epochs : int
        Maximum number of epochs.
    patience : int or None
        Stop after this many epochs without a lower validation loss. None trains all epochs without validation.
    accelerator : str, default="cpu"
        As in `lightning.Trainer`.
    devices : str, default="1"
        As in `lightning.Trainer`.
    precision : str, default="32-true"
        As in `lightning.Trainer`.
    clip : float or None, default=1.0
        Maximum norm of the gradient.
    batches : int, default=None
        Maximum number of batches per epoch.
    checkpoint_every : int, default=None
        Optimizer steps between checkpoints; None writes one about every ten seconds.
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
class FitResult:
    """Result of `fit`.

    Attributes
    ----------
    epochs : int
        Number of epochs trained.
    best : float
        Lowest validation loss; NaN without validation.
    best_epoch : int
        Number of epochs up to and including the best one; all of them without validation.
    interrupted : bool
        Whether Ctrl-C ended the training.
    """

    epochs: int
    best: float
    best_epoch: int
    interrupted: bool


def fit(
    module: L.LightningModule,
    data: L.LightningDataModule,
    options: FitOptions,
    *,
    folder: Path | None = None,
    resume: bool = False,
    callbacks: Sequence[Callback] = (),
    progress_bar: bool = False,
    belongs_to: str = "",
) -> FitResult:
    """Train a module and leave it with the weights of its best epoch.

    Parameters
    ----------
    module : LightningModule
        Logs ``val_loss``. Side effects of a step belong into ``training_step`` or ``optimizer_step``: see
        `neuralode.training.resume`.
    data : LightningDataModule
        Training and validation batches. With a `ResumableLoader` for training, checkpoints are written within epochs.
    options : FitOptions
        Number of epochs, device and the like.
    folder : Path, default=None
        Folder of the checkpoints. None writes none.
    resume : bool, default=False
        Resume from the newest checkpoint in ``folder``, or start from the beginning if there is none. On the CPU, with
        the same number of threads, the weights are the same as without the interruption.
    callbacks : sequence of Callback, default=()
        Lightning callbacks.
    progress_bar : bool, default=False
        Show Lightning's progress bar.
    belongs_to : str, default=""
        Identifies the training, such as `neuralode.training.run.Run.digest`. Checkpoints with another value are
        rejected.

    Returns
    -------
    FitResult
        Number of epochs and best validation loss.

    Raises
    ------
    OSError
        If ``folder`` cannot be written or lacks room, before the first step; if the disk fills up later.
    ValueError
        If all checkpoints to resume from are damaged or of another training; if the weights are not finite.
    """
    best = BestWeights()
    validation = [] if options.patience is None else [best, Patience(options.patience)]
    writer = None if folder is None else _checkpoint_callback(module, options, folder=folder, belongs_to=belongs_to)
    with quiet():
        trainer = L.Trainer(
            accelerator=options.accelerator,
            devices=options.devices,
            precision=options.precision,
            max_epochs=options.epochs,
            limit_train_batches=options.batches,
            gradient_clip_val=options.clip,
            callbacks=[*validation, *callbacks, *([writer] if writer else [])],
            plugins=[CheckpointPlugin(writer.checkpoints)] if writer else None,
            enable_checkpointing=writer is not None,
            logger=False,
            num_sanity_val_steps=0,
            limit_val_batches=None if validation else 0,
            enable_model_summary=False,
            enable_progress_bar=progress_bar,
            default_root_dir=folder,
        )
        interrupted = _fit(trainer, module, data, writer=writer, resume=resume)
    progress: Any = trainer.fit_loop.epoch_progress.current  # `current_epoch` is one behind after early stopping
    epochs = best_epoch = progress.processed
    if best.weights:
        module.load_state_dict(best.weights)
        best_epoch = best.epochs
    if not _is_finite(module):
        raise _diverged(module)
    return FitResult(epochs, best.score, best_epoch=best_epoch, interrupted=interrupted)


def is_global_zero() -> bool:
    """Return whether this process is the one that writes files and prints, if several train together."""
    return getattr(rank_zero_only, "rank", 0) == 0


def prepare_for_inference(model: nn.Module, learning_rate: float) -> None:
    """Move a trained model to the CPU, switch it to evaluation mode and drop its gradients.

    Parameters
    ----------
    model : Module
        The trained model.
    learning_rate : float
        Learning rate of the training, for the message.

    Raises
    ------
    ValueError
        If the weights are not finite.
    """
    if not _is_finite(model):
        raise ValueError(DIVERGED.format(learning_rate))
    model.zero_grad(set_to_none=True)
    model.cpu().eval()


def _checkpoint_callback(
    module: L.LightningModule, options: FitOptions, *, folder: Path, belongs_to: str
) -> CheckpointCallback:
    check_folder(folder)
    check_room(folder, sum(part.nbytes for part in module.state_dict().values()))
    folder.mkdir(parents=True, exist_ok=True)
    return CheckpointCallback(Checkpoints(folder), identity_of(module, belongs_to), options.checkpoint_every)


def _fit(
    trainer: L.Trainer,
    module: L.LightningModule,
    data: L.LightningDataModule,
    *,
    writer: CheckpointCallback | None,
    resume: bool,
) -> bool:
    """Train, and return whether Ctrl-C interrupted it."""
    origin = None
    if writer is not None:
        origin = writer.checkpoints.newest(partial(writer.check, trainer)) if resume else None
        if is_global_zero():
            (writer.checkpoints.delete_partial if resume else writer.checkpoints.clear)()
    try:
        if threading.current_thread() is threading.main_thread():
            return fit_until_interrupted(trainer, module, data, resume_from=origin)
        # Other threads do not receive Ctrl-C and cannot set a signal handler.
        trainer.fit(module, data, ckpt_path=origin, weights_only=True)
        return False
    except INVALID_STATE as error:
        if origin is None or writer is None or writer.started:
            if _is_finite(module):
                raise
            raise _diverged(module) from error  # the cause, wherever the error was raised
        # Inconsistent content of a checkpoint shows up before the first step is complete.
        raise ValueError(
            f"{origin} cannot be resumed from ({error!r}); delete it to resume from the one before."
        ) from error


def _is_finite(model: nn.Module) -> bool:
    return all(bool(parameter.isfinite().all()) for parameter in model.parameters())


def _diverged(module: L.LightningModule) -> ValueError:
    return ValueError(DIVERGED.format(getattr(module, "learning_rate", "that of this module")))
