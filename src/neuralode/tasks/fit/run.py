"""A forecaster in a folder: what `neuralode fit`, `forecast`, `impute` and `evaluate` leave behind and read.

::

    config.json          what was asked for, and a digest of the table
    metrics.csv          a row an epoch
    estimator.json       the forecaster, with weights-….safetensors beside it
    evaluation.csv       errors on what was held out, beside those of the baselines
    summary.json         epochs, seconds, sizes
    forecast.csv  imputed.csv  plots/*.png
    checkpoints/         to go on from, until the training is done
"""

from __future__ import annotations

import hashlib
import json
import shutil
import time
from dataclasses import asdict, replace
from pathlib import Path

import lightning as L
import numpy as np
import pandas as pd
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch.callbacks import Callback

from neuralode.data.tables.series import SeriesTable, read_series
from neuralode.estimators.constraints import check_parameters
from neuralode.estimators.forecaster.estimator import LatentODEForecaster
from neuralode.estimators.forecaster.output_tables import unused_name
from neuralode.estimators.forecaster.plots import MAX_SERIES, plot_predictions
from neuralode.estimators.forecaster.training import StageCallbacks
from neuralode.estimators.isolation import seed_from
from neuralode.estimators.serialization import to_json
from neuralode.tasks.config import Series
from neuralode.training.config_io import load_config as read_asked
from neuralode.training.history import History
from neuralode.training.run import Run, versions

TASK = "series"
FINE = 200  # points of a drawn curve


def fit_run(wanted: Series, folder: Path, *, resume: bool = False, callbacks: StageCallbacks | None = None) -> Run:
    """Read a table, learn from it, and keep what was learned; a training that was cut off goes on with ``resume``.

    Nothing is written before the table has been read and found fit for use, nor for parameters that cannot be.
    """
    columns = {"series": wanted.series, "time": wanted.time, "values": wanted.values}
    table = read_series(wanted.data, **columns)
    digest = hashlib.sha256(Path(wanted.data).read_bytes()).hexdigest()
    model = LatentODEForecaster(
        window=wanted.window, latent=wanted.latent, recognition=wanted.recognition,
        learning_rate=wanted.learning_rate, batch_size=wanted.batch_size, max_epochs=wanted.epochs,
        patience=wanted.patience, holdout=wanted.holdout, refit=wanted.refit, random_state=wanted.seed,
        accelerator=wanted.accelerator,
    )  # fmt: skip
    _check(model, table)
    if resume:
        run = _series_run(Run.open(folder))
        if run.config.get("digest") != digest:
            raise ValueError(f"{wanted.data} is not the table that {folder} was begun with; wanted it unchanged.")
        if run.finished:
            raise ValueError(f"{folder} is done: there is nothing to go on with.")
    else:
        run = Run.create(
            folder,
            {
                "task": TASK,
                "asked": {**asdict(wanted), "data": str(Path(wanted.data).resolve())},
                "digest": digest,
                "versions": versions("neuralode", "torch", "lightning", "pandas"),
            },
        )

    def accompanied(stage: str) -> list[Callback]:
        return [*([History(run)] if stage == "first" else []), *(callbacks(stage) if callbacks else ())]

    started = time.perf_counter()
    model.fit(wanted.data, **columns, checkpoints=run.checkpoints, callbacks=accompanied)
    model.save(run.folder)
    model.evaluation_.to_csv(run.folder / "evaluation.csv", index=False)
    plot_predictions(
        model.table_, _everywhere(model, model.table_, 0), run.plots / "fit.png", title="what was learned from"
    )
    run.write_summary(  # the last of all: a run that has it is finished
        {
            "series": len(table),
            "observations": int(sum(np.isfinite(values).sum() for values in table.values)),
            "channels": list(table.channels),
            "epochs": model.n_iter_,
            "seconds": round(time.perf_counter() - started, 2),
            "interrupted": model.interrupted_,
            "parameters": sum(p.numel() for p in model.network_.parameters()),
            "setup": asdict(model.setup_),
        }
    )
    if not model.interrupted_:
        shutil.rmtree(run.checkpoints, ignore_errors=True)
    return run


def forecast_run(run: Run, horizon: int, data: Path | None = None) -> pd.DataFrame:
    """Forecast so many steps beyond each series' end; table and picture go into the run."""
    model = load(run)
    table = model.read(data)
    found = model.forecast(table, horizon=horizon)
    found.to_csv(run.folder / "forecast.csv", index=False)
    plot_predictions(table, _everywhere(model, table, horizon), run.plots / "forecast.png", title="forecast")
    return found


def impute_run(run: Run, data: Path | None = None) -> pd.DataFrame:
    """Fill the gaps of the table; it and a picture go into the run."""
    model = load(run)
    table = model.read(data)
    found = model.impute(data)
    if table.time_column is None:  # times stand in the index
        place = 0 if table.series_column is None else 1
        found.insert(place, unused_name(str(found.index.name or "time"), map(str, found.columns)), found.index)
    found.to_csv(run.folder / "imputed.csv", index=False)
    plot_predictions(table, _everywhere(model, table, 0), run.plots / "imputed.png", title="gaps filled")
    return found


def evaluate_run(run: Run, data: Path | None = None) -> pd.DataFrame:
    """Errors on what was held out of training; of another table, on what is held out of that."""
    model = load(run)
    return model.evaluation_ if data is None else model.evaluate(data)


def load(run: Run) -> LatentODEForecaster:
    """The forecaster of a run."""
    if not (_series_run(run).folder / "estimator.json").is_file():
        raise FileNotFoundError(f"{run.folder} has no forecaster yet: go on with its training by --resume.")
    return LatentODEForecaster.load(run.folder)


def asked(run: Run) -> Series:
    """What a run was asked to do; `ValueError` where its config was damaged."""
    return read_asked(run, Series, tasks=(TASK,), command="neuralode fit", sections=("asked",))


def _series_run(run: Run) -> Run:
    if run.config.get("task") != TASK:
        raise ValueError(f"{run.folder} is a run of {run.config.get('task')!r}; wanted one of `neuralode fit`.")
    return run


def _check(model: LatentODEForecaster, table: SeriesTable) -> None:
    """Refuse, before anything is trained, what would be found out only later."""
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
        raise TypeError(f"series are told apart by a {kind}, which cannot be kept; wanted text or numbers.") from error


def _everywhere(model: LatentODEForecaster, table: SeriesTable, horizon: int) -> pd.DataFrame:
    """Answers on a fine grid over each series that is drawn, and so many steps beyond."""
    few = replace(
        table, names=table.names[:MAX_SERIES], times=table.times[:MAX_SERIES], values=table.values[:MAX_SERIES]
    )
    ends = [t[-1] + horizon * model.setup_.spacing for t in few.times]
    grids = [np.linspace(t[0], end, FINE) for t, end in zip(few.times, ends, strict=True)]
    return model.predict(few, {name: few.clock.labels(grid) for name, grid in zip(few.names, grids, strict=True)})
