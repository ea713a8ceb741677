"""What a command says as a training ends."""

from __future__ import annotations

import typer

from neuralode.cli.screen import INTERRUPTED, say, show_figures
from neuralode.training.run import Run


def finish(run: Run, task: str, figures: dict[str, str]) -> None:
    """Say what came of a training, or how to go on with it."""
    summary, config = run.summary, run.config
    parameters = f"{summary['parameters']:,}"
    epochs = f"{summary['epochs']}, {summary['seconds']:.0f} s"
    show_figures(task, {"model": config["model"], "parameters": parameters, "epochs": epochs, **figures})
    if summary["interrupted"]:
        say(f"Stopped by Ctrl-C; go on with: neuralode train {task.split(',')[0]} --resume {run.folder}")
        raise typer.Exit(INTERRUPTED)
    say(f"The run is in {run.folder}, its pictures in {run.plots}.")
