"""`neuralode sample`: draw new rows from a trained density."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from neuralode.tasks.registry import task_commands, task_of
from neuralode.terminal.console import in_one_sentence, say, show_frame
from neuralode.training.run import Run

if TYPE_CHECKING:
    import pandas as pd

WRITERS: dict[str, Callable[[pd.DataFrame, Path], object]] = {
    ".csv": lambda rows, path: rows.to_csv(path, index=False),
    ".tsv": lambda rows, path: rows.to_csv(path, index=False, sep="\t"),
    ".parquet": lambda rows, path: rows.to_parquet(path, index=False),
}


@in_one_sentence
def sample(
    run: Annotated[Path, typer.Argument(help="Folder of a run of a density or a flow.")],
    rows: Annotated[int, typer.Option(min=1, help="Number of rows.")] = 100,
    seed: Annotated[int, typer.Option(min=0, max=2**63 - 1, help="Seed of the samples.")] = 0,
    out: Annotated[
        Path | None, typer.Option(help="The .csv, .tsv or .parquet file to write.", show_default="RUN/samples.csv")
    ] = None,
) -> None:
    """Draw new rows from a trained density, and write them to a table."""
    opened = Run.open(run)
    task = task_of(opened)
    if task is None or task.sample is None:
        name = opened.config.get("task")
        wanted = ", ".join(name for task in task_commands().values() if task.sample for name in task.run_tasks)
        raise ValueError(f"{run} is a run of {name!r}, which has nothing to draw; wanted one of {wanted}.")
    path = _check_path(out or opened.folder / "samples.csv")
    frame = task.sample(opened, rows, seed)
    path.parent.mkdir(parents=True, exist_ok=True)
    WRITERS[path.suffix.lower()](frame, path)
    show_frame(frame, "samples", rows=10)
    say(f"The table: {path}.")


def _check_path(path: Path) -> Path:
    if path.is_dir():
        raise IsADirectoryError(f"--out {path} is a folder; wanted a file, as {path / 'samples.csv'}.")
    if path.suffix.lower() not in WRITERS:
        raise ValueError(f"--out {path} ends in {path.suffix!r}; wanted .csv, .tsv or .parquet.")
    return path
