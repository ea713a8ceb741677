"""`neuralode evaluate`: evaluate a trained model on test data."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from neuralode.tasks.registry import task_of
from neuralode.terminal.console import in_one_sentence
from neuralode.training.run import Run


@in_one_sentence
def evaluate(
    run: Annotated[Path, typer.Argument(help="Folder of a run.")],
    rtol: Annotated[
        list[float] | None,
        typer.Option(help="Image models: relative tolerance; may be given several times.", show_default="1e-1 to 1e-5"),
    ] = None,
    data: Annotated[
        Path | None, typer.Option(help="Forecasters: another table, whose ends of series are forecast.")
    ] = None,
) -> None:
    """Evaluate an image model at several solver tolerances, or compare a forecaster with baselines."""
    opened = Run.open(run)
    task = task_of(opened)
    if task is None or task.evaluate is None:
        raise ValueError(f"{run} is a run of {opened.config.get('task')!r}; its results are in its summary.json.")
    task.evaluate(opened, rtol or None, data)
