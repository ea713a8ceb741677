"""`neuralode evaluate`: what a trained model is worth, on data it has not seen."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from neuralode.cli.screen import in_one_sentence, say, show_comparison, show_points
from neuralode.training.run import Run


@in_one_sentence
def evaluate(
    run: Annotated[Path, typer.Argument(help="Folder of a trained model.")],
    rtol: Annotated[
        list[float] | None,
        typer.Option(help="Of images: relative tolerance; give it once or several times.", show_default="1e-1 to 1e-5"),
    ] = None,
    data: Annotated[Path | None, typer.Option(help="Of series: another table, whose ends are forecast.")] = None,
) -> None:
    """Precision against work of an image model on its test images; errors of a forecaster beside the baselines."""
    opened = Run.open(run)
    named = opened.config.get("task")
    # Here, not above: Lightning takes seconds to load, which --help and a mistyped folder should not.
    if named == "series":
        from neuralode.tasks.fit import run as runs

        if rtol:
            raise ValueError("--rtol is of images; wanted nothing, or --data, for a run on series.")
        show_comparison(runs.evaluate_run(opened, data))
        return
    from neuralode.tasks.images import run as task
    from neuralode.tasks.images.tolerance_sweep import RTOLS

    if named not in task.SETS:
        raise ValueError(f"{run} is a run of {named!r}; its figures are in its summary.json.")
    if data is not None:
        raise ValueError("--data is of series; wanted nothing, or --rtol, for a run on images.")
    show_points(task.evaluate(opened, rtol or RTOLS))
    say(f"Table and picture: {opened.folder / 'tolerances.csv'}, {opened.plots / 'tolerance.png'}.")
