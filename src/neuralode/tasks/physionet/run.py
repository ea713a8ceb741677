"""The task of `neuralode train physionet`: irregular series of intensive care patients.

Mortality follows the comparison of Rubanova et al. [1]_: sets a and b, times rounded to 6 minutes, and a fifth of the
patients for the test, measured by the area under the ROC curve. An eighth of the others selects the best epoch, so that
the test patients are used once. For the other task see `neuralode.tasks.physionet.interpolation`.

References
----------
.. [1] Y. Rubanova, R. T. Q. Chen, D. Duvenaud, "Latent ODEs for irregularly-sampled time series", NeurIPS 2019.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import lightning as L
import numpy as np
from torch import Tensor, nn

from neuralode.core.registry import pick
from neuralode.data.physionet import Patients
from neuralode.nn import ODERNN, LatentODE
from neuralode.tasks.base import LightningTask
from neuralode.tasks.physionet.config import RUN_TASKS, SOLVER, PhysioNetConfig
from neuralode.tasks.physionet.data import SplitPatients, load_patients
from neuralode.tasks.physionet.interpolation import (
    InterpolationModule,
    interpolation_metrics,
    latent_ode,
    scale_to_unit,
)
from neuralode.tasks.physionet.mortality import (
    death_probabilities,
    gru_decay_classifier,
    mortality_metrics,
    ode_rnn,
    ode_rnn_classifier,
    rnn_classifier,
    standardize,
)
from neuralode.tasks.physionet.plots import INTERPOLATION_PLOTS, MORTALITY_PLOTS, plot_roc
from neuralode.training.config_io import load_config
from neuralode.training.fit import FitOptions, FitResult
from neuralode.training.modules.series_classification import SeriesClassificationData, SeriesClassificationModule
from neuralode.training.plots import HistoryPlot, plot_history
from neuralode.training.preflight import check_learning_rate
from neuralode.training.run import Run, versions

PACKAGES = ("neuralode", "torch", "lightning", "torchmetrics", "pandas")  # whose versions are saved


@dataclass(frozen=True, eq=False)
class PhysioNetTask(LightningTask[PhysioNetConfig]):
    """Predict mortality or reconstruct series; ``summary.json`` has the test results of the `Problem`."""

    module: SeriesClassificationModule | InterpolationModule
    data: SeriesClassificationData
    problem: Problem
    patients: SplitPatients

    run_tasks: ClassVar[Sequence[str]] = RUN_TASKS
    command: ClassVar[str] = "neuralode train physionet"

    @property
    def model(self) -> nn.Module:  # noqa: D102
        return self.module.model

    @classmethod
    def load_config(cls, run: Run) -> PhysioNetConfig:  # noqa: D102
        return load_config(
            run,
            PhysioNetConfig,
            tasks=cls.run_tasks,
            command=cls.command,
            names={"model": "model"},
            sections=("solver", "training"),
        )

    @classmethod
    def prepare(cls, config: PhysioNetConfig) -> PhysioNetTask:  # noqa: D102
        check_learning_rate(config.learning_rate)
        problem = pick("task", config.task, PROBLEMS, kind=Problem)
        make = pick("model", config.model, problem.models, kind=type)
        patients = load_patients(config, problem.scale)
        L.seed_everything(config.seed, workers=True, verbose=False)
        model = make(config, patients.channels, patients.covariates)
        options = FitOptions(
            config.epochs,
            config.patience,
            accelerator=config.accelerator,
            devices=config.devices,
            precision=config.precision,
        )
        return cls(
            config,
            problem.module(config, model),
            data=SeriesClassificationData(patients.train, patients.validation, config.batch_size),
            options=options,
            problem=problem,
            patients=patients,
        )

    def describe(self) -> Mapping[str, Any]:  # noqa: D102
        options = asdict(self.config)
        has_ode = any(isinstance(part, ODERNN) for part in self.model.modules())
        return {
            "task": RUN_TASKS[0],
            "model": options.pop("model"),
            "solver": {name: options.pop(name) for name in SOLVER} if has_ode else None,
            "training": {name: value for name, value in options.items() if name not in SOLVER},
            "versions": versions(*PACKAGES),
        }

    def evaluate(self, run: Run, result: FitResult) -> Mapping[str, Any]:  # noqa: D102
        seconds = np.median([row["seconds"] for row in run.metrics] or [0.0])
        return {
            **self.problem.metrics(self.model, self.patients.test),
            "patients": {name: len(rows) for name, rows in self.patients.split._asdict().items()},
            "seconds_per_epoch": round(float(seconds), 3),
            **self.training_summary(run, result),
        }

    def plot(self, run: Run) -> None:  # noqa: D102
        plot_history(run.metrics, run.plots, self.problem.history_plots)
        self.problem.plot(self.model, self.patients.test, run.plots)


@dataclass(frozen=True)
class Problem:
    """What differs between mortality and interpolation.

    Parameters
    ----------
    models : mapping
        Models by name; each is a function of config, number of channels and number of covariates.
    scale : callable
        ``scale(patients, train)`` returns the patients as the model receives them, given the training rows.
    module : callable
        ``module(config, model)`` returns the Lightning module.
    metrics : callable
        ``metrics(model, patients)`` returns the results on test patients.
    history_plots : sequence of HistoryPlot
        Metrics to plot over epochs.
    plot : callable
        ``plot(model, patients, folder)`` writes further figures.
    """

    models: Mapping[str, Callable[[PhysioNetConfig, int, int], nn.Module]]
    scale: Callable[[Patients, Tensor], Patients]
    module: Callable[[PhysioNetConfig, nn.Module], SeriesClassificationModule | InterpolationModule]
    metrics: Callable[[nn.Module, Patients], dict[str, float]]
    history_plots: Sequence[HistoryPlot]
    plot: Callable[[nn.Module, Patients, Path], None]


def load(run: Run) -> tuple[nn.Module, Patients]:
    """Return the trained model of a run, and the test patients as it receives them."""
    config = PhysioNetTask.load_config(run)
    problem = PROBLEMS[config.task]
    patients = load_patients(config, problem.scale)
    model = problem.models[config.model](config, patients.channels, patients.covariates)
    run.read_weights(model)
    return model.eval(), patients.test


def _mortality_module(config: PhysioNetConfig, model: nn.Module) -> SeriesClassificationModule:
    rates = {"learning_rate": config.learning_rate, "weight_decay": config.weight_decay}
    return SeriesClassificationModule(model, classes=2, by="auroc", **rates)


def _plot_roc(model: nn.Module, patients: Patients, folder: Path) -> None:
    plot_roc(death_probabilities(model, patients.observed), patients.died.long(), folder)


def _latent_ode(config: PhysioNetConfig, channels: int, covariates: int) -> nn.Module:
    return latent_ode(channels, config.latent, encoder=ode_rnn(config, channels), width=config.width)


def _scale_to_unit(patients: Patients, train: Tensor) -> Patients:
    return replace(patients, observed=scale_to_unit(patients))


def _interpolation_module(config: PhysioNetConfig, model: nn.Module) -> InterpolationModule:
    assert isinstance(model, LatentODE)
    return InterpolationModule(model, learning_rate=config.learning_rate, weight_decay=config.weight_decay)


def _interpolation_metrics(model: nn.Module, patients: Patients) -> dict[str, float]:
    assert isinstance(model, LatentODE)
    return interpolation_metrics(model, patients.observed)


def _plot_nothing(model: nn.Module, patients: Patients, folder: Path) -> None:
    pass


PROBLEMS: Mapping[str, Problem] = {
    "mortality": Problem(
        models={"odernn": ode_rnn_classifier, "gru-decay": gru_decay_classifier, "rnn": rnn_classifier},
        scale=standardize,
        module=_mortality_module,
        metrics=mortality_metrics,
        history_plots=MORTALITY_PLOTS,
        plot=_plot_roc,
    ),
    "interpolation": Problem(
        models={"latent-ode": _latent_ode},
        scale=_scale_to_unit,
        module=_interpolation_module,
        metrics=_interpolation_metrics,
        history_plots=INTERPOLATION_PLOTS,
        plot=_plot_nothing,
    ),
}
