"""The tasks `neuralode train digits`, `mnist` and `fashion-mnist`: classify images, by default with an ODE-Net."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, cast

import lightning as L
import torch
from lightning.pytorch.callbacks import Callback
from torch import Tensor, nn
from torch.utils.data import BatchSampler, DataLoader, RandomSampler, TensorDataset

from neuralode.core.registry import pick
from neuralode.data import Split, digits, write_again
from neuralode.data.crop import random_crop
from neuralode.data.mnist import fashion_mnist, mnist
from neuralode.nn import MODELS, ode_blocks
from neuralode.tasks.config import SOLVER, Images
from neuralode.tasks.images.module import Batch, Classifier
from neuralode.tasks.images.plots import HISTORY, plot_tolerances
from neuralode.tasks.images.tolerance_sweep import RTOLS, Point, sweep
from neuralode.training.config_io import is_done
from neuralode.training.config_io import load_config as read_asked
from neuralode.training.device import SILENT, check_device, quiet
from neuralode.training.fit import FitOptions, fit, is_global_zero
from neuralode.training.plots import plot_history
from neuralode.training.record_run import check_rate, course, into
from neuralode.training.resumable_loader import ResumableLoader
from neuralode.training.run import Run, versions, write_csv

CLASSES = 10
AT_ONCE = 1000  # images a batch where nothing is differentiated


@dataclass(frozen=True)
class ImageSet:
    """Images of ten classes.

    Parameters
    ----------
    split : callable
        From a seed to their three parts.
    changed : callable
        A batch to learn from, as it is seen: every image a little changed, each time anew.
    size : int
        Pixels a side.
    downsample : int
        How often the stem of a model halves them.
    """

    split: Callable[[int], Split]
    changed: Callable[[Tensor], Tensor]
    size: int
    downsample: int


SETS: Mapping[str, ImageSet] = {
    "digits": ImageSet(digits, write_again, size=8, downsample=1),  # leaves the stem as 3 x 3 feature maps
    "mnist": ImageSet(mnist, random_crop, size=28, downsample=2),
    "fashion-mnist": ImageSet(fashion_mnist, random_crop, size=28, downsample=2),
}


def train(
    wanted: Images,
    folder: Path,
    *,
    resume: bool = False,
    callbacks: Sequence[Callback] = (),
    tell: Callable[[dict[str, float]], None] | None = None,
) -> Run:
    """Train, keep the weights of the epoch with the lowest validation loss, and measure them on the test images once.

    Parameters
    ----------
    wanted : Images
        What to do.
    folder : Path
        Where the run goes; it must not hold one already, unless ``resume``.
    resume : bool
        Go on from the last checkpoint in ``folder``, or begin where there is none; a run that is finished is returned
        as it is.
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
    run = Run(folder)
    if resume and is_done(run, wanted, asked):
        return run
    check_rate(wanted.learning_rate)
    L.seed_everything(wanted.seed, workers=True, verbose=False)
    images = pick("data", wanted.data, SETS, ImageSet)
    model = build(wanted)
    with torch.no_grad():
        model(torch.zeros(2, 1, images.size, images.size))  # what the solver refuses, it refuses here
    check_device(wanted.accelerator, wanted.devices, wanted.precision)
    split = images.split(wanted.seed)
    if is_global_zero() and not resume:
        Run.create(folder, _config(wanted, model))

    task = Classifier(model, classes=CLASSES, learning_rate=wanted.learning_rate)
    data = ImagesData(split, wanted.batch_size, images.changed, wanted.channels_last)
    fitted = fit(
        task,
        data,
        _effort(wanted),
        **into(run, resume, callbacks, tell),
    )
    test = _tested(wanted, task, data)
    if is_global_zero():
        run.write_weights(model)
        plot_history(run.metrics, run.plots, HISTORY)
        run.write_summary(  # the last of all: a run that has it is finished
            {
                **test,
                **course(run, model, fitted),
            }
        )
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
    return model.eval(), SETS[wanted.data].split(wanted.seed)


def asked(run: Run) -> Images:
    """Return what ``run`` was asked to do, names made concrete; `ValueError` where its config was damaged."""
    names = {"data": "task", "model": "model"}
    command = "neuralode train " + ", ".join(SETS)
    return read_asked(run, Images, tasks=SETS, command=command, names=names, sections=("solver", "training"))


def takes_tolerances(run: Run) -> bool:
    """Whether the model of ``run`` has an ODE inside that is solved to a tolerance."""
    solver = run.config["solver"]
    return solver is not None and solver["step_size"] is None


def build(wanted: Images) -> nn.Module:
    """Return the untrained model; `ValueError` where its name is unknown.

    Examples
    --------
    >>> build(Images(model="resnet1"))(torch.zeros(3, 1, 8, 8)).shape
    torch.Size([3, 10])
    >>> sum(p.numel() for p in build(Images(data="mnist")).parameters())
    208266
    """
    make = pick("model", wanted.model, MODELS, (type, partial))
    model = make(classes=CLASSES, downsample=pick("data", wanted.data, SETS, ImageSet).downsample)
    for block in ode_blocks(model):
        block.gradient = wanted.gradient or block.gradient
        block.method, block.engine, block.step_size = wanted.method, wanted.engine, wanted.step_size
        block.rtol, block.atol = wanted.rtol, wanted.rtol if wanted.atol is None else wanted.atol
    return cast(Any, model).to(memory_format=torch.channels_last) if wanted.channels_last else model


class ImagesData(L.LightningDataModule):
    """The three parts of a set in batches.

    Parameters
    ----------
    split : Split
        The parts.
    batch_size : int
        Images a batch, where they are learned from.
    changed : callable
        How a batch is seen that is learned from.
    channels_last : bool
        Keep the channels of a pixel together in memory.
    """

    def __init__(
        self, split: Split, batch_size: int, changed: Callable[[Tensor], Tensor], channels_last: bool = False
    ) -> None:
        super().__init__()
        self.split, self.batch_size, self.changed = split, batch_size, changed
        self.channels_last = channels_last

    def train_dataloader(self) -> ResumableLoader[Batch] | DataLoader:  # noqa: D102
        assert self.trainer is not None
        if self.trainer.world_size > 1:  # Lightning deals the images out, if the loader is one that it knows
            return DataLoader(self.split.train, self.batch_size, shuffle=True)
        order = BatchSampler(RandomSampler(self.split.train), self.batch_size, drop_last=False)
        # rows are cut from tensors at once, rather than one by one
        return ResumableLoader(DataLoader(self.split.train, sampler=order, batch_size=None))

    def val_dataloader(self) -> DataLoader:  # noqa: D102
        return _in_turn(self.split.validation)

    def test_dataloader(self) -> DataLoader:  # noqa: D102
        return _in_turn(self.split.test)

    def on_after_batch_transfer(self, batch: Batch, dataloader_idx: int) -> Batch:  # noqa: D102
        images, labels = batch
        assert self.trainer is not None
        images = self.changed(images) if self.trainer.training else images
        return (images.contiguous(memory_format=torch.channels_last) if self.channels_last else images), labels


def _in_turn(part: TensorDataset) -> DataLoader:
    return DataLoader(part, min(len(part), AT_ONCE))


def _effort(wanted: Images) -> FitOptions:
    return FitOptions(
        wanted.epochs,
        wanted.patience,
        wanted.accelerator,
        wanted.devices,
        wanted.precision,
        clip=None,
        batches=wanted.batches,
        checkpoint_every=wanted.checkpoint_every,
    )


def _tested(wanted: Images, task: Classifier, data: ImagesData) -> Mapping[str, float]:
    with quiet():
        trainer = L.Trainer(
            accelerator=wanted.accelerator,
            devices=wanted.devices,
            precision=cast(Any, wanted.precision),
            logger=False,
            **SILENT,
        )
        [figures] = trainer.test(task, data, verbose=False)
    return figures


def _config(wanted: Images, model: nn.Module) -> dict[str, Any]:
    blocks = ode_blocks(model)
    asked = asdict(replace(wanted, gradient=blocks[0].gradient, atol=blocks[0].atol) if blocks else wanted)
    return {
        "task": asked.pop("data"),
        "model": asked.pop("model"),
        "solver": {name: asked.pop(name) for name in SOLVER} if blocks else None,
        "training": {name: value for name, value in asked.items() if name not in SOLVER},
        "versions": versions("neuralode", "torch", "lightning", "torchmetrics", "scikit-learn"),
    }
