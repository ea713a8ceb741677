"""Write checkpoints so that a training that is killed at any time can be resumed with identical results.

A checkpoint holds the complete state of a training: weights, optimizer, schedule, loop counters, callbacks, metrics,
random generators, the position in the epoch, and the best weights so far. A training on the CPU that is resumed takes
the same steps bit for bit, given the same number of threads and the same versions.

On several devices, and with loaders other than `ResumableLoader`, checkpoints are written only at the end of an epoch.
A checkpoint is written before the module's ``on_train_batch_end``, whose effects are lost on resume: modules must use
``optimizer_step`` instead.
"""

from __future__ import annotations

import hashlib
import math
import time
import warnings
from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.pytorch.callbacks import Callback, Checkpoint, EarlyStopping
from lightning.pytorch.callbacks.early_stopping import EarlyStoppingReason

from neuralode.training.checkpoints import (
    Checkpoints,
    CheckpointWarning,
    Content,
    check_parts,
    expect,
    has_same_counters,
)
from neuralode.training.resumable_loader import EpochPosition, ResumableLoader
from neuralode.training.rng_state import get_rng_state, set_rng_state

SECONDS = 10.0  # between checkpoints, if no number of steps is given
IDENTITY = "identity"  # key of a checkpoint


class CheckpointCallback(Checkpoint):
    """Write checkpoints at regular intervals, and restore the random state and epoch position from one.

    Parameters
    ----------
    checkpoints : Checkpoints
        Where they are written.
    identity : dict of str
        Identifies the training, which can be resumed only from its own checkpoints; see `identity_of`.
    every : int, default=None
        Optimizer steps between checkpoints; None writes one about every `SECONDS`.
    """

    def __init__(self, checkpoints: Checkpoints, identity: dict[str, str], every: int | None = None) -> None:
        self.checkpoints, self.identity, self.every = checkpoints, identity, every
        self.last_written, self.started = 0.0, False
        self._position: EpochPosition | None = None
        self._restored: Content | None = None

    @property
    def state_key(self) -> str:
        """Key of this callback in a checkpoint; it is part of the file format."""
        return "Safekeeping"

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Restore the random state and the position in the epoch."""
        self.last_written = time.monotonic()
        restored, self._restored = self._restored, None
        if restored is None or trainer.world_size > 1:
            return
        set_rng_state(restored["random"])
        if (place := restored["place"]) is not None:
            _resumable_loader(trainer).seek(EpochPosition(place["begun"], place["given"]))

    def on_train_batch_end(  # noqa: D102
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        self.started = True
        is_last = batch_idx + 1 >= trainer.num_training_batches  # a checkpoint follows at the end of the epoch
        if is_last or trainer.world_size > 1 or not self._is_due(trainer.global_step):
            return
        if isinstance(trainer.train_dataloader, ResumableLoader):
            self._position = trainer.train_dataloader.position
            self._write(trainer)
            self._position = None

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:  # noqa: D102
        self._write(trainer)

    def on_save_checkpoint(self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: Content) -> None:
        """Add the identity of the training."""
        checkpoint[IDENTITY] = {**self.identity, **environment()}

    def state_dict(self) -> dict[str, Any]:  # noqa: D102
        position = self._position
        place = None if position is None else {"begun": position.rng_state, "given": position.batches}
        return {"random": get_rng_state(), "place": place}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:  # noqa: D102
        random, place = state_dict["random"], state_dict["place"]
        expect(random, dict, "random")
        if place is not None:
            expect(place["given"], int, "place")
            expect(place["begun"], dict, "place")
        self._restored = state_dict

    def check(self, trainer: L.Trainer, path: Path, content: Content) -> None:
        """Raise `ValueError` for a checkpoint of another training; warn if results may differ in their last bits."""
        check_parts(path, content)
        if not has_same_counters(content["loops"].get("fit_loop"), trainer.fit_loop.state_dict()):
            raise ValueError(f"{path} is not a checkpoint of a training: its loop counters are missing or invalid")
        identity = content.get(IDENTITY)
        if not isinstance(identity, dict):
            raise ValueError(f"{path} is not a checkpoint of a training: it has no {IDENTITY}")
        for name, value in self.identity.items():
            if identity.get(name) != value:
                raise ValueError(f"{path} is of another training: its {name} differs")
        differ = [f"{name} {str(identity.get(name))[:40]!r}, now {now!r}" for name, now in environment().items()
                  if identity.get(name) != now]  # fmt: skip
        if differ:
            warnings.warn(
                f"{path.name} was written with {', '.join(differ)}: the trained weights may differ in their last bits.",
                CheckpointWarning,
                stacklevel=2,
            )

    def _is_due(self, step: int) -> bool:
        return step % self.every == 0 if self.every else time.monotonic() - self.last_written > SECONDS

    def _write(self, trainer: L.Trainer) -> None:
        trainer.save_checkpoint(self.checkpoints.folder / "next")  # `CheckpointPlugin` chooses the actual name
        self.last_written = time.monotonic()


class BestWeights(Callback):
    """Store the weights of the epoch with the lowest validation loss.

    Attributes
    ----------
    score : float
        That loss; NaN before the first epoch.
    epochs : int
        Number of epochs up to and including that one.
    weights : dict of Tensor
        State dict of the module, on the CPU; empty before the first epoch.
    """

    def __init__(self) -> None:
        self.score, self.epochs, self.weights = math.nan, 0, {}

    @property
    def state_key(self) -> str:
        """Key of this callback in a checkpoint; it is part of the file format."""
        return "Best"

    def on_fit_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Reject weights from a checkpoint whose shapes differ from those of this module."""
        shapes = {name: part.shape for name, part in pl_module.state_dict().items()}
        if self.weights and {name: getattr(part, "shape", None) for name, part in self.weights.items()} != shapes:
            raise ValueError("its best weights are not those of this network")

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:  # noqa: D102
        if "val_loss" not in trainer.callback_metrics:
            raise ValueError(
                f"no val_loss was logged in epoch {trainer.current_epoch + 1}; wanted it from validation_step, to "
                "select the best epoch."
            )
        score = float(trainer.callback_metrics["val_loss"])
        if not self.weights or score < self.score or (math.isnan(self.score) and not math.isnan(score)):
            self.score, self.epochs = score, trainer.current_epoch + 1
            self.weights = {name: part.detach().cpu().clone() for name, part in pl_module.state_dict().items()}

    def state_dict(self) -> dict[str, Any]:  # noqa: D102
        return {"score": self.score, "epochs": self.epochs, "weights": self.weights}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:  # noqa: D102
        self.score = expect(state_dict["score"], float, "score")
        self.epochs = expect(state_dict["epochs"], int, "epochs")
        self.weights = expect(state_dict["weights"], dict, "weights")


class Patience(EarlyStopping):
    """Stop after a number of epochs without a lower validation loss, also when resumed after that decision.

    Parameters
    ----------
    epochs : int
        That number.
    """

    def __init__(self, epochs: int) -> None:
        super().__init__("val_loss", patience=epochs)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:  # noqa: D102
        expect(state_dict["wait_count"], int, "wait_count")
        expect(state_dict["patience"], int, "patience")
        expect(expect(state_dict["best_score"], torch.Tensor, "best_score").tolist(), float, "best_score")
        super().load_state_dict(state_dict)

    def on_fit_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Stop at once if the training was killed between the decision to stop and its end."""
        trainer.should_stop = trainer.should_stop or self.stopping_reason != EarlyStoppingReason.NOT_STOPPED


def identity_of(module: L.LightningModule, belongs_to: str) -> dict[str, str]:
    """Return what identifies the checkpoints of a training.

    Parameters
    ----------
    module : LightningModule
        The module that is trained; its parameter names, shapes and dtypes are part of the identity.
    belongs_to : str
        Anything else, such as the digest of a run's ``config.json``.
    """
    shapes = [(name, list(part.shape), str(part.dtype)) for name, part in module.state_dict().items()]
    return {"network": hashlib.sha256(repr(shapes).encode()).hexdigest()[:16], "task": belongs_to}


def environment() -> dict[str, str]:
    """Return the properties of this process that affect the last bits of a step."""
    return {
        "torch": str(torch.__version__),
        "threads": str(torch.get_num_threads()),
        "processor": torch.backends.cpu.get_cpu_capability(),
    }


def _resumable_loader(trainer: L.Trainer) -> ResumableLoader:
    loader = trainer.train_dataloader
    if not isinstance(loader, ResumableLoader):
        raise ValueError("this checkpoint is from the middle of an epoch; wanted a ResumableLoader to continue there.")
    return loader
