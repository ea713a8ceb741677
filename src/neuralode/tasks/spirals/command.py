"""`neuralode train spirals`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from neuralode.tasks.command import (
    Gradient,
    Method,
    OneCycleRate,
    Resume,
    TaskCommands,
    show_result,
    train_or_resume,
)
from neuralode.tasks.spirals.config import RUN_TASKS, SpiralsConfig


def spirals(
    observed: Annotated[int, typer.Option(help="Points observed of the 100 of each series.")] = SpiralsConfig.observed,
    model: Annotated[str, typer.Option(help="latent-ode or rnn.")] = SpiralsConfig.model,
    gradient: Gradient = SpiralsConfig.gradient,
    method: Method = SpiralsConfig.method,
    rtol: Annotated[float, typer.Option(help="Relative and absolute tolerance of the solver.")] = SpiralsConfig.rtol,
    seed: Annotated[
        int, typer.Option(help="Seed of the series, the initial weights and the batches.")
    ] = SpiralsConfig.seed,
    epochs: Annotated[int, typer.Option(min=1, help="Number of epochs.")] = SpiralsConfig.epochs,
    batches: Annotated[int, typer.Option(min=1, help="Batches per epoch.")] = SpiralsConfig.batches,
    batch_size: Annotated[int, typer.Option(min=1, help="Series per step.")] = SpiralsConfig.batch_size,
    learning_rate: OneCycleRate = SpiralsConfig.learning_rate,
    latent: Annotated[int, typer.Option(min=1, help="Dimension of the latent state.")] = SpiralsConfig.latent,
    out: Annotated[Path | None, typer.Option(help="Folder of the run.", show_default="runs/spirals-MODEL")] = None,
    resume: Resume = None,
) -> None:
    """Forecast the paper's noisy spirals, by default with a latent ODE. See also `neuralode reproduce table2`."""
    from neuralode.tasks.spirals.run import SpiralsTask

    config = SpiralsConfig(
        observed=observed, model=model, gradient=gradient, method=method, rtol=rtol, atol=rtol, seed=seed,
        epochs=epochs, batches=batches, batch_size=batch_size, learning_rate=learning_rate, latent=latent,
    )  # fmt: skip
    run = train_or_resume(SpiralsTask, config, out=out, resume=resume, name=lambda config: f"spirals-{config.model}")
    show_result(
        run,
        "spirals",
        {
            "error beyond the window": f"[bold]{run.summary['test_rmse']:.4f}[/]",
            "error within the window": f"{run.summary['window_rmse']:.4f}",
            "smallest possible error beyond": f"{run.summary['floor_rmse']:.4f}",
        },
    )


COMMANDS = TaskCommands(run_tasks=RUN_TASKS, commands={"train spirals": spirals})
