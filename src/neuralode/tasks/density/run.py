"""The task `neuralode train density`: a continuous normalizing flow for the rows of someone's table.

A fifth of the rows is for the test, which is looked at once; an eighth of the others decides which epoch is kept. Every
row gets a score, its log-density: the lowest are the odd ones out.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any, NamedTuple

import lightning as L
import numpy as np
import pandas as pd
import torch
from jaxtyping import Int64
from lightning.pytorch.callbacks import Callback
from sklearn.model_selection import train_test_split

from neuralode.data.densities import DENSITIES, find_density
from neuralode.data.tables.rows import Rows, Table, check_enough, read_rows
from neuralode.data.tables.standardization import Standardization
from neuralode.tasks.config import Density
from neuralode.tasks.density.plots import PICTURES, POINTS, plot_flow, plot_rows
from neuralode.training.config_io import is_done
from neuralode.training.config_io import load_config as read_asked
from neuralode.training.fit import FitOptions
from neuralode.training.modules.row_density import Architecture, RowDensity, train_density
from neuralode.training.plots import plot_history
from neuralode.training.record_run import check_rate, course, into
from neuralode.training.run import Run, versions, write_csv

TASK = "density"
TEST, VALIDATION = 1 / 5, 1 / 8  # of all rows; of those that are not for the test
ARCHITECTURE = tuple(field.name for field in fields(Architecture))  # fields of Density that make the flow
RIDGE = 1e-6  # of a variance on the common scale: so that columns that depend on each other have a normal density


class Parts(NamedTuple):
    """Which rows are for what: numbers from 0, in the order of the table."""

    train: Int64[np.ndarray, " train"]
    validation: Int64[np.ndarray, " validation"]
    test: Int64[np.ndarray, " test"]


def train(
    wanted: Density,
    folder: Path,
    *,
    resume: bool = False,
    callbacks: Sequence[Callback] = (),
    tell: Callable[[dict[str, float]], None] | None = None,
) -> Run:
    """Train, keep the weights of the epoch that validates best, and measure them on the test rows once.

    Parameters
    ----------
    wanted : Density
        What to do.
    folder : Path
        Where the run goes; it must not hold one already, unless ``resume``. Nothing is written for a table that will
        not do, nor for options that cannot be.
    resume : bool
        Go on from the last checkpoint in ``folder``, or begin where there is none; the table must be what it was. A run
        that is finished is returned as it is.
    callbacks : sequence of Callback
        Lightning's: a progress bar, for one.
    tell : callable, optional
        Called with the figures of each epoch.

    Returns
    -------
    Run
        Its ``summary.json`` holds ``test_nats``, the mean of the negative log-density of the test rows in the units of
        the table, with its standard error; the same as bits a column that is modelled; what one normal distribution
        makes of them, ``gaussian_nats``; for data that are drawn from a known density its ``entropy``, below which no
        model can be but by chance. Where most rows repeat a value, all nats are of rows that are spread, as those to
        learn from are, unless ``wanted.spread`` is False. Test rows that differ in a column that is left out have no
        part in nats; ``remarks`` then says how many. ``scores.csv`` holds the log-density of every row as it is,
        ``plots`` pictures of the rows, of samples, of the density, and of how the flow makes it. Ctrl-C ends the
        training, not this function: the summary then says ``"interrupted": true``.
    """
    run = Run(folder)
    if resume and is_done(run, wanted, asked):
        return run
    _check(wanted)
    rows = read(wanted)
    check_enough(rows)
    parts = split(len(rows), wanted.seed)
    known = np.concatenate(parts[:2])
    standard = Standardization.fit(Rows(rows.names, rows.values[known]))
    seen = standard.dequantize(rows.values) if wanted.spread else rows.values
    judged = parts._replace(test=_comparable(standard, rows.values, parts.test))
    L.seed_everything(wanted.seed, workers=True, verbose=False)
    _try(wanted, standard)
    digest = hashlib.sha256(rows.values.tobytes()).hexdigest()
    if resume:
        if _table(run).get("digest") != digest:
            raise ValueError(f"{wanted.data} is not the table that {folder} was begun with; wanted it unchanged.")
    else:
        Run.create(folder, _config(wanted, standard, digest))
    density, fitted = train_density(
        _architecture(wanted),
        standard,
        train=rows.values[parts.train],
        validation=seen[parts.validation],
        options=FitOptions(wanted.epochs, wanted.patience, wanted.accelerator, wanted.devices, wanted.precision),
        spread=wanted.spread,
        batch_size=wanted.batch_size,
        learning_rate=wanted.learning_rate,
        weight_decay=wanted.weight_decay,
        kinetic=wanted.kinetic,
        frobenius=wanted.frobenius,
        **into(run, resume, callbacks, tell),
    )

    scores = density.log_density(rows.values)
    run.write_weights(density.flow)
    write_scores(run, scores, parts)
    nats = density.log_density(seen) if wanted.spread and standard.repeated else scores
    plot_history(run.metrics, run.plots, PICTURES)
    plot_rows(density, rows.values, density.sample(min(len(rows), POINTS), wanted.seed), run.plots)
    plot_flow(density, run.plots)
    run.write_summary(  # the last of all: a run that has it is finished
        {
            **figures(nats, judged, standard.features),
            "gaussian_nats": round(gaussian_nats(standard, seen[known], seen[judged.test]), 6),
            **({"entropy": find_density(wanted.data).entropy} if wanted.data in DENSITIES else {}),
            "rows": {name: len(some) for name, some in parts._asdict().items()},
            "columns": list(standard.names),
            "modelled": [name for name in standard.names if name not in standard.constant],
            "remarks": [*standard.remarks(rows, wanted.spread), *_left_out(len(parts.test), len(judged.test))],
            **course(run, density.flow, fitted),
        }
    )
    return run


def load(run: Run) -> RowDensity:
    """Return the trained density of ``run``."""
    architecture = _architecture(asked(run))
    try:
        standard = Standardization.from_json(_table(run)["standard"])
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{run.folder / 'config.json'} does not say how its table was scaled ({error!r}).") from error
    flow = architecture.build(standard.features)
    run.read_weights(flow)
    return RowDensity(standard, flow.eval())


def sample(run: Run, count: int, seed: int) -> pd.DataFrame:
    """New rows of the density of ``run``, under the names of its columns."""
    density = load(run)
    return pd.DataFrame(density.sample(count, seed), columns=pd.Index(density.standard.names))


def asked(run: Run) -> Density:
    """Return what ``run`` was asked to do."""
    return read_asked(
        run, Density, tasks=(TASK,), command="neuralode train density", sections=("data", "flow", "training")
    )


def read(wanted: Density) -> Rows:
    """The rows to learn from: those of a file, or drawn.

    Examples
    --------
    >>> rows = read(Density("moons", rows=20))
    >>> rows.names, rows.values.shape
    (('x0', 'x1'), (20, 2))
    """
    if wanted.data in DENSITIES or not (Path(wanted.data).suffix or Path(wanted.data).exists()):
        generator = torch.Generator().manual_seed(wanted.seed)
        return read_rows(find_density(wanted.data).sample(wanted.rows, generator).double().numpy(), wanted.columns)
    return read_rows(wanted.data, wanted.columns)


def split(count: int, seed: int) -> Parts:
    """Deal rows out.

    Examples
    --------
    >>> [len(part) for part in split(100, seed=0)]
    [70, 10, 20]
    """
    rest, test = train_test_split(np.arange(count), test_size=TEST, random_state=seed)
    learned, validation = train_test_split(rest, test_size=VALIDATION, random_state=seed)
    return Parts(*(np.sort(part) for part in (learned, validation, test)))


def figures(scores: np.ndarray, parts: Parts, features: int) -> dict[str, float]:
    """What the log-densities come to, part by part.

    Examples
    --------
    >>> parts = Parts(np.array([0, 1]), np.array([2]), np.array([3, 4]))
    >>> found = figures(np.array([-1.0, -2.0, -3.0, -3.5, -4.5]), parts, features=2)
    >>> found["test_nats"], found["test_nats_error"], round(found["test_bits_per_dimension"], 3)
    (4.0, 0.5, 2.885)
    """
    test = -scores[parts.test]
    found = {
        "test_nats": test.mean(),
        "test_nats_error": test.std(ddof=1) / math.sqrt(len(test)),
        "test_bits_per_dimension": test.mean() / features / math.log(2),
        "validation_nats": -scores[parts.validation].mean(),
        "train_nats": -scores[parts.train].mean(),
    }
    return {name: round(float(value), 6) for name, value in found.items()}


def gaussian_nats(standard: Standardization, known: Table, test: Table) -> float:
    """The negative log-density a row of ``test`` by the normal distribution that fits the ``known`` rows.

    Examples
    --------
    >>> draws = np.random.default_rng(0).normal(0.0, 10.0, (20_000, 1))
    >>> standard = Standardization.fit(Rows(("a",), draws))
    >>> entropy = math.log(10.0 * math.sqrt(2 * math.pi * math.e))
    >>> abs(gaussian_nats(standard, draws[:10_000], draws[10_000:]) - entropy) < 0.02
    True
    """
    known, test = standard.apply(known), standard.apply(test)
    mean = known.mean(0)
    factor = np.linalg.cholesky(np.atleast_2d(np.cov(known.T)) + RIDGE * np.eye(standard.features))
    square = (np.linalg.solve(factor, (test - mean).T) ** 2).sum(0).mean()
    volume = np.log(factor.diagonal()).sum() + standard.log_volume
    return float(square / 2 + standard.features * math.log(2 * math.pi) / 2 + volume)


def write_scores(run: Run, scores: np.ndarray, parts: Parts) -> None:
    """Keep the log-density of each row, counted from 1, and what the row was for."""
    what = {int(row): name for name, some in parts._asdict().items() for row in some}
    write_csv(
        run.folder / "scores.csv",
        [{"row": row + 1, "log_density": float(score), "part": what[row]} for row, score in enumerate(scores)],
    )


def _architecture(wanted: Density) -> Architecture:
    return Architecture(**{name: getattr(wanted, name) for name in ARCHITECTURE})


def _table(run: Run) -> dict[str, Any]:
    table = run.config.get("table")
    return table if isinstance(table, dict) else {}


def _check(wanted: Density) -> None:
    check_rate(wanted.learning_rate)
    for name in ("kinetic", "frobenius", "weight_decay"):
        value = getattr(wanted, name)
        if value is not None and not 0 <= value < math.inf:
            raise ValueError(f"{name}={value!r}; wanted a number not below 0.")


def _comparable(
    standard: Standardization, values: Table, test: Int64[np.ndarray, " test"]
) -> Int64[np.ndarray, " some"]:
    """The test rows that have a density: those that do not differ where all others were the same."""
    some = test[standard.matches_constants(values[test])]
    if len(some) < 2:
        raise ValueError(
            f"of columns that are the same in all rows to learn from ({', '.join(map(repr, standard.constant))}), "
            f"{len(test) - len(some)} of the {len(test)} test rows have another value; wanted another seed, or such "
            "columns left out."
        )
    return some


def _left_out(test: int, some: int) -> list[str]:
    differ = test - some
    return [] if not differ else [
        f"{differ} of the {test} test rows differ in a column that is left out: their density is 0 (a score of -inf), "
        f"and test_nats and gaussian_nats are of the other {some}."
    ]  # fmt: skip


def _try(wanted: Density, standard: Standardization) -> None:
    """Let options that cannot be say so before anything is written."""
    flow = _architecture(wanted).build(standard.features)
    flow.log_prob(torch.zeros(2, standard.features)).sum().backward()


def _config(wanted: Density, standard: Standardization, digest: str) -> dict[str, Any]:
    asked = asdict(wanted)
    if wanted.data not in DENSITIES:
        asked["data"] = str(Path(wanted.data).resolve())
    return {
        "task": TASK,
        "model": "cnf",
        "data": {name: asked.pop(name) for name in ("data", "columns", "rows")},
        "table": {"digest": digest, "standard": standard.to_json()},
        "flow": {name: asked.pop(name) for name in ARCHITECTURE},
        "training": asked,
        "versions": versions("neuralode", "torch", "lightning", "pandas"),
    }
