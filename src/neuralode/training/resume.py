"""A training that can be killed at any moment: started again, it comes to the weights it would have come to.

All that training depends on goes into each checkpoint: weights, optimizer, schedule, where the loops are, what
callbacks and metrics know, the random generators, the place in the epoch, and the best weights so far. Started again
from one, a training on the CPU takes the same steps to the bit, given the same number of threads and the same versions.

Where trainings run on several devices, and where batches do not come from a `Resumable`, checkpoints are written at the
ends of epochs alone. What a module does in ``on_train_batch_end`` comes after a checkpoint of that batch, and is lost:
it belongs into ``optimizer_step``.
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

from neuralode.training.checkpoints import Checkpoints, CheckpointWarning, Content, counts_alike, expect, has_parts
from neuralode.training.resumable_loader import Place, Resumable
from neuralode.training.rng_state import random_state, set_random_state

SECONDS = 10.0  # of work that a kill costs at most, about
IDENTITY = "identity"  # its place in a checkpoint


class Safekeeping(Checkpoint):
    """Write a checkpoint every so often, and go on from one.

    Parameters
    ----------
    checkpoints : Checkpoints
        Where they are.
    identity : dict of str
        What the training is; one is gone on with only by itself. See `identity_of`.
    every : int, optional
        Steps of the optimizer from one to the next; as many as `SECONDS` have, unless given.
    """

    def __init__(self, checkpoints: Checkpoints, identity: dict[str, str], every: int | None = None) -> None:
        self.checkpoints, self.identity, self.every = checkpoints, identity, every
        self.written, self.started = 0.0, False
        self._within: Place | None = None
        self._found: Content | None = None

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Let all that is random go on where it was."""
        self.written = time.monotonic()
        found, self._found = self._found, None
        if found is None or trainer.world_size > 1:
            return
        set_random_state(found["random"])
        if found["place"] is not None:
            _batches(trainer).go_to(Place(**found["place"]))

    def on_train_batch_end(  # noqa: D102
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        self.started = True
        last = batch_idx + 1 >= trainer.num_training_batches  # then the end of the epoch is as near
        if last or trainer.world_size > 1 or not self._is_due(trainer.global_step):
            return
        if isinstance(trainer.train_dataloader, Resumable):
            self._within = trainer.train_dataloader.place
            self._keep(trainer)
            self._within = None

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:  # noqa: D102
        self._keep(trainer)

    def on_save_checkpoint(self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: Content) -> None:
        """Say whose it is."""
        checkpoint[IDENTITY] = {**self.identity, **conditions()}

    def state_dict(self) -> dict[str, Any]:  # noqa: D102
        place = self._within
        return {"random": random_state(), "place": None if place is None else dict(vars(place))}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:  # noqa: D102
        random, place = state_dict["random"], state_dict["place"]
        expect(random, dict, "random")
        if place is not None:
            expect(place["given"], int, "place")
            expect(place["begun"], dict, "place")
        self._found = state_dict

    def check(self, trainer: L.Trainer, path: Path, content: Content) -> None:
        """Raise `ValueError` where a checkpoint is not one of this training; warn where it cannot go on exactly."""
        has_parts(path, content)
        if not counts_alike(content["loops"].get("fit_loop"), trainer.fit_loop.state_dict()):
            raise ValueError(f"{path} is not a checkpoint of a training: it does not say where that was")
        found = content.get(IDENTITY)
        if not isinstance(found, dict):
            raise ValueError(f"{path} is not a checkpoint of a training: it has no {IDENTITY}")
        for name, wanted in self.identity.items():
            if found.get(name) != wanted:
                raise ValueError(f"{path} is of another training: its {name} differs")
        differ = [f"{name} {str(found.get(name))[:40]!r}, now {now!r}" for name, now in conditions().items()
                  if found.get(name) != now]  # fmt: skip
        if differ:
            warnings.warn(
                f"{path.name} was written with {', '.join(differ)}: the weights that training comes to may differ in "
                "their last bits.",
                CheckpointWarning,
                stacklevel=2,
            )

    def _is_due(self, step: int) -> bool:
        return step % self.every == 0 if self.every else time.monotonic() - self.written > SECONDS

    def _keep(self, trainer: L.Trainer) -> None:
        trainer.save_checkpoint(self.checkpoints.folder / "next")  # the name is found by `Kept`
        self.written = time.monotonic()


class Best(Callback):
    """The weights of the epoch with the lowest validation loss.

    Attributes
    ----------
    score : float
        That loss; NaN as long as there was none.
    epochs : int
        Epochs up to that.
    weights : dict of Tensor
        Of the module, on the CPU; empty as long as there are none.
    """

    def __init__(self) -> None:
        self.score, self.epochs, self.weights = math.nan, 0, {}

    def on_fit_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Refuse weights from a checkpoint that are not of this module."""
        shapes = {name: part.shape for name, part in pl_module.state_dict().items()}
        if self.weights and {name: getattr(part, "shape", None) for name, part in self.weights.items()} != shapes:
            raise ValueError("its best weights are not those of this network")

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:  # noqa: D102
        if "val_loss" not in trainer.callback_metrics:
            raise ValueError(
                f"no val_loss was logged in epoch {trainer.current_epoch + 1}; wanted from validation_step, as what "
                "tells the best epoch."
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
    """Stop once the validation loss has not fallen for some epochs; and not go on after that was seen."""

    def __init__(self, epochs: int) -> None:
        super().__init__("val_loss", patience=epochs)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:  # noqa: D102
        expect(state_dict["wait_count"], int, "wait_count")
        expect(state_dict["patience"], int, "patience")
        expect(expect(state_dict["best_score"], torch.Tensor, "best_score").tolist(), float, "best_score")
        super().load_state_dict(state_dict)

    def on_fit_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """A training that was cut off between this decision and its end is at its end."""
        trainer.should_stop = trainer.should_stop or self.stopping_reason != EarlyStoppingReason.NOT_STOPPED


def identity_of(task: L.LightningModule, belongs_to: str) -> dict[str, str]:
    """What tells the checkpoints of one training from those of others.

    Parameters
    ----------
    task : LightningModule
        What is trained: names and shapes of its parameters.
    belongs_to : str
        Anything else, such as the digest of a run's ``config.json``.
    """
    shapes = [(name, list(part.shape), str(part.dtype)) for name, part in task.state_dict().items()]
    return {"network": hashlib.sha256(repr(shapes).encode()).hexdigest()[:16], "task": belongs_to}


def conditions() -> dict[str, str]:
    """What the bits of a step depend on besides."""
    return {
        "torch": str(torch.__version__),
        "threads": str(torch.get_num_threads()),
        "processor": torch.backends.cpu.get_cpu_capability(),
    }


def _batches(trainer: L.Trainer) -> Resumable:
    batches = trainer.train_dataloader
    if not isinstance(batches, Resumable):
        raise ValueError("this checkpoint is of the middle of an epoch, and these batches begin at its start alone.")
    return batches
