"""`neuralode sample`: new rows by a model that has learned a density."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from neuralode.cli.screen import in_one_sentence, say, show_frame
from neuralode.training.run import Run

if TYPE_CHECKING:
    import pandas as pd

# Where the tasks are whose runs can be sampled from: each has ``sample(run, count, seed) -> DataFrame``.
SAMPLED = {"density": "neuralode.tasks.density.run", "matching": "neuralode.tasks.flow_matching.run"}
WRITERS: dict[str, Callable[[pd.DataFrame, Path], object]] = {
    ".csv": lambda drawn, path: drawn.to_csv(path, index=False),
    ".tsv": lambda drawn, path: drawn.to_csv(path, index=False, sep="\t"),
    ".parquet": lambda drawn, path: drawn.to_parquet(path, index=False),
}


@in_one_sentence
def sample(
    run: Annotated[Path, typer.Argument(help="Folder of a run that has learned a density.")],
    rows: Annotated[int, typer.Option(min=1, help="How many.")] = 100,
    seed: Annotated[int, typer.Option(min=0, max=2**63 - 1, help="Of what is drawn.")] = 0,
    out: Annotated[
        Path | None, typer.Option(help="The .csv, .tsv or .parquet to write.", show_default="RUN/samples.csv")
    ] = None,
) -> None:
    """Draw new rows: more of what a table holds, as far as the model knows."""
    opened = Run.open(run)
    task = opened.config.get("task")
    if task not in SAMPLED:
        raise ValueError(f"{run} is a run of {task!r}, which has nothing to draw; wanted one of {', '.join(SAMPLED)}.")
    path = _writable(out or opened.folder / "samples.csv")
    # Here, not above: Lightning takes seconds to load, which --help and a mistyped folder should not.
    drawn = import_module(SAMPLED[task]).sample(opened, rows, seed)
    path.parent.mkdir(parents=True, exist_ok=True)
    WRITERS[path.suffix.lower()](drawn, path)
    show_frame(drawn, "samples", most=10)
    say(f"The table: {path}.")


def _writable(path: Path) -> Path:
    if path.is_dir():
        raise IsADirectoryError(f"--out {path} is a folder; wanted a file, as {path / 'samples.csv'}.")
    if path.suffix.lower() not in WRITERS:
        raise ValueError(f"--out {path} ends in {path.suffix!r}; wanted .csv, .tsv or .parquet.")
    return path
