"""`neuralode train matching`."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from neuralode.tasks.command import (
    LearningRate,
    Resume,
    TaskCommands,
    show_result,
    train_or_resume,
)
from neuralode.tasks.flow_matching.config import IMAGES, POINTS, RUN_TASKS, FlowMatchingConfig
from neuralode.training.config_io import SEEDS
from neuralode.training.run import Run

if TYPE_CHECKING:
    import pandas as pd

# Entries of a summary that are shown, for points and for images.
FIGURES = (
    "energy_distance", "energy_by_chance", "p_value", "test_nats", "divergence",
    "class_accuracy", "class_accuracy_of_test", "taught_accuracy", "nearest", "nearest_of_test",
)  # fmt: skip


def matching(
    data: Annotated[str, typer.Option(help="moons, circles, pinwheel, 8gaussians, checkerboard or digits.")] = (
        FlowMatchingConfig.data
    ),
    path: Annotated[str, typer.Option(help="linear, variance-preserving or cosine.")] = FlowMatchingConfig.path,
    coupling: Annotated[str, typer.Option(help="independent or optimal-transport.")] = FlowMatchingConfig.coupling,
    grid: Annotated[
        str, typer.Option(help="Time grid of sampling: uniform, edm or adaptive.")
    ] = FlowMatchingConfig.grid,
    steps: Annotated[int, typer.Option(min=1, help="Steps of sampling.")] = FlowMatchingConfig.steps,
    method: Annotated[
        str | None, typer.Option(help="Solver method of sampling.", show_default="euler; tsit5 on an adaptive grid")
    ] = None,
    guidance: Annotated[
        float, typer.Option(help="Guidance weight of digits; 1 is no guidance.")
    ] = FlowMatchingConfig.guidance,
    seed: Annotated[
        int, typer.Option(min=0, max=SEEDS, help="Seed of the data, the initial weights and the batches.")
    ] = FlowMatchingConfig.seed,
    epochs: Annotated[int, typer.Option(min=1, help="Number of epochs.")] = FlowMatchingConfig.epochs,
    batches: Annotated[int, typer.Option(min=1, help="Batches per epoch.")] = FlowMatchingConfig.batches,
    batch_size: Annotated[
        int | None, typer.Option(min=1, help="Examples per step.", show_default="256; 128 for digits")
    ] = None,
    learning_rate: LearningRate = FlowMatchingConfig.learning_rate,
    width: Annotated[
        int | None, typer.Option(min=1, help="Width of the hidden layers.", show_default="128; 256 for digits")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Folder of the run.", show_default="runs/matching-DATA")] = None,
    resume: Resume = None,
) -> None:
    """Train a flow by flow matching, without a solver in training, and sample points or digits."""
    from neuralode.tasks.flow_matching.run import FlowMatchingTask

    default = IMAGES if data == IMAGES.data else POINTS
    config = replace(
        default, data=data, path=path, coupling=coupling, grid=grid, steps=steps, method=method, guidance=guidance,
        seed=seed, epochs=epochs, batches=batches, batch_size=batch_size or default.batch_size,
        learning_rate=learning_rate, width=width or default.width,
    )  # fmt: skip
    run = train_or_resume(
        FlowMatchingTask, config, out=out, resume=resume, name=lambda config: f"matching-{config.data}"
    )
    names = [name for name in FIGURES if name in run.summary]
    figures = {name.replace("_", " "): f"{run.summary[name]:.4g}" for name in names}
    show_result(run, f"matching, {run.config['data']}", figures)


def sample(run: Run, count: int, seed: int) -> pd.DataFrame:
    """Return new points or digits from the flow of a run."""
    from neuralode.tasks.flow_matching import run as flow_matching

    return flow_matching.sample(run, count, seed)


COMMANDS = TaskCommands(run_tasks=RUN_TASKS, commands={"train matching": matching}, sample=sample)
