"""Reproduce Table 2 of Chen et al.: forecast errors of a latent ODE and a recurrent network on bi-directional spirals.

References
----------
.. [1] R. T. Q. Chen, Y. Rubanova, J. Bettencourt, D. Duvenaud, "Neural Ordinary Differential Equations", NeurIPS 2018,
   table 2.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch

from neuralode.reproduce.finished_runs import check_same_config
from neuralode.reproduce.process_pool import run_in_processes
from neuralode.tasks.runner import train
from neuralode.tasks.spirals.config import SpiralsConfig
from neuralode.tasks.spirals.run import SpiralsTask, describe
from neuralode.training.plots import make_axes, save_figure
from neuralode.training.run import Run, write_csv

# Root mean squared errors by model and number of observations. Times between observations are an input of the RNN.
PUBLISHED: Mapping[str, Mapping[int, float]] = {
    "latent-ode": {30: 0.1642, 50: 0.1502, 100: 0.1346},
    "rnn": {30: 0.3937, 50: 0.3202, 100: 0.1813},
}
# By model and number of observations. With fewer observations, more epochs are needed and each is faster.
EPOCHS: Mapping[str, Mapping[int, int]] = {
    "latent-ode": {30: 100, 50: 80, 100: 50},
    "rnn": {30: 60, 50: 45, 100: 30},
}

Row = dict[str, Any]
Log = Callable[[str], None]


def table2(
    observed: int,
    seeds: Sequence[int] = (0, 1, 2),
    folder: Path = Path("runs/table2"),
    *,
    log: Log = print,
    configs: Sequence[SpiralsConfig] | None = None,
    processes: int | None = None,
) -> list[Row]:
    """Train both models once per seed and compare their errors with the published ones.

    The trainings run in parallel processes of one thread each. A script that calls this function must do so below
    ``if __name__ == "__main__":``. Runs that are already finished in ``folder`` are not repeated; interrupted ones are
    resumed.

    Parameters
    ----------
    observed : int
        Column of the table: 30, 50 or 100 observed points per series.
    seeds : sequence of int, default=(0, 1, 2)
        Each model is trained once per seed.
    folder : Path, default=Path("runs/table2")
        Folder for the runs, ``table2-<observed>.csv`` and ``table2-<observed>.png``.
    log : callable, default=print
        Called with one line when a training finishes.
    configs : sequence of SpiralsConfig, default=None
        One row of the table each; None is `default_configs`. Number of observations and seed are filled in.
    processes : int, default=None
        Number of parallel processes. None uses every available core.

    Returns
    -------
    list of dict
        One row per model: the published error, the mean and standard deviation of ours over seeds, and ours by seed.

    Raises
    ------
    ValueError
        If there is nothing to train, or a folder holds a run with another config.
    KeyboardInterrupt
        If a training was interrupted.
    """
    configs = default_configs(observed) if configs is None else configs
    if not seeds or not configs:
        raise ValueError(
            f"seeds={seeds!r} and configs={configs!r} leave nothing to train; wanted at least one of each."
        )
    jobs = [replace(config, observed=observed, seed=seed) for config in configs for seed in seeds]
    folders = {job: _run_folder(folder, job) for job in jobs}
    unfinished = [job for job in jobs if not _is_finished(folders[job], job)]
    for job in run_in_processes(partial(_train, folder=folder), unfinished, processes):
        run = Run.open(folders[job])
        if run.summary["interrupted"]:
            raise KeyboardInterrupt
        log(f"{job.model}, seed {job.seed}: {_describe(run.summary)}")
    runs = [{job.seed: Run(folders[job]) for job in jobs if job.model == config.model} for config in configs]
    rows = [_row(config.model, observed, runs_by_seed) for config, runs_by_seed in zip(configs, runs, strict=True)]
    write_csv(folder / f"table2-{observed}.csv", rows)
    plot_rows(rows, seeds, folder / f"table2-{observed}.png")
    return rows


def default_configs(observed: int) -> tuple[SpiralsConfig, ...]:
    """Return the configs for a column, the longest training first; both models have about the same size.

    Examples
    --------
    >>> [(config.model, config.epochs) for config in default_configs(30)]
    [('latent-ode', 100), ('rnn', 60)]
    """
    hidden = {"latent-ode": 40, "rnn": 54}
    return tuple(
        SpiralsConfig(
            observed=observed, model=model, hidden=hidden[model], epochs=epochs.get(observed, max(epochs.values()))
        )
        for model, epochs in EPOCHS.items()
    )


def plot_rows(rows: Sequence[Row], seeds: Sequence[int], path: Path) -> Path:
    """Plot the error of each seed, their mean and the published error; return the path."""
    figure, [axes] = make_axes(1)
    lines = {"mean": ("test_rmse", "-"), "published": ("published", "--"), "curves known": ("floor_rmse", ":")}
    for i, row in enumerate(rows):
        axes.plot([i] * len(seeds), [row[f"seed_{seed}"] for seed in seeds], "o", color="tab:blue", alpha=0.5)
        for color, (label, (name, style)) in zip(("tab:blue", "black", "grey"), lines.items(), strict=True):
            height = float("nan") if row[name] == "" else row[name]
            ends = [i - 0.2, i + 0.2]
            axes.plot(ends, [height, height], color=color, linestyle=style, label=label if i == 0 else "_")
    axes.set_xticks(range(len(rows)), [row["model"] for row in rows])
    axes.set(ylabel="forecast error", ylim=(0, None), xlim=(-0.5, len(rows) - 0.5))
    axes.set_title(f"{rows[0]['observed']} observations", fontsize="medium")
    axes.legend(fontsize=8)
    return save_figure(figure, path)


def _train(config: SpiralsConfig, folder: Path) -> None:
    run_folder = _run_folder(folder, config)
    resume = (run_folder / "config.json").is_file()
    train(SpiralsTask, config, run_folder, resume=resume, on_epoch=_ignore_epoch)


def _ignore_epoch(row: Mapping[str, float]) -> None:
    pass


def _run_folder(folder: Path, config: SpiralsConfig) -> Path:
    return folder / f"observed-{config.observed}" / f"{config.model}-{config.seed}"


def _is_finished(folder: Path, config: SpiralsConfig) -> bool:
    # Unlike `finished_runs.is_finished`: these runs can be interrupted, and then have a summary that says so.
    if not (folder / "config.json").is_file():
        return False
    check_same_config(folder, describe(config))
    return (folder / "summary.json").is_file() and not Run(folder).summary["interrupted"]


def _row(model: str, observed: int, runs: Mapping[int, Run]) -> Row:
    summaries = {seed: run.summary for seed, run in runs.items()}
    errors = torch.tensor([summary["test_rmse"] for summary in summaries.values()], dtype=torch.float64)

    def mean(name: str, digits: int = 4) -> float:
        return round(sum(summary[name] for summary in summaries.values()) / len(summaries), digits)

    return {
        "observed": observed,
        "model": model,
        "published": PUBLISHED.get(model, {}).get(observed, ""),
        "test_rmse": mean("test_rmse"),
        "spread": round(float(errors.std(correction=1)), 4) if len(errors) > 1 else "",
        **{f"seed_{seed}": round(summary["test_rmse"], 4) for seed, summary in summaries.items()},
        "window_rmse": mean("window_rmse"),
        "floor_rmse": mean("floor_rmse"),
        "parameters": next(iter(summaries.values()))["parameters"],
        "seconds": mean("seconds", 1),
    }


def _describe(summary: Mapping[str, float]) -> str:
    return (
        f"{summary['test_rmse']:.4f} beyond the window, {summary['window_rmse']:.4f} within, {summary['seconds']:.0f} s"
    )
