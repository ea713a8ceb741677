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
import shutil
import time
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pandas as pd
from lightning.pytorch.callbacks import Callback

from neuralode.data.tables import read_series
from neuralode.estimators.forecaster import Company, LatentODEForecaster
from neuralode.estimators.plots import plot_answers
from neuralode.train.config import Series
from neuralode.train.history import History
from neuralode.train.run import Run, versions

TASK = "series"
FINE = 200  # points of a drawn curve


def fit_run(wanted: Series, folder: Path, *, resume: bool = False, company: Company | None = None) -> Run:
    """Read a table, learn from it, and keep what was learned; a training that was cut off goes on with ``resume``.

    Nothing is written before the table has been read and found fit for use.
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
    if resume:
        run = Run.open(folder)
        if run.config["digest"] != digest:
            raise ValueError(f"{wanted.data} is not the table that {folder} was begun with; wanted it unchanged.")
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
        return [*([History(run)] if stage == "first" else []), *(company(stage) if company else ())]

    started = time.perf_counter()
    model.fit(wanted.data, **columns, checkpoints=run.checkpoints, company=accompanied)
    model.save(run.folder)
    model.evaluation_.to_csv(run.folder / "evaluation.csv", index=False)
    run.write_summary(
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
    plot_answers(model.table_, _everywhere(model, 0), run.plots / "fit.png", title="what was learned from")
    if not model.interrupted_:
        shutil.rmtree(run.checkpoints, ignore_errors=True)
    return run


def forecast_run(run: Run, horizon: int, data: Path | None = None) -> pd.DataFrame:
    """Forecast so many steps beyond each series' end; table and picture go into the run."""
    model = load(run)
    found = model.forecast(data, horizon=horizon)
    found.to_csv(run.folder / "forecast.csv", index=False)
    table = model.table_ if data is None else model.read(data)
    plot_answers(table, _everywhere(model, horizon, data), run.plots / "forecast.png", title="forecast")
    return found


def impute_run(run: Run, data: Path | None = None) -> pd.DataFrame:
    """Fill the gaps of the table; it and a picture go into the run."""
    model = load(run)
    found = model.impute(data)
    found.to_csv(run.folder / "imputed.csv", index=found.index.name is not None)
    table = model.table_ if data is None else model.read(data)
    plot_answers(table, _everywhere(model, 0, data), run.plots / "imputed.png", title="gaps filled")
    return found


def evaluate_run(run: Run, data: Path | None = None) -> pd.DataFrame:
    """Errors on what was held out of training; of another table, on what is held out of that."""
    model = load(run)
    return model.evaluation_ if data is None else model.evaluate(data)


def load(run: Run) -> LatentODEForecaster:
    """The forecaster of a run."""
    if run.config.get("task") != TASK:
        raise ValueError(f"{run.folder} is a run of {run.config.get('task')!r}; wanted one of `neuralode fit`.")
    if not (run.folder / "estimator.json").is_file():
        raise FileNotFoundError(f"{run.folder} has no forecaster yet: go on with its training by --resume.")
    return LatentODEForecaster.load(run.folder)


def asked(run: Run) -> Series:
    """What a run was asked to do."""
    told = run.config["asked"]
    return Series(**{**told, "values": None if told["values"] is None else tuple(told["values"])})


def _everywhere(model: LatentODEForecaster, horizon: int, data: Path | None = None) -> pd.DataFrame:
    """Answers on a fine grid over each series and so many steps beyond."""
    table = model.table_ if data is None else model.read(data)
    ends = [t[-1] + horizon * model.setup_.spacing for t in table.times]
    grids = [np.linspace(t[0], end, FINE) for t, end in zip(table.times, ends, strict=True)]
    times = {name: table.clock.labels(grid) for name, grid in zip(table.names, grids, strict=True)}
    return model.predict(data, times if table.series_column is not None else times[None])
