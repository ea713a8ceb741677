"""Options and functions shared by the commands of all tasks."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from neuralode.terminal.console import INTERRUPTED, say, show_figures
from neuralode.training.run import Run, free_folder

if TYPE_CHECKING:
    import pandas as pd

    from neuralode.tasks.base import ConfigT, Task

# Options that mean the same in several commands.
Method = Annotated[str, typer.Option(help="Solver method; see `neuralode methods`.")]
Gradient = Annotated[str, typer.Option(help="replay, adjoint or direct.")]
StepSize = Annotated[float | None, typer.Option(help="Step size, for methods with fixed steps.")]
Epochs = Annotated[int, typer.Option(min=1, help="Maximum number of epochs.")]
Batches = Annotated[int | None, typer.Option(min=1, help="Maximum number of batches per epoch, for quick trials.")]
LearningRate = Annotated[float, typer.Option(help="Initial learning rate.")]
OneCycleRate = Annotated[float, typer.Option(help="Maximum of the one-cycle schedule.")]
Patience = Annotated[int, typer.Option(min=1, help="Stop after this many epochs without a lower validation loss.")]
Accelerator = Annotated[str, typer.Option(help="Accelerator, as in Lightning: auto, cpu, gpu, …")]
Resume = Annotated[Path | None, typer.Option(help="Resume this run; all other options are taken from it.")]


@dataclass(frozen=True)
class TaskCommands:
    """Commands of a task. Its ``command.py`` defines one of these, named ``COMMANDS``.

    ``command.py`` is imported for every ``--help``. It must not import Lightning or the task's ``run.py`` at the top:
    its functions do.

    Parameters
    ----------
    run_tasks : sequence of str
        Values of the entry ``task`` in the ``config.json`` of its runs.
    commands : mapping of str to callable
        Commands by the words that follow ``neuralode``, such as ``"train spirals"``; each is a Typer function.
    evaluate : callable, default=None
        ``evaluate(run, rtols, data)`` evaluates a run and prints the result, for ``neuralode evaluate``. ``rtols`` and
        ``data`` are its options, or None. Raises `ValueError` for an option that does not apply.
    sample : callable, default=None
        ``sample(run, count, seed)`` returns new rows as a data frame, for ``neuralode sample``.
    """

    run_tasks: Sequence[str]
    commands: Mapping[str, Callable[..., None]]
    evaluate: Callable[[Run, Sequence[float] | None, Path | None], None] | None = None
    sample: Callable[[Run, int, int], pd.DataFrame] | None = None


def train_or_resume(
    task_type: type[Task[ConfigT]],
    config: ConfigT | None,
    *,
    out: Path | None,
    resume: Path | None,
    name: Callable[[ConfigT], str],
    one_thread: bool = True,
) -> Run:
    """Train with progress output, or resume a run.

    Parameters
    ----------
    task_type : type
        The task.
    config : dataclass or None
        Options of a new run. Not used with ``resume``.
    out : Path or None
        Folder of a new run; None uses ``runs/<name(config)>``, numbered if it exists.
    resume : Path or None
        Folder of a run to resume.
    name : callable
        Returns the default name of the folder.
    one_thread : bool, default=True
        Limit torch to one thread, for models with small arrays.
    """
    from neuralode.tasks.runner import train
    from neuralode.terminal.progress import epoch_progress, use_one_thread

    if resume:
        config = task_type.load_config(Run.open(resume))
    assert config is not None
    folder = resume or out or free_folder(Path("runs") / name(config))
    callbacks, on_epoch = epoch_progress(config.epochs)
    if one_thread:
        use_one_thread()
    return train(task_type, config, folder, resume=resume is not None, callbacks=callbacks, on_epoch=on_epoch)


def show_result(run: Run, title: str, figures: Mapping[str, str]) -> None:
    """Print the results of a training, or how to resume it if it was interrupted.

    Parameters
    ----------
    run : Run
        The run.
    title : str
        Title of the table; up to a comma it is the name of the command.
    figures : mapping of str to str
        Results, as rich markup.
    """
    summary, config = run.summary, run.config
    parameters = f"{summary['parameters']:,}"
    epochs = f"{summary['epochs']}, {summary['seconds']:.0f} s"
    show_figures(title, {"model": config["model"], "parameters": parameters, "epochs": epochs, **figures})
    if summary["interrupted"]:
        exit_interrupted(f"neuralode train {title.split(',')[0]} --resume {run.folder}")
    say(f"The run is in {run.folder}, its figures in {run.plots}.")


def exit_interrupted(command: str) -> None:
    """Print the command that resumes an interrupted training, and exit."""
    say(f"Stopped by Ctrl-C; resume with: {command}")
    raise typer.Exit(INTERRUPTED)
