"""The task of `neuralode train matching`: train a field on the velocities of paths from noise to data, and sample it.

Training needs no solver. Points are drawn from known densities, so that the divergence from the truth can be computed;
digits are sampled by class, with guidance.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, ClassVar

import lightning as L
import numpy as np
import pandas as pd
import torch
from torch import nn

from neuralode.core.registry import pick
from neuralode.data.densities import find_density
from neuralode.nn import flows
from neuralode.nn.flows.coupling import COUPLINGS
from neuralode.tasks.base import LightningTask
from neuralode.tasks.flow_matching.config import RUN_TASKS, FlowMatchingConfig
from neuralode.tasks.flow_matching.data import Examples, FlowMatchingData, load_examples
from neuralode.tasks.flow_matching.metrics import image_metrics, two_sample_test
from neuralode.tasks.flow_matching.module import FlowMatchingModule
from neuralode.tasks.flow_matching.plots import HISTORY_PLOTS, plot_images, plot_points
from neuralode.tasks.flow_matching.sampler import Sampler
from neuralode.training.config_io import load_config
from neuralode.training.fit import FitOptions, FitResult
from neuralode.training.plots import HistoryPlot
from neuralode.training.preflight import check_learning_rate
from neuralode.training.run import Run, versions

SAMPLING = ("grid", "steps", "method", "guidance")  # fields of the config for sampling
SHOWN = 12  # images of each class in the figure


@dataclass(frozen=True, eq=False)
class FlowMatchingTask(LightningTask[FlowMatchingConfig]):
    """Train a field by flow matching; ``summary.json`` has the result of `point_figures` or `image_figures`."""

    module: FlowMatchingModule
    data: FlowMatchingData
    examples: Examples

    run_tasks: ClassVar[Sequence[str]] = RUN_TASKS
    command: ClassVar[str] = "neuralode train matching"
    history_plots: ClassVar[Sequence[HistoryPlot]] = HISTORY_PLOTS

    @property
    def model(self) -> nn.Module:  # noqa: D102
        return self.module.mean

    @property
    def sampler(self) -> Sampler:
        """Sampler of the averaged field."""
        return Sampler(self.module.mean, self.examples, self.config)

    @classmethod
    def load_config(cls, run: Run) -> FlowMatchingConfig:  # noqa: D102
        return load_config(
            run,
            FlowMatchingConfig,
            tasks=cls.run_tasks,
            command=cls.command,
            names={"data": "data"},
            sections=("sampling", "training"),
        )

    @classmethod
    def prepare(cls, config: FlowMatchingConfig) -> FlowMatchingTask:  # noqa: D102
        _check(config)
        L.seed_everything(config.seed, workers=True, verbose=False)
        examples = load_examples(config.data, config.seed)
        module = build(config, examples)
        data = FlowMatchingData(
            examples.standardize(examples.train),
            examples.standardize(examples.validation),
            batches=config.batches,
            size=config.batch_size,
            seed=config.seed,
        )
        options = FitOptions(
            config.epochs,
            config.epochs,
            accelerator=config.accelerator,
            devices=config.devices,
            precision=config.precision,
        )
        task = cls(config, module, data=data, options=options, examples=examples)
        task.sampler.draw(1, generator=torch.Generator())  # raises for invalid sampling options
        return task

    def describe(self) -> Mapping[str, Any]:  # noqa: D102
        return describe(self.config)

    def evaluate(self, run: Run, result: FitResult) -> Mapping[str, Any]:  # noqa: D102
        figures = image_figures if self.examples.classes else point_figures
        return {
            **figures(self.sampler),
            "val_loss": round(result.best, 6),
            "best_epoch": result.best_epoch,
            **self.training_summary(run, result),
        }

    def plot(self, run: Run) -> None:  # noqa: D102
        super().plot(run)
        plot_samples(self.sampler, run.plots)


def load(run: Run) -> Sampler:
    """Return the sampler of a run."""
    config = FlowMatchingTask.load_config(run)
    examples = load_examples(config.data, config.seed)
    field = build(config, examples).mean
    run.read_weights(field)
    return Sampler(field.eval(), examples, config)


def sample(run: Run, count: int, seed: int) -> pd.DataFrame:
    """Return samples of a run: points, or digits of each class in turn with one column per pixel from 0 to 1."""
    sampler = load(run)
    drawn = sampler.draw(count, generator=torch.Generator().manual_seed(seed))
    if not sampler.examples.classes:
        return pd.DataFrame(drawn.numpy(), columns=pd.Index(["x", "y"]))
    pixels = [f"pixel_{row}_{column}" for row in range(drawn.shape[-2]) for column in range(drawn.shape[-1])]
    table = pd.DataFrame(drawn.clamp(0, 1).flatten(1).numpy(), columns=pd.Index(pixels))
    table.insert(0, "class", np.arange(count) % sampler.examples.classes)
    return table


def describe(config: FlowMatchingConfig) -> dict[str, Any]:
    """Return the content of ``config.json``."""
    training = asdict(config)
    return {
        "task": RUN_TASKS[0],
        "model": "flow",
        "data": training.pop("data"),
        "sampling": {name: training.pop(name) for name in SAMPLING},
        "training": training,
        "versions": versions("neuralode", "torch", "lightning"),
    }


def build(config: FlowMatchingConfig, examples: Examples) -> FlowMatchingModule:
    """Return the untrained module; `ValueError` if a name is unknown.

    Examples
    --------
    >>> config = FlowMatchingConfig(width=16, layers=1)
    >>> sum(p.numel() for p in build(config, load_examples("moons", 0)).mean.parameters())
    1986
    """
    return FlowMatchingModule(
        flows.ResidualField(examples.event, config.width, config.layers, classes=examples.classes),
        path=flows.find_path(config.path),
        coupling=pick("coupling", config.coupling, COUPLINGS, kind=()),
        classes=examples.classes,
        dropped=config.dropped,
        averaged=config.averaged,
        learning_rate=config.learning_rate,
    )


def point_figures(sampler: Sampler) -> dict[str, float]:
    """Compare samples with as many test points, and the density with the true one.

    ``test_nats`` is the mean negative log-density of the test points, and ``divergence`` its excess over the entropy of
    the true density: the Kullback-Leibler divergence. Both use `Sampler.log_prob`; the effect of a coarse sampling grid
    shows only in the energy distance.
    """
    [test] = sampler.examples.test
    drawn = sampler.draw(len(test), generator=_generator(sampler))
    nats = float(-sampler.log_prob(test).double().mean())
    divergence = nats - find_density(sampler.config.data).entropy
    return {**two_sample_test(drawn, test), "test_nats": round(nats, 6), "divergence": round(divergence, 6)}


def image_figures(sampler: Sampler) -> dict[str, float]:
    """Evaluate as many samples as there are training images, with the same classes; see `image_metrics`."""
    examples = sampler.examples
    label = examples.train[1]
    drawn = sampler.draw(len(label), label, generator=_generator(sampler))
    return image_metrics(drawn.clamp(0, 1), label, train=examples.train, test=examples.test)


def plot_samples(sampler: Sampler, folder: Path) -> Path:
    """Plot samples, and return the file written."""
    examples, generator = sampler.examples, _generator(sampler)
    if not examples.classes:
        return plot_points(sampler.draw(len(examples.test[0]), generator=generator), examples.test[0], folder)
    label = torch.arange(examples.classes).repeat_interleave(SHOWN)
    images = sampler.draw(len(label), label, generator=generator).clamp(0, 1)
    return plot_images(images.reshape(examples.classes, SHOWN, *examples.event[-2:]), folder)


def _check(config: FlowMatchingConfig) -> None:
    check_learning_rate(config.learning_rate)
    if not math.isfinite(config.guidance):
        raise ValueError(f"guidance={config.guidance!r}; wanted a finite number.")


def _generator(sampler: Sampler) -> torch.Generator:
    return torch.Generator().manual_seed(sampler.config.seed)
