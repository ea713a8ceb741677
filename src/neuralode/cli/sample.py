"""`neuralode sample`: new rows by a model that has learned a density."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import Annotated

import typer

from neuralode.cli.screen import in_one_sentence, say, show_frame
from neuralode.train.run import Run

# Where the tasks are whose runs can be sampled from: each has ``sample(run, count, seed) -> DataFrame``.
SAMPLED = {"density": "neuralode.train.density", "matching": "neuralode.train.matching"}


@in_one_sentence
def sample(
    run: Annotated[Path, typer.Argument(help="Folder of a run that has learned a density.")],
    rows: Annotated[int, typer.Option(min=1, help="How many.")] = 100,
    seed: Annotated[int, typer.Option(min=0, help="Of what is drawn.")] = 0,
    out: Annotated[Path | None, typer.Option(help="The .csv to write.", show_default="RUN/samples.csv")] = None,
) -> None:
    """Draw new rows: more of what a table holds, as far as the model knows."""
    opened = Run.open(run)
    task = opened.config.get("task")
    if task not in SAMPLED:
        raise ValueError(f"{run} is a run of {task!r}, which has nothing to draw; wanted one of {', '.join(SAMPLED)}.")
    # Here, not above: Lightning takes seconds to load, which --help and a mistyped folder should not.
    drawn = import_module(SAMPLED[task]).sample(opened, rows, seed)
    path = out or opened.folder / "samples.csv"
    path.parent.mkdir(parents=True, exist_ok=True)
    drawn.to_csv(path, index=False)
    show_frame(drawn, "samples", most=10)
    say(f"The table: {path}.")
