"""`neuralode train density`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from neuralode.tasks.command import (
    Accelerator,
    Epochs,
    Gradient,
    LearningRate,
    Patience,
    Resume,
    StepSize,
    TaskCommands,
    show_result,
    train_or_resume,
)
from neuralode.tasks.density.config import RUN_TASKS, DensityConfig
from neuralode.terminal.console import say
from neuralode.training.config_io import SEEDS
from neuralode.training.run import Run

if TYPE_CHECKING:
    import pandas as pd


def density(
    data: Annotated[
        str | None,
        typer.Option(help="A .csv, .tsv or .parquet file; or moons, circles, pinwheel, 8gaussians, checkerboard."),
    ] = None,
    columns: Annotated[str | None, typer.Option(help="Columns to model: a,b,c.", show_default="all")] = None,
    rows: Annotated[
        int, typer.Option(min=10, help="Number of rows to draw, for moons and the like.")
    ] = DensityConfig.rows,
    width: Annotated[int, typer.Option(min=1, help="Width of the hidden layers.")] = DensityConfig.width,
    layers: Annotated[int, typer.Option(min=1, help="Number of hidden layers.")] = DensityConfig.layers,
    divergence: Annotated[
        str | None,
        typer.Option(
            help="Divergence in training: exact, hutchinson or hutch++.",
            show_default="exact, or hutchinson above 20 columns",
        ),
    ] = DensityConfig.divergence,
    kinetic: Annotated[
        float | None,
        typer.Option(min=0, help="Weight of the kinetic energy.", show_default="0.05, less for many rows"),
    ] = DensityConfig.kinetic,
    frobenius: Annotated[
        float | None,
        typer.Option(min=0, help="Weight of the Frobenius norm of ∂f/∂x.", show_default="0.05, less for many rows"),
    ] = DensityConfig.frobenius,
    jitter: Annotated[
        float, typer.Option(min=0, help="Random shift of the end time in training.")
    ] = DensityConfig.jitter,
    gradient: Gradient = DensityConfig.gradient,
    method: Annotated[
        str, typer.Option(help="Solver method in training; see `neuralode methods`.")
    ] = DensityConfig.method,
    rtol: Annotated[float, typer.Option(help="Relative and absolute tolerance in training.")] = DensityConfig.rtol,
    step_size: StepSize = DensityConfig.step_size,
    spread: Annotated[bool, typer.Option(help="Spread out values that most rows repeat.")] = DensityConfig.spread,
    seed: Annotated[
        int, typer.Option(min=0, max=SEEDS, help="Seed of the split, the initial weights and the batches.")
    ] = DensityConfig.seed,
    epochs: Epochs = DensityConfig.epochs,
    batch_size: Annotated[int, typer.Option(min=1, help="Rows per step.")] = DensityConfig.batch_size,
    learning_rate: LearningRate = DensityConfig.learning_rate,
    patience: Patience = DensityConfig.patience,
    accelerator: Accelerator = DensityConfig.accelerator,
    out: Annotated[Path | None, typer.Option(help="Folder of the run.", show_default="runs/density-NAME")] = None,
    resume: Resume = None,
) -> None:
    """Learn the density of table rows, to find outliers and to draw new rows with `neuralode sample`."""
    from neuralode.tasks.density.run import DensityTask

    if (data is None) == (resume is None):
        raise ValueError("wanted either a table by --data, or a run to resume by --resume.")
    config = None
    if data is not None:
        names = None if columns is None else tuple(name.strip() for name in columns.split(","))
        config = DensityConfig(
            data=data, columns=names, rows=rows, width=width, layers=layers, divergence=divergence, kinetic=kinetic,
            frobenius=frobenius, jitter=jitter, method=method, rtol=rtol, step_size=step_size, gradient=gradient,
            spread=spread, seed=seed, epochs=epochs, batch_size=batch_size, learning_rate=learning_rate,
            patience=patience, accelerator=accelerator,
        )  # fmt: skip
    run = train_or_resume(
        DensityTask, config, out=out, resume=resume, name=lambda config: f"density-{Path(config.data).stem}"
    )
    _show(run)


def _show(run: Run) -> None:
    summary = run.summary
    for remark in summary["remarks"]:
        say(f"Note: {remark}")
    figures = {
        "rows, columns modelled": f"{sum(summary['rows'].values()):,}, {len(summary['modelled'])}",
        "nats per held-out row": f"[bold]{summary['test_nats']:.4f}[/] ± {summary['test_nats_error']:.4f}",
        "bits per dimension": f"{summary['test_bits_per_dimension']:.4f}",
        "nats of a normal distribution": f"{summary['gaussian_nats']:.4f}",
    }
    if "entropy" in summary:
        figures["entropy of the truth"] = f"{summary['entropy']:.4f}"
    show_result(run, "density", figures)
    say(f"Scores of all rows: {run.folder / 'scores.csv'}. Next: neuralode sample {run.folder}")


def sample(run: Run, count: int, seed: int) -> pd.DataFrame:
    """Return new rows from the density of a run."""
    from neuralode.tasks.density import run as density_run

    return density_run.sample(run, count, seed)


COMMANDS = TaskCommands(run_tasks=RUN_TASKS, commands={"train density": density}, sample=sample)
