"""The task `neuralode train digits`: classify scikit-learn's handwritten digits."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any, cast

import lightning as L
import torch
from lightning.pytorch.callbacks import Callback, EarlyStopping, ModelCheckpoint
from torch import nn
from torch.utils.data import DataLoader

from neuralode.data import Split, digits, write_again
from neuralode.nn import MODELS, ode_blocks
from neuralode.registry import pick
from neuralode.train.classifier import Batch, Classifier
from neuralode.train.config import SOLVER, Digits
from neuralode.train.history import History
from neuralode.train.interrupt import fit_until_interrupted
from neuralode.train.plots import plot_history, plot_tolerances
from neuralode.train.run import Run, versions, write_csv
from neuralode.train.sweep import RTOLS, Point, sweep

CLASSES = 10


def train(
    wanted: Digits,
    folder: Path,
    *,
    resume: bool = False,
    callbacks: Sequence[Callback] = (),
    tell: Callable[[dict[str, float]], None] | None = None,
) -> Run:
    """Train, keep the weights of the epoch with the lowest validation loss, and measure them on the test images once.

    Parameters
    ----------
    wanted : Digits
        What to do.
    folder : Path
        Where the run goes; it must not hold one already, unless ``resume``.
    resume : bool
        Go on from the last checkpoint in ``folder``.
    callbacks : sequence of Callback
        Lightning's: a progress bar, for one.
    tell : callable, optional
        Called with the figures of each epoch.

    Returns
    -------
    Run
        Its ``summary.json`` holds ``test_accuracy`` and the rest. Ctrl-C ends the training, not this function: the
        summary then says ``"interrupted": true``.
    """
    L.seed_everything(wanted.seed, workers=True, verbose=False)
    model = build(wanted)
    with torch.no_grad():
        model(torch.zeros(2, 1, 8, 8))  # what the solver refuses, it refuses here, before a folder is made

    run = Run(folder)
    best = ModelCheckpoint(run.checkpoints, "best", monitor="val_loss", enable_version_counter=False)
    latest = ModelCheckpoint(run.checkpoints, "last", enable_version_counter=False)  # every epoch, to go on from
    stop = EarlyStopping("val_loss", patience=wanted.patience)
    trainer = L.Trainer(
        accelerator=wanted.accelerator,
        devices=wanted.devices,
        precision=cast(Any, wanted.precision),  # Lightning checks it
        max_epochs=wanted.epochs,
        limit_train_batches=wanted.batches,
        callbacks=[best, latest, stop, History(run, tell), *callbacks],
        logger=False,
        num_sanity_val_steps=0,
        enable_model_summary=False,
        enable_progress_bar=tell is None,
        default_root_dir=folder,
    )
    if trainer.is_global_zero and not resume:
        Run.create(folder, _config(wanted, model))
    last = run.checkpoints / "last.ckpt"
    if resume and not last.exists():
        raise FileNotFoundError(f"{folder} has no checkpoint to go on from: not one epoch of it was finished.")
    task = Classifier(model, classes=CLASSES, learning_rate=wanted.learning_rate)
    data = DigitsData(digits(wanted.seed), wanted.batch_size)

    started = time.perf_counter()
    interrupted = fit_until_interrupted(trainer, task, data, last if resume else None)
    took = {"epochs": len(run.metrics), "seconds": round(time.perf_counter() - started, 2), "interrupted": interrupted}

    if best.best_model_path:
        task.load_state_dict(torch.load(best.best_model_path, weights_only=True)["state_dict"])
    [test] = trainer.test(task, data, verbose=False)
    if trainer.is_global_zero:
        run.write_weights(model)
        run.write_summary({**test, "parameters": sum(p.numel() for p in model.parameters()), **took})
        plot_history(run.metrics, run.plots)
    return run


def evaluate(run: Run, rtols: Sequence[float] = RTOLS) -> list[Point]:
    """Solve the trained model of ``run`` at each of ``rtols`` on the test images; add table and picture to the run."""
    model, split = load(run)
    images, labels = split.test.tensors
    points = sweep(model, images, labels, rtols)
    write_csv(run.folder / "tolerances.csv", [asdict(point) for point in points])
    plot_tolerances(points, run.plots)
    return points


def load(run: Run) -> tuple[nn.Module, Split]:
    """Return the trained model of ``run``, and the split it was trained on."""
    wanted = asked(run)
    model = build(wanted)
    run.read_weights(model)
    return model.eval(), digits(wanted.seed)


def asked(run: Run) -> Digits:
    """Return what ``run`` was asked to do, names made concrete."""
    config = run.config
    return Digits(model=config["model"], **(config["solver"] or {}), **config["training"])


def takes_tolerances(run: Run) -> bool:
    """Whether the model of ``run`` has an ODE inside that is solved to a tolerance."""
    solver = run.config["solver"]
    return solver is not None and solver["step_size"] is None


def build(wanted: Digits) -> nn.Module:
    """Return the untrained model; `ValueError` where its name is unknown.

    Examples
    --------
    >>> build(Digits(model="resnet1"))(torch.zeros(3, 1, 8, 8)).shape
    torch.Size([3, 10])
    """
    make = pick("model", wanted.model, MODELS, (type, partial))
    model = make(classes=CLASSES, downsample=1)  # an 8 x 8 image leaves the stem as 3 x 3 feature maps
    for block in ode_blocks(model):
        block.gradient = wanted.gradient or block.gradient
        block.method, block.engine, block.step_size = wanted.method, wanted.engine, wanted.step_size
        block.rtol, block.atol = wanted.rtol, wanted.rtol if wanted.atol is None else wanted.atol
    return model


class DigitsData(L.LightningDataModule):
    """The three parts of the digits in batches; while training, every image is seen a little changed."""

    def __init__(self, split: Split, batch_size: int) -> None:
        super().__init__()
        self.split = split
        self.batch_size = batch_size

    def train_dataloader(self) -> DataLoader:  # noqa: D102
        return DataLoader(self.split.train, self.batch_size, shuffle=True)

    def val_dataloader(self) -> DataLoader:  # noqa: D102
        return DataLoader(self.split.validation, len(self.split.validation))

    def test_dataloader(self) -> DataLoader:  # noqa: D102
        return DataLoader(self.split.test, len(self.split.test))

    def on_after_batch_transfer(self, batch: Batch, dataloader_idx: int) -> Batch:  # noqa: D102
        images, labels = batch
        assert self.trainer is not None
        return (write_again(images) if self.trainer.training else images), labels


def _config(wanted: Digits, model: nn.Module) -> dict[str, Any]:
    blocks = ode_blocks(model)
    asked = asdict(replace(wanted, gradient=blocks[0].gradient, atol=blocks[0].atol) if blocks else wanted)
    return {
        "task": "digits",
        "model": asked.pop("model"),
        "solver": {name: asked.pop(name) for name in SOLVER} if blocks else None,
        "training": {name: value for name, value in asked.items() if name not in SOLVER},
        "versions": versions("neuralode", "torch", "lightning", "torchmetrics", "scikit-learn"),
    }
