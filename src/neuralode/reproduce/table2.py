"""Table 2 of Chen et al.: the error of forecasts on bi-directional spirals, of a latent ODE and a recurrent network.

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

from neuralode.reproduce.pool import side_by_side
from neuralode.tasks.config import Spirals
from neuralode.tasks.spirals.run import describe, train
from neuralode.training.plots import blank, save
from neuralode.training.run import Run, write_csv

# Root mean squared errors by model and observations; the recurrent network is told the time between observations.
PUBLISHED: Mapping[str, Mapping[int, float]] = {
    "latent-ode": {30: 0.1642, 50: 0.1502, 100: 0.1346},
    "rnn": {30: 0.3937, 50: 0.3202, 100: 0.1813},
}
# By model and observations: the fewer there are, the more epochs it takes, and the less time an epoch takes.
EPOCHS: Mapping[str, Mapping[int, int]] = {
    "latent-ode": {30: 100, 50: 80, 100: 50},
    "rnn": {30: 60, 50: 45, 100: 30},
}

Row = dict[str, Any]
Tell = Callable[[str], None]


def table2(
    observed: int,
    seeds: Sequence[int] = (0, 1, 2),
    folder: Path = Path("runs/table2"),
    tell: Tell = print,
    *,
    recipes: Sequence[Spirals] | None = None,
    processes: int | None = None,
) -> list[Row]:
    """Train both models for each seed and set their errors beside the published ones.

    The trainings run side by side, one thread each, in processes of their own: a script that calls this does so below
    ``if __name__ == "__main__":``. A training that is finished in ``folder`` is not done again, one that was cut off
    goes on where it was.

    Parameters
    ----------
    observed : int
        The column: 30, 50 or 100 points of each series.
    seeds : sequence of int
        One training of each model for each.
    folder : Path
        Where the runs go, and ``table2-<observed>.csv`` and ``.png``.
    tell : callable
        Called with a sentence as each training ends.
    recipes : sequence of Spirals, optional
        What is trained, one row each, `recipes_for` the column unless given; observations and seed are filled in.
    processes : int, optional
        Side by side; as many as there are cores unless given.

    Returns
    -------
    list of dict
        A row a model: the published error, ours as mean and standard deviation over seeds, and for each seed.
    """
    recipes = recipes_for(observed) if recipes is None else recipes
    if not seeds or not recipes:
        raise ValueError(f"seeds={seeds!r} and recipes={recipes!r} ask for no training; wanted at least one of each.")
    jobs = [replace(recipe, observed=observed, seed=seed) for recipe in recipes for seed in seeds]
    places = {wanted: _place(folder, wanted) for wanted in jobs}
    left = [wanted for wanted, place in places.items() if not _done(place, wanted)]
    for wanted in side_by_side(partial(_train, folder=folder), left, processes):
        run = Run.open(places[wanted])
        if run.summary["interrupted"]:
            raise KeyboardInterrupt
        tell(f"{wanted.model}, seed {wanted.seed}: {_figures(run.summary)}")
    runs = [{wanted.seed: Run(places[wanted]) for wanted in jobs if wanted.model == recipe.model} for recipe in recipes]
    rows = [_row(recipe.model, observed, trained) for recipe, trained in zip(recipes, runs, strict=True)]
    write_csv(folder / f"table2-{observed}.csv", rows)
    plot_rows(rows, seeds, folder / f"table2-{observed}.png")
    return rows


def recipes_for(observed: int) -> tuple[Spirals, ...]:
    """What is trained for a column: the longest first, so that processes end together; both of about one size.

    Examples
    --------
    >>> [(recipe.model, recipe.epochs) for recipe in recipes_for(30)]
    [('latent-ode', 100), ('rnn', 60)]
    """
    hidden = {"latent-ode": 40, "rnn": 54}
    return tuple(
        Spirals(observed=observed, model=model, hidden=hidden[model], epochs=epochs.get(observed, max(epochs.values())))
        for model, epochs in EPOCHS.items()
    )


def plot_rows(rows: Sequence[Row], seeds: Sequence[int], path: Path) -> Path:
    """Draw each seed's error, their mean, and the published one; return the file written."""
    figure, [axes] = blank(1)
    lines = {"mean": ("test_rmse", "-"), "published": ("published", "--"), "who knows the curves": ("floor_rmse", ":")}
    for place, row in enumerate(rows):
        axes.plot([place] * len(seeds), [row[f"seed_{seed}"] for seed in seeds], "o", color="tab:blue", alpha=0.5)
        for color, (label, (name, style)) in zip(("tab:blue", "black", "grey"), lines.items(), strict=True):
            height = float("nan") if row[name] == "" else row[name]
            ends = [place - 0.2, place + 0.2]
            axes.plot(ends, [height, height], color=color, linestyle=style, label=label if place == 0 else "_")
    axes.set_xticks(range(len(rows)), [row["model"] for row in rows])
    axes.set(ylabel="error of forecasts", ylim=(0, None), xlim=(-0.5, len(rows) - 0.5))
    axes.set_title(f"{rows[0]['observed']} observations", fontsize="medium")
    axes.legend(fontsize=8)
    return save(figure, path)


def _train(wanted: Spirals, folder: Path) -> None:
    place = _place(folder, wanted)
    train(wanted, place, resume=(place / "config.json").is_file(), tell=_silent)


def _silent(row: Mapping[str, float]) -> None:
    pass


def _place(folder: Path, wanted: Spirals) -> Path:
    return folder / f"observed-{wanted.observed}" / f"{wanted.model}-{wanted.seed}"


def _done(place: Path, wanted: Spirals) -> bool:
    """Whether it is there and finished; `ValueError` if what is there was asked something else."""
    if not (place / "config.json").is_file():
        return False
    there, here = ({**config, "versions": None} for config in (Run(place).config, describe(wanted)))
    if there != here:
        raise ValueError(f"{place} holds a run of another recipe, {there}; wanted an empty folder, or {here}.")
    return (place / "summary.json").is_file() and not Run(place).summary["interrupted"]


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


def _figures(summary: Mapping[str, Any]) -> str:
    return (
        f"{summary['test_rmse']:.4f} beyond the window, {summary['window_rmse']:.4f} within, {summary['seconds']:.0f} s"
    )
