"""The task of `neuralode train digits`, `mnist` and `fashion-mnist`: classify images, by default with an ODE-Net."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import Any, ClassVar, cast

import lightning as L
import torch
from torch import nn

from neuralode.core.registry import pick
from neuralode.data import Split
from neuralode.nn import MODELS, ode_blocks
from neuralode.tasks.base import LightningTask
from neuralode.tasks.images.config import RUN_TASKS, SOLVER, ImagesConfig
from neuralode.tasks.images.data import CLASSES, IMAGE_SETS, ImagesData, ImageSet
from neuralode.tasks.images.module import ImageClassifierModule
from neuralode.tasks.images.plots import HISTORY_PLOTS, plot_tolerances
from neuralode.tasks.images.tolerance_sweep import RTOLS, Point, sweep
from neuralode.training.config_io import load_config
from neuralode.training.device import SILENT, check_device, quiet
from neuralode.training.fit import FitOptions, FitResult
from neuralode.training.plots import HistoryPlot
from neuralode.training.preflight import check_learning_rate
from neuralode.training.run import Run, versions, write_csv

PACKAGES = ("neuralode", "torch", "lightning", "torchmetrics", "scikit-learn")  # whose versions are saved


@dataclass(frozen=True, eq=False)
class ImagesTask(LightningTask[ImagesConfig]):
    """Classify images. The epoch with the lowest validation loss is kept; ``summary.json`` has its test accuracy."""

    module: ImageClassifierModule
    data: ImagesData

    run_tasks: ClassVar[Sequence[str]] = RUN_TASKS
    command: ClassVar[str] = "neuralode train " + ", ".join(RUN_TASKS)
    history_plots: ClassVar[Sequence[HistoryPlot]] = HISTORY_PLOTS

    @property
    def model(self) -> nn.Module:  # noqa: D102
        return self.module.model

    @classmethod
    def load_config(cls, run: Run) -> ImagesConfig:  # noqa: D102
        names = {"data": "task", "model": "model"}
        sections = ("solver", "training")
        return load_config(run, ImagesConfig, tasks=cls.run_tasks, command=cls.command, names=names, sections=sections)

    @classmethod
    def prepare(cls, config: ImagesConfig) -> ImagesTask:  # noqa: D102
        check_learning_rate(config.learning_rate)
        L.seed_everything(config.seed, workers=True, verbose=False)
        images = pick("data", config.data, IMAGE_SETS, kind=ImageSet)
        model = build(config)
        with torch.no_grad():
            model(torch.zeros((2, 1, images.size, images.size)))  # raises for invalid solver options
        check_device(config.accelerator, config.devices, config.precision)
        split = images.split(config.seed)
        module = ImageClassifierModule(model, classes=CLASSES, learning_rate=config.learning_rate)
        data = ImagesData(split, config.batch_size, images.augment, channels_last=config.channels_last)
        return cls(config, module, data=data, options=_fit_options(config))

    def describe(self) -> Mapping[str, Any]:  # noqa: D102
        return describe(self.config, self.model)

    def evaluate(self, run: Run, result: FitResult) -> Mapping[str, Any]:  # noqa: D102
        with quiet():
            trainer = L.Trainer(
                accelerator=self.config.accelerator,
                devices=self.config.devices,
                precision=cast(Any, self.config.precision),
                logger=False,
                **SILENT,
            )
            [metrics] = trainer.test(self.module, self.data, verbose=False)
        return {**metrics, **self.training_summary(run, result)}


def evaluate(run: Run, rtols: Sequence[float] = RTOLS) -> list[Point]:
    """Evaluate the model of a run on the test images at each tolerance; add a table and a figure to the run."""
    model, split = load(run)
    images, labels = split.test.tensors
    points = sweep(model, images, labels, rtols=rtols)
    write_csv(run.folder / "tolerances.csv", [asdict(point) for point in points])
    plot_tolerances(points, run.plots)
    return points


def load(run: Run) -> tuple[nn.Module, Split]:
    """Return the trained model of a run, and its data."""
    config = ImagesTask.load_config(run)
    model = build(config)
    run.read_weights(model)
    return model.eval(), IMAGE_SETS[config.data].split(config.seed)


def has_tolerances(run: Run) -> bool:
    """Return whether the model of a run has an ODE that is solved to a tolerance."""
    solver = run.config["solver"]
    return solver is not None and solver["step_size"] is None


def build(config: ImagesConfig) -> nn.Module:
    """Return the untrained model; `ValueError` if its name is unknown.

    Examples
    --------
    >>> build(ImagesConfig(model="resnet1"))(torch.zeros(3, 1, 8, 8)).shape
    torch.Size([3, 10])
    >>> sum(p.numel() for p in build(ImagesConfig(data="mnist")).parameters())
    208266
    """
    make = pick("model", config.model, MODELS, kind=(type, partial))
    model = make(classes=CLASSES, downsample=pick("data", config.data, IMAGE_SETS, kind=ImageSet).downsample)
    for block in ode_blocks(model):
        block.gradient = config.gradient or block.gradient
        block.method, block.engine, block.step_size = config.method, config.engine, config.step_size
        block.rtol, block.atol = config.rtol, config.rtol if config.atol is None else config.atol
    return cast(Any, model).to(memory_format=torch.channels_last) if config.channels_last else model


def describe(config: ImagesConfig, model: nn.Module) -> dict[str, Any]:
    """Return the content of ``config.json``, with the solver defaults of the model filled in."""
    blocks = ode_blocks(model)
    options = asdict(replace(config, gradient=blocks[0].gradient, atol=blocks[0].atol) if blocks else config)
    return {
        "task": options.pop("data"),
        "model": options.pop("model"),
        "solver": {name: options.pop(name) for name in SOLVER} if blocks else None,
        "training": {name: value for name, value in options.items() if name not in SOLVER},
        "versions": versions(*PACKAGES),
    }


def _fit_options(config: ImagesConfig) -> FitOptions:
    return FitOptions(
        config.epochs,
        config.patience,
        accelerator=config.accelerator,
        devices=config.devices,
        precision=config.precision,
        clip=None,
        batches=config.batches,
        checkpoint_every=config.checkpoint_every,
    )
