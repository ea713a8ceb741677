"""The task of `neuralode train density`: a continuous normalizing flow for the rows of a table.

A fifth of the rows is held out for the test; an eighth of the others selects the best epoch. Each row gets a score, its
log-density: the lowest are outliers.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, ClassVar

import lightning as L
import pandas as pd
import torch

from neuralode.data.densities import DENSITIES, find_density
from neuralode.data.tables.standardization import Standardization
from neuralode.nn import CNF
from neuralode.tasks.base import LightningTask
from neuralode.tasks.density.config import RUN_TASKS, DensityConfig
from neuralode.tasks.density.data import DensityRows, load_rows
from neuralode.tasks.density.metrics import gaussian_nats, nats, write_scores
from neuralode.tasks.density.plots import HISTORY_PLOTS, POINTS, plot_flow, plot_rows
from neuralode.training.config_io import load_config
from neuralode.training.fit import FitOptions, FitResult
from neuralode.training.modules.density_module import DensityModule, RowsData
from neuralode.training.modules.row_density import Architecture, RowDensity, density_training
from neuralode.training.plots import HistoryPlot
from neuralode.training.preflight import check_learning_rate
from neuralode.training.run import Run, versions

PACKAGES = ("neuralode", "torch", "lightning", "pandas")  # whose versions are saved
ARCHITECTURE = tuple(field.name for field in fields(Architecture))  # fields of the config that define the flow


@dataclass(frozen=True, eq=False)
class DensityTask(LightningTask[DensityConfig]):
    """Learn the density of table rows.

    ``summary.json`` holds ``test_nats``, the mean negative log-density of the test rows in the units of the table, with
    its standard error; the same in bits per modelled column; ``gaussian_nats``, that of a fitted normal distribution;
    and for rows drawn from a known density its ``entropy``, the lower bound in expectation. All nats are of smoothed
    rows (see `DensityRows`) and leave out test rows with density 0; ``remarks`` says so where it applies.

    ``scores.csv`` holds the log-density of every row itself.
    """

    module: DensityModule
    data: RowsData
    rows: DensityRows

    run_tasks: ClassVar[Sequence[str]] = RUN_TASKS
    command: ClassVar[str] = "neuralode train density"
    history_plots: ClassVar[Sequence[HistoryPlot]] = HISTORY_PLOTS

    @property
    def model(self) -> CNF:  # noqa: D102
        return self.module.flow

    @property
    def density(self) -> RowDensity:
        """The density that is trained."""
        return RowDensity(self.rows.standard, self.model)

    @classmethod
    def load_config(cls, run: Run) -> DensityConfig:  # noqa: D102
        sections = ("data", "flow", "training")
        return load_config(run, DensityConfig, tasks=cls.run_tasks, command=cls.command, sections=sections)

    @classmethod
    def prepare(cls, config: DensityConfig) -> DensityTask:  # noqa: D102
        _check(config)
        rows = load_rows(config)
        L.seed_everything(config.seed, workers=True, verbose=False)
        _check_solver(config, rows.standard.features)
        module, data = density_training(
            architecture(config).build(rows.standard.features),
            rows.standard,
            train=rows.values[rows.split.train],
            validation=rows.smoothed[rows.split.validation],
            spread=config.spread,
            batch_size=config.batch_size,
            learning_rate=config.learning_rate,
            weight_decay=config.weight_decay,
            kinetic=config.kinetic,
            frobenius=config.frobenius,
        )
        options = FitOptions(
            config.epochs,
            config.patience,
            accelerator=config.accelerator,
            devices=config.devices,
            precision=config.precision,
        )
        return cls(config, module, data=data, options=options, rows=rows)

    def describe(self) -> Mapping[str, Any]:  # noqa: D102
        options = asdict(self.config)
        if self.config.data not in DENSITIES:
            options["data"] = str(Path(self.config.data).resolve())
        return {
            "task": RUN_TASKS[0],
            "model": "cnf",
            "data": {name: options.pop(name) for name in ("data", "columns", "rows")},
            "table": {"digest": self.rows.digest, "standard": self.rows.standard.to_json()},
            "flow": {name: options.pop(name) for name in ARCHITECTURE},
            "training": options,
            "versions": versions(*PACKAGES),
        }

    def check_run(self, run: Run) -> None:  # noqa: D102
        if _table_entry(run).get("digest") != self.rows.digest:
            raise ValueError(
                f"{self.config.data} is not the table that {run.folder} was started with; wanted it unchanged."
            )

    def evaluate(self, run: Run, result: FitResult) -> Mapping[str, Any]:  # noqa: D102
        rows, standard, config = self.rows, self.rows.standard, self.config
        scores = self.density.log_density(rows.values)
        write_scores(run, scores, rows.split)
        smoothed = self.density.log_density(rows.smoothed) if config.spread and standard.repeated else scores
        scored = rows.split._replace(test=rows.scored)
        gaussian = gaussian_nats(standard, rows.smoothed[rows.split.known], rows.smoothed[rows.scored])
        return {
            **nats(smoothed, scored, standard.features),
            "gaussian_nats": round(gaussian, 6),
            **({"entropy": find_density(config.data).entropy} if config.data in DENSITIES else {}),
            "rows": {name: len(part) for name, part in rows.split._asdict().items()},
            "columns": list(standard.names),
            "modelled": [name for name in standard.names if name not in standard.constant],
            "remarks": rows.remarks(config.spread),
            **self.training_summary(run, result),
        }

    def plot(self, run: Run) -> None:  # noqa: D102
        super().plot(run)
        values = self.rows.values
        samples = self.density.sample(min(len(values), POINTS), self.config.seed)
        plot_rows(self.density, values, samples, path=run.plots / "density.png")
        plot_flow(self.density, run.plots / "flow.gif")


def load(run: Run) -> RowDensity:
    """Return the trained density of a run."""
    config = DensityTask.load_config(run)
    try:
        standard = Standardization.from_json(_table_entry(run)["standard"])
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(
            f"{run.folder / 'config.json'} has no valid table.standard ({error!r}); wanted it unchanged."
        ) from error
    flow = architecture(config).build(standard.features)
    run.read_weights(flow)
    return RowDensity(standard, flow.eval())


def sample(run: Run, count: int, seed: int) -> pd.DataFrame:
    """Return new rows from the density of a run, with the columns of its table."""
    density = load(run)
    return pd.DataFrame(density.sample(count, seed), columns=pd.Index(density.standard.names))


def architecture(config: DensityConfig) -> Architecture:
    """Return the architecture of the flow."""
    return Architecture(**{name: getattr(config, name) for name in ARCHITECTURE})


def _table_entry(run: Run) -> dict[str, Any]:
    table = run.config.get("table")
    return table if isinstance(table, dict) else {}


def _check(config: DensityConfig) -> None:
    check_learning_rate(config.learning_rate)
    for name in ("kinetic", "frobenius", "weight_decay"):
        value = getattr(config, name)
        if value is not None and not 0 <= value < math.inf:
            raise ValueError(f"{name}={value!r}; wanted a number not below 0.")


def _check_solver(config: DensityConfig, features: int) -> None:
    """Solve and differentiate once, so that invalid solver options raise before anything is written."""
    flow = architecture(config).build(features)
    flow.log_prob(torch.zeros(2, features)).sum().backward()
