"""`neuralode train spirals` and `physionet`: irregular series."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from neuralode.cli.screen import in_one_sentence
from neuralode.cli.train.finish import finish
from neuralode.core.registry import pick
from neuralode.tasks.config import INTERPOLATION, MORTALITY, PhysioNet, Spirals
from neuralode.training.run import Run, free_folder


@in_one_sentence
def spirals(
    observed: Annotated[int, typer.Option(help="Points kept of the 100 of each series.")] = Spirals.observed,
    model: Annotated[str, typer.Option(help="latent-ode or rnn.")] = Spirals.model,
    gradient: Annotated[str, typer.Option(help="replay, adjoint or direct.")] = Spirals.gradient,
    method: Annotated[str, typer.Option(help="How the ODE is solved.")] = Spirals.method,
    rtol: Annotated[float, typer.Option(help="Relative tolerance of the solver.")] = Spirals.rtol,
    seed: Annotated[int, typer.Option(help="Of the series, the first weights and the batches.")] = Spirals.seed,
    epochs: Annotated[int, typer.Option(min=1, help="Of the training.")] = Spirals.epochs,
    batches: Annotated[int, typer.Option(min=1, help="In each epoch.")] = Spirals.batches,
    batch_size: Annotated[int, typer.Option(min=1, help="Series per step of the optimizer.")] = Spirals.batch_size,
    learning_rate: Annotated[float, typer.Option(help="The highest.")] = Spirals.learning_rate,
    latent: Annotated[int, typer.Option(min=1, help="Size of the latent state.")] = Spirals.latent,
    out: Annotated[Path | None, typer.Option(help="Folder of the run.", show_default="runs/spirals-MODEL")] = None,
    resume: Annotated[Path | None, typer.Option(help="Go on with this run; other options are its own.")] = None,
) -> None:
    """Forecast the paper's noisy spirals, by default with a latent ODE; see also: neuralode reproduce table2."""
    from neuralode.cli.progress import one_thread, telling
    from neuralode.tasks.spirals import run as task

    wanted = Spirals(
        observed=observed, model=model, gradient=gradient, method=method, rtol=rtol, atol=rtol, seed=seed,
        epochs=epochs, batches=batches, batch_size=batch_size, learning_rate=learning_rate, latent=latent,
    )  # fmt: skip
    if resume:
        wanted = task.asked(Run.open(resume))
    folder = resume or out or free_folder(Path("runs") / f"spirals-{wanted.model}")
    callbacks, tell = telling(wanted.epochs)
    one_thread()
    run = task.train(wanted, folder, resume=resume is not None, callbacks=callbacks, tell=tell)
    finish(
        run,
        "spirals",
        {
            "error beyond the window": f"[bold]{run.summary['test_rmse']:.4f}[/]",
            "error within": f"{run.summary['window_rmse']:.4f}",
            "smallest possible beyond": f"{run.summary['floor_rmse']:.4f}",
        },
    )


@in_one_sentence
def physionet(
    task: Annotated[str, typer.Option(help="mortality or interpolation.")] = PhysioNet.task,
    model: Annotated[
        str | None,
        typer.Option(
            help="odernn, gru-decay or rnn; latent-ode to interpolate.", show_default="odernn or latent-ode, by task"
        ),
    ] = None,
    sets: Annotated[str, typer.Option(help="Of the challenge: a, b, c, 4,000 patients each.")] = PhysioNet.sets,
    every: Annotated[int, typer.Option(min=1, help="Minutes to which times are rounded.")] = PhysioNet.every,
    method: Annotated[str, typer.Option(help="How the ODE is solved between observations.")] = PhysioNet.method,
    steps: Annotated[int, typer.Option(min=1, help="Steps between observations.")] = PhysioNet.steps,
    seed: Annotated[int, typer.Option(help="Of the split, the first weights and the batches.")] = PhysioNet.seed,
    epochs: Annotated[
        int | None, typer.Option(min=1, help="Of the training.", show_default="8, or 30 to interpolate")
    ] = None,
    batch_size: Annotated[int, typer.Option(min=1, help="Patients per step of the optimizer.")] = PhysioNet.batch_size,
    learning_rate: Annotated[
        float | None, typer.Option(help="The highest.", show_default="3e-3, or 1e-2 to interpolate")
    ] = None,
    hidden: Annotated[int, typer.Option(min=1, help="Size of the hidden state.")] = PhysioNet.hidden,
    batches: Annotated[
        int | None, typer.Option(min=1, help="At most so many batches an epoch: to try things out.")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Folder of the run.", show_default="runs/physionet-MODEL")] = None,
    resume: Annotated[Path | None, typer.Option(help="Go on with this run; other options are its own.")] = None,
) -> None:
    """Who dies in hospital, or what was not measured: intensive care, as PhysioNet 2012 has it."""
    from neuralode.cli.progress import one_thread, telling
    from neuralode.tasks.physionet import run as experiment

    usual = pick("task", task, {"mortality": MORTALITY, "interpolation": INTERPOLATION}, PhysioNet)
    wanted = replace(
        usual, model=model or usual.model, sets=sets, every=every, method=method, steps=steps, seed=seed,
        epochs=epochs or usual.epochs, batch_size=batch_size, hidden=hidden, batches=batches,
        learning_rate=usual.learning_rate if learning_rate is None else learning_rate,
    )  # fmt: skip
    if resume:
        wanted = experiment.asked(Run.open(resume))
    folder = resume or out or free_folder(Path("runs") / f"physionet-{wanted.model}")
    callbacks, tell = telling(wanted.epochs)
    one_thread()
    run = experiment.train(wanted, folder, resume=resume is not None, callbacks=callbacks, tell=tell)
    tested = {name.removeprefix("test_").replace("_", " "): value for name, value in run.summary.items()
              if name.startswith("test_")}  # fmt: skip
    figures = {name: f"{value:.4g}" for name, value in tested.items()}
    finish(run, f"physionet, {wanted.task}", {**figures, "an epoch": f"{run.summary['seconds_per_epoch']:.1f} s"})
