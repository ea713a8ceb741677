"""The task of `neuralode fit`, and what `forecast`, `impute` and `evaluate` do with its runs.

::

    config.json          options, and a digest of the table
    metrics.csv          one row per epoch
    estimator.json       the forecaster, with weights-….safetensors beside it
    evaluation.csv       errors on held-out data, beside those of the baselines
    summary.json         number of epochs, seconds, sizes
    forecast.csv  imputed.csv  plots/*.png
    checkpoints/         to resume from, until the training is done
"""

from __future__ import annotations

import json
import math
import shutil
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import lightning as L
import numpy as np
import pandas as pd
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch.callbacks import Callback

from neuralode.data.tables.series import SeriesTable, read_series
from neuralode.data.tables.source import TableFile, read_table, read_table_file
from neuralode.estimators.constraints import check_parameters
from neuralode.estimators.forecaster.estimator import LatentODEForecaster
from neuralode.estimators.forecaster.output_tables import unused_name
from neuralode.estimators.forecaster.plots import MAX_SERIES, plot_predictions
from neuralode.estimators.isolation import seed_from
from neuralode.estimators.serialization import to_json
from neuralode.tasks.base import FitSession
from neuralode.tasks.fit.config import RUN_TASKS, SeriesConfig
from neuralode.training.config_io import load_config
from neuralode.training.fit import FitResult
from neuralode.training.history import History
from neuralode.training.run import Run, versions

PACKAGES = ("neuralode", "torch", "lightning", "pandas")  # whose versions are saved
GRID_POINTS = 200  # per series in a figure


@dataclass(frozen=True, eq=False)
class SeriesTask:
    """Fit a `LatentODEForecaster` to a table, in the stages "first", with data held out, and "refit".

    Parameters
    ----------
    config : SeriesConfig
        Options.
    file : TableFile
        The table and the digest of its file, which is read once.
    table : SeriesTable
        The same table as series.
    forecaster : LatentODEForecaster
        The estimator.
    started : float
        Start time, from `time.perf_counter`.
    """

    config: SeriesConfig
    file: TableFile
    table: SeriesTable
    forecaster: LatentODEForecaster
    started: float

    run_tasks: ClassVar[Sequence[str]] = RUN_TASKS
    command: ClassVar[str] = "neuralode fit"

    @classmethod
    def load_config(cls, run: Run) -> SeriesConfig:  # noqa: D102
        return load_config(run, SeriesConfig, tasks=cls.run_tasks, command=cls.command, sections=("asked",))

    @classmethod
    def is_done(cls, run: Run, config: SeriesConfig) -> bool:
        """Return False: `check_run` rejects finished runs, after it has compared their table."""
        return False

    @classmethod
    def prepare(cls, config: SeriesConfig) -> SeriesTask:  # noqa: D102
        file = read_table_file(Path(config.data))
        table = read_series(file.table, series=config.series, time=config.time, values=config.values)
        forecaster = LatentODEForecaster(
            window=config.window, latent=config.latent, recognition=config.recognition,
            learning_rate=config.learning_rate, batch_size=config.batch_size, max_epochs=config.epochs,
            patience=config.patience, holdout=config.holdout, refit=config.refit, random_state=config.seed,
            accelerator=config.accelerator,
        )  # fmt: skip
        _check(forecaster, table)
        return cls(config, file, table=table, forecaster=forecaster, started=time.perf_counter())

    def describe(self) -> Mapping[str, Any]:  # noqa: D102
        return {
            "task": RUN_TASKS[0],
            "asked": {**asdict(self.config), "data": str(Path(self.config.data).resolve())},
            "digest": self.file.digest,
            "versions": versions(*PACKAGES),
        }

    def check_run(self, run: Run) -> None:  # noqa: D102
        _check_task(run)
        if run.config.get("digest") != self.file.digest:
            raise ValueError(
                f"{self.config.data} is not the table that {run.folder} was started with; wanted it unchanged."
            )
        if run.finished:
            raise ValueError(f"{run.folder} is finished: there is nothing to resume.")

    def fit(self, run: Run, session: FitSession) -> FitResult:  # noqa: D102
        def callbacks(stage: str) -> list[Callback]:
            history = [History(run, session.on_epoch)] if stage == "first" else []
            return [*history, *session.callbacks_of(stage)]

        # All columns are named, so that a data frame is treated as the file itself would be.
        columns = {"series": self.config.series, "time": self.config.time, "values": self.table.channels}
        model = self.forecaster.fit(self.file.table, **columns, checkpoints=run.checkpoints, callbacks=callbacks)
        return FitResult(model.n_iter_, math.nan, best_epoch=model.n_iter_, interrupted=model.interrupted_)

    def save(self, run: Run) -> None:  # noqa: D102
        self.forecaster.save(run.folder)

    def evaluate(self, run: Run, result: FitResult) -> Mapping[str, Any]:  # noqa: D102
        self.forecaster.evaluation_.to_csv(run.folder / "evaluation.csv", index=False)
        return {
            "series": len(self.table),
            "observations": int(sum(np.isfinite(values).sum() for values in self.table.values)),
            "channels": list(self.table.channels),
            "epochs": result.epochs,
            "seconds": round(time.perf_counter() - self.started, 2),
            "interrupted": result.interrupted,
            "parameters": sum(parameter.numel() for parameter in self.forecaster.network_.parameters()),
            "setup": asdict(self.forecaster.setup_),
        }

    def plot(self, run: Run) -> None:  # noqa: D102
        table = self.forecaster.table_
        plot_predictions(
            table, _predict_on_grid(self.forecaster, table, 0), run.plots / "fit.png", title="what was learned from"
        )

    def finish(self, run: Run, result: FitResult) -> None:  # noqa: D102
        if not result.interrupted:
            shutil.rmtree(run.checkpoints, ignore_errors=True)


def forecast(run: Run, horizon: int, data: Path | None = None) -> pd.DataFrame:
    """Forecast ``horizon`` steps beyond the end of each series; add the table and a figure to the run."""
    model = load(run)
    table = model.read(data)
    frame = model.forecast(table, horizon=horizon)
    frame.to_csv(run.folder / "forecast.csv", index=False)
    plot_predictions(table, _predict_on_grid(model, table, horizon), run.plots / "forecast.png", title="forecast")
    return frame


def impute(run: Run, data: Path | None = None) -> pd.DataFrame:
    """Fill the gaps of the table; add the result and a figure to the run."""
    model = load(run)
    source = None if data is None else read_table(data)
    table = model.read(source)
    frame = model.impute(source)
    if table.time_column is None:  # times are the index
        position = 0 if table.series_column is None else 1
        frame.insert(position, unused_name(str(frame.index.name or "time"), map(str, frame.columns)), frame.index)
    frame.to_csv(run.folder / "imputed.csv", index=False)
    plot_predictions(table, _predict_on_grid(model, table, 0), run.plots / "imputed.png", title="gaps filled")
    return frame


def evaluate(run: Run, data: Path | None = None) -> pd.DataFrame:
    """Return errors on the data held out from training, or on the ends of the series of another table."""
    model = load(run)
    return model.evaluation_ if data is None else model.evaluate(data)


def load(run: Run) -> LatentODEForecaster:
    """Return the forecaster of a run."""
    _check_task(run)
    if not (run.folder / "estimator.json").is_file():
        raise FileNotFoundError(f"{run.folder} has no forecaster yet: resume its training by --resume.")
    return LatentODEForecaster.load(run.folder)


def _check_task(run: Run) -> None:
    if (task := run.config.get("task")) not in RUN_TASKS:
        raise ValueError(f"{run.folder} is a run of {task!r}; wanted one of `{SeriesTask.command}`.")


def _check(model: LatentODEForecaster, table: SeriesTable) -> None:
    """Reject before training whatever would fail afterwards."""
    check_parameters(model)
    seed_from(model.random_state)
    try:
        if model.accelerator != "cpu":
            L.Trainer(accelerator=model.accelerator, devices=1, logger=False, enable_checkpointing=False)
    except (MisconfigurationException, ValueError) as error:
        raise ValueError(f"accelerator={model.accelerator!r} cannot be used here: {error}") from error
    try:
        json.dumps(to_json(list(table.names)))
    except TypeError as error:
        kind = type(table.names[0]).__name__
        raise TypeError(f"series ids have type {kind}, which cannot be saved; wanted text or numbers.") from error


def _predict_on_grid(model: LatentODEForecaster, table: SeriesTable, horizon: int) -> pd.DataFrame:
    """Return predictions on a fine grid over each series that is plotted, and ``horizon`` steps beyond."""
    first = slice(MAX_SERIES)
    plotted = replace(table, names=table.names[first], times=table.times[first], values=table.values[first])
    ends = [t[-1] + horizon * model.setup_.spacing for t in plotted.times]
    grids = [np.linspace(t[0], end, GRID_POINTS) for t, end in zip(plotted.times, ends, strict=True)]
    labels = {name: plotted.clock.labels(grid) for name, grid in zip(plotted.names, grids, strict=True)}
    return model.predict(plotted, labels)
