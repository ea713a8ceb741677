"""`neuralode evaluate`: precision against work, on a trained model."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from neuralode.cli.screen import console, in_one_sentence, show_points
from neuralode.train.run import Run


@in_one_sentence
def evaluate(
    run: Annotated[Path, typer.Argument(help="Folder of a trained model.")],
    rtol: Annotated[
        list[float] | None,
        typer.Option(help="Relative tolerance; give it once or several times.", show_default="1e-1 to 1e-5"),
    ] = None,
) -> None:
    """Solve a trained model at other tolerances: its accuracy, numerical error and evaluations on the test images."""
    opened = Run.open(run)
    # Here, not above: Lightning takes seconds to load, which --help and a mistyped folder should not.
    from neuralode.train import digits as task
    from neuralode.train.sweep import RTOLS

    show_points(task.evaluate(opened, rtol or RTOLS))
    console.print(f"Table and picture: {opened.folder / 'tolerances.csv'}, {opened.plots / 'tolerance.png'}.")
