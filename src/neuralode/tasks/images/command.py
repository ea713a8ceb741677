"""`neuralode train digits`, `mnist` and `fashion-mnist`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from neuralode.tasks.command import (
    Accelerator,
    Batches,
    Epochs,
    Method,
    OneCycleRate,
    Patience,
    Resume,
    StepSize,
    TaskCommands,
    exit_interrupted,
    train_or_resume,
)
from neuralode.tasks.images.config import DEFAULTS, RUN_TASKS, SUMMARIES, ImagesConfig
from neuralode.terminal.console import console, say, show_figures
from neuralode.training.run import Run

if TYPE_CHECKING:
    from neuralode.tasks.images.tolerance_sweep import Point

POINT_COLUMNS = ("rtol", "evaluations", "relative error", "test accuracy", "seconds")
Model = Annotated[str, typer.Option(help="odenet, rknet, resnet, resnet1 or noblock.")]
Gradient = Annotated[
    str | None, typer.Option(help="replay, adjoint or direct.", show_default="replay; direct for rknet")
]
Rtol = Annotated[float, typer.Option(help="Relative tolerance of the solver.")]
Atol = Annotated[float | None, typer.Option(help="Absolute tolerance of the solver.", show_default="rtol")]
Engine = Annotated[str, typer.Option(help="Engine of the solver.")]
Seed = Annotated[int, typer.Option(help="Seed of the split, the initial weights and the batches.")]
BatchSize = Annotated[int, typer.Option(min=1, help="Images per step.")]
Precision = Annotated[str, typer.Option(help="Precision, as in Lightning: 32-true, bf16-mixed, 16-mixed, …")]
Devices = Annotated[str, typer.Option(help="Devices, as in Lightning: auto, their number, or a list of them.")]
ChannelsLast = Annotated[bool, typer.Option(help="Use the channels-last memory format.")]
CheckpointEvery = Annotated[
    int | None, typer.Option(min=1, help="Steps between checkpoints.", show_default="one every 10 seconds")
]
Out = Annotated[Path | None, typer.Option(help="Folder of the run.", show_default="runs/DATA-MODEL")]


def train_command(default: ImagesConfig) -> Callable[..., None]:
    """Return the command for the data set of ``default``, whose other fields are the defaults of the options."""

    def train(
        model: Model = default.model,
        gradient: Gradient = default.gradient,
        method: Method = default.method,
        rtol: Rtol = default.rtol,
        atol: Atol = default.atol,
        step_size: StepSize = default.step_size,
        engine: Engine = default.engine,
        seed: Seed = default.seed,
        epochs: Epochs = default.epochs,
        batch_size: BatchSize = default.batch_size,
        learning_rate: OneCycleRate = default.learning_rate,
        patience: Patience = default.patience,
        precision: Precision = default.precision,
        accelerator: Accelerator = default.accelerator,
        devices: Devices = default.devices,
        channels_last: ChannelsLast = default.channels_last,
        batches: Batches = default.batches,
        checkpoint_every: CheckpointEvery = default.checkpoint_every,
        out: Out = None,
        resume: Resume = None,
    ) -> None:
        config = ImagesConfig(
            data=default.data,
            model=model,
            gradient=gradient,
            method=method,
            rtol=rtol,
            atol=atol,
            step_size=step_size,
            engine=engine,
            seed=seed,
            epochs=epochs,
            batch_size=batch_size,
            learning_rate=learning_rate,
            patience=patience,
            precision=precision,
            accelerator=accelerator,
            devices=devices,
            channels_last=channels_last,
            batches=batches,
            checkpoint_every=checkpoint_every,
        )
        _train(config, out, resume)

    train.__doc__ = f"Classify {SUMMARIES[default.data]}, by default with the ODE-Net of Chen et al. 2018."
    return train


def _train(config: ImagesConfig, out: Path | None, resume: Path | None) -> None:
    from neuralode.tasks.images import run as images
    from neuralode.training.fit import is_global_zero

    if resume:
        _check_data(images.ImagesTask.load_config(Run.open(resume)).data, config.data, resume)
    was_finished = resume is not None and Run(resume).finished
    run = train_or_resume(
        images.ImagesTask,
        config,
        out=out,
        resume=resume,
        name=lambda config: f"{config.data}-{config.model}",
        one_thread=False,
    )
    if not is_global_zero():
        return
    show_summary(run)
    if was_finished:
        return
    if run.summary["interrupted"]:
        exit_interrupted(f"neuralode train {config.data} --resume {run.folder}")
    if images.has_tolerances(run):
        show_points(images.evaluate(run))
    say(f"The run is in {run.folder}, its figures in {run.plots}.")


def _check_data(data: str, command: str, folder: Path) -> None:
    if data != command:
        raise ValueError(f"{folder} is a run of {data!r}; resume it with: neuralode train {data} --resume {folder}")


def evaluate(run: Run, rtols: Sequence[float] | None, data: Path | None) -> None:
    """Evaluate a run on its test images at several tolerances, and print the results."""
    from neuralode.tasks.images import run as images

    if data is not None:
        raise ValueError("--data is for series; wanted nothing, or --rtol, for a run on images.")
    show_points(images.evaluate(run, rtols or images.RTOLS))
    say(f"Table and figure: {run.folder / 'tolerances.csv'}, {run.plots / 'tolerance.png'}.")


def show_summary(run: Run) -> None:
    """Print the model, the training and the test results of a run."""
    config, summary = run.config, run.summary
    figures = {
        "model": config["model"],
        "parameters": f"{summary['parameters']:,}",
        "seed": str(config["training"]["seed"]),
        "epochs": str(summary["epochs"]),
        "training": f"{summary['seconds']:.1f} s",
        "test loss": f"{summary['test_loss']:.4f}",
        "test accuracy": f"[bold]{summary['test_accuracy']:.2%}[/]",
    }
    if solver := config["solver"]:
        steps = f"rtol {solver['rtol']:g}" if solver["step_size"] is None else f"step {solver['step_size']:g}"
        figures["solver"] = f"{solver['method']}, {steps}, gradient {solver['gradient']}, engine {solver['engine']}"
        figures["evaluations per solve"] = f"{summary['test_evaluations']:.1f}"
    show_figures(config["task"], figures)


def show_points(points: Sequence[Point]) -> None:
    """Print the results at several tolerances."""
    table = Table(*POINT_COLUMNS, title="accuracy against work")
    for column in table.columns:
        column.justify = "right"
    for point in points:
        cells = f"{point.rtol:g}", f"{point.evaluations:.1f}", f"{point.error:.1e}", f"{point.accuracy:.2%}"
        table.add_row(*cells, f"{point.seconds:.2f}")
    console.print(table)


COMMANDS = TaskCommands(
    run_tasks=RUN_TASKS,
    commands={f"train {name}": train_command(default) for name, default in DEFAULTS.items()},
    evaluate=evaluate,
)
