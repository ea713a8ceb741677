"""`neuralode train physionet`."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from neuralode.core.registry import pick
from neuralode.tasks.command import Batches, Resume, TaskCommands, show_result, train_or_resume
from neuralode.tasks.physionet.config import DEFAULTS, RUN_TASKS, PhysioNetConfig


def physionet(
    task: Annotated[str, typer.Option(help="mortality or interpolation.")] = PhysioNetConfig.task,
    model: Annotated[
        str | None,
        typer.Option(
            help="odernn, gru-decay or rnn; latent-ode for interpolation.",
            show_default="odernn or latent-ode, by task",
        ),
    ] = None,
    sets: Annotated[
        str, typer.Option(help="Sets of the challenge: a, b, c; 4,000 patients each.")
    ] = PhysioNetConfig.sets,
    every: Annotated[int, typer.Option(min=1, help="Round times to this many minutes.")] = PhysioNetConfig.every,
    method: Annotated[
        str, typer.Option(help="Solver method between observations; see `neuralode methods`.")
    ] = PhysioNetConfig.method,
    steps: Annotated[int, typer.Option(min=1, help="Steps between observations.")] = PhysioNetConfig.steps,
    seed: Annotated[
        int, typer.Option(help="Seed of the split, the initial weights and the batches.")
    ] = PhysioNetConfig.seed,
    epochs: Annotated[
        int | None, typer.Option(min=1, help="Maximum number of epochs.", show_default="8, or 30 for interpolation")
    ] = None,
    batch_size: Annotated[int, typer.Option(min=1, help="Patients per step.")] = PhysioNetConfig.batch_size,
    learning_rate: Annotated[
        float | None, typer.Option(help="Initial learning rate.", show_default="3e-3, or 1e-2 for interpolation")
    ] = None,
    hidden: Annotated[int, typer.Option(min=1, help="Dimension of the hidden state.")] = PhysioNetConfig.hidden,
    batches: Batches = None,
    out: Annotated[Path | None, typer.Option(help="Folder of the run.", show_default="runs/physionet-MODEL")] = None,
    resume: Resume = None,
) -> None:
    """Predict in-hospital mortality, or impute missing measurements (PhysioNet 2012)."""
    from neuralode.tasks.physionet.run import PhysioNetTask

    default = pick("task", task, DEFAULTS, kind=PhysioNetConfig)
    config = replace(
        default, model=model or default.model, sets=sets, every=every, method=method, steps=steps, seed=seed,
        epochs=epochs or default.epochs, batch_size=batch_size, hidden=hidden, batches=batches,
        learning_rate=default.learning_rate if learning_rate is None else learning_rate,
    )  # fmt: skip
    run = train_or_resume(
        PhysioNetTask, config, out=out, resume=resume, name=lambda config: f"physionet-{config.model}"
    )
    figures = {
        name.removeprefix("test_").replace("_", " "): f"{value:.4g}"
        for name, value in run.summary.items()
        if name.startswith("test_")
    }
    figures["time per epoch"] = f"{run.summary['seconds_per_epoch']:.1f} s"
    show_result(run, f"physionet, {run.config['training']['task']}", figures)


COMMANDS = TaskCommands(run_tasks=RUN_TASKS, commands={"train physionet": physionet})
