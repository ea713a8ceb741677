"""The task of `neuralode train spirals`: observe a noisy, irregular window of a spiral, and forecast as much again.

This is Table 2 of Chen et al. [1]_: the error of forecasts beyond the window. The paper does not state where windows
start, how many series are held out, or what the error is measured against; `neuralode.data.spirals` defines that. Of
the 1,000 training series one in ten selects the best epoch; the 500 test series are used once.

References
----------
.. [1] R. T. Q. Chen, Y. Rubanova, J. Bettencourt, D. Duvenaud, "Neural Ordinary Differential Equations", NeurIPS 2018,
   section 5.1.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, ClassVar

import lightning as L
import torch
from jaxtyping import Float
from torch import Tensor

from neuralode.core.registry import pick
from neuralode.data.spirals import BEYOND, WINDOW, Spirals
from neuralode.nn import Observations
from neuralode.tasks.base import LightningTask
from neuralode.tasks.spirals.config import RUN_TASKS, SOLVER, SpiralsConfig
from neuralode.tasks.spirals.data import (
    SCALE,
    SpiralsData,
    load_test_series,
    load_training_series,
    scale,
    validation_mask,
)
from neuralode.tasks.spirals.metrics import best_forecasts, errors
from neuralode.tasks.spirals.models import AutoregressiveRNN, latent_ode
from neuralode.tasks.spirals.module import LatentODEModule, RecurrentModule, SpiralsModule
from neuralode.tasks.spirals.plots import HISTORY_PLOTS, plot_forecasts
from neuralode.training.config_io import load_config
from neuralode.training.fit import FitOptions, FitResult
from neuralode.training.plots import HistoryPlot
from neuralode.training.preflight import check_learning_rate
from neuralode.training.run import Run, versions


@dataclass(frozen=True, eq=False)
class SpiralsTask(LightningTask[SpiralsConfig]):
    """Forecast spirals; ``summary.json`` holds the errors, see `neuralode.tasks.spirals.metrics.errors`."""

    module: SpiralsModule
    data: SpiralsData

    run_tasks: ClassVar[Sequence[str]] = RUN_TASKS
    command: ClassVar[str] = "neuralode train spirals"
    history_plots: ClassVar[Sequence[HistoryPlot]] = HISTORY_PLOTS

    @property
    def model(self) -> SpiralsModule:  # noqa: D102
        return self.module

    @classmethod
    def load_config(cls, run: Run) -> SpiralsConfig:  # noqa: D102
        return load_config(
            run,
            SpiralsConfig,
            tasks=cls.run_tasks,
            command=cls.command,
            names={"model": "model"},
            sections=("solver", "training"),
        )

    @classmethod
    def prepare(cls, config: SpiralsConfig) -> SpiralsTask:  # noqa: D102
        check_learning_rate(config.learning_rate)
        L.seed_everything(config.seed, workers=True, verbose=False)
        module = build(config)
        observed = load_training_series(config)
        validates = validation_mask(len(observed))
        data = SpiralsData(
            observed[~validates],
            observed[validates],
            batches=config.batches,
            size=config.batch_size,
            # A recurrent network learns every prediction from full windows; shorter ones would only drop data.
            shorter=config.shorter if isinstance(module, LatentODEModule) else 0.0,
            seed=config.seed,
        )
        options = FitOptions(
            config.epochs,
            config.epochs,
            accelerator=config.accelerator,
            devices=config.devices,
            precision=config.precision,
        )
        return cls(config, module, data=data, options=options)

    def describe(self) -> Mapping[str, Any]:  # noqa: D102
        return describe(self.config)

    def evaluate(self, run: Run, result: FitResult) -> Mapping[str, Any]:  # noqa: D102
        test = load_test_series(self.config)
        return {
            **errors(forecasts(self.module, test.observed), test),
            "floor_rmse": errors(best_forecasts(test), test)["test_rmse"],
            **self.training_summary(run, result),
        }

    def plot(self, run: Run) -> None:  # noqa: D102
        super().plot(run)
        test = load_test_series(self.config)
        sampled = sample_forecasts(self.module, test.observed)
        plot_forecasts(test, forecasts(self.module, test.observed), sampled, folder=run.plots)


def load(run: Run) -> tuple[SpiralsModule, Spirals]:
    """Return the trained module of a run, and its test series."""
    config = SpiralsTask.load_config(run)
    module = build(config)
    run.read_weights(module)
    return module.eval(), load_test_series(config)


def describe(config: SpiralsConfig) -> dict[str, Any]:
    """Return the content of ``config.json``."""
    options = asdict(config)
    solver = {name: options.pop(name) for name in SOLVER}
    return {
        "task": RUN_TASKS[0],
        "model": options.pop("model"),
        "solver": solver if config.model == "latent-ode" else None,
        "training": options,
        "versions": versions("neuralode", "torch", "lightning"),
    }


def build(config: SpiralsConfig) -> SpiralsModule:
    """Return the untrained module; `ValueError` if the name of its model is unknown.

    Examples
    --------
    >>> sum(p.numel() for p in build(SpiralsConfig()).parameters())
    13598
    """
    return pick("model", config.model, MODULES, kind=type)(config)


@torch.no_grad()
def forecasts(module: SpiralsModule, observed: Observations) -> Float[Tensor, "series 200 2"]:
    """Return the expected points within the window and beyond."""
    return SCALE * module.forecast(scale(observed), _time_grid())


@torch.no_grad()
def sample_forecasts(
    module: SpiralsModule, observed: Observations, samples: int = 20
) -> Float[Tensor, "samples series 200 2"] | None:
    """Return curves for initial states drawn from the posterior, or None if the model has no posterior."""
    if not isinstance(module, LatentODEModule):
        return None
    z0 = module.model.encode(scale(observed)).sample(torch.Size((samples,)))
    z = module.model.follow(z0, observed.start, _time_grid().expand(len(observed), -1)).z
    return SCALE * module.model.likelihood.mean(module.model.decode(z))


def _time_grid() -> Tensor:
    return torch.arange(WINDOW + BEYOND, dtype=torch.float64) / WINDOW


def _latent_ode_module(config: SpiralsConfig) -> SpiralsModule:
    return LatentODEModule(latent_ode(config), config.learning_rate, config.consistency)


def _recurrent_module(config: SpiralsConfig) -> SpiralsModule:
    return RecurrentModule(AutoregressiveRNN(2, config.hidden, config.width), config.learning_rate)


MODULES: Mapping[str, Callable[[SpiralsConfig], SpiralsModule]] = {
    "latent-ode": _latent_ode_module,
    "rnn": _recurrent_module,
}
