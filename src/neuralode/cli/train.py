"""`neuralode train`: one subcommand per task."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from neuralode.cli.screen import INTERRUPTED, in_one_sentence, say, show_figures, show_points, show_summary
from neuralode.registry import pick
from neuralode.train.config import (
    INTERPOLATION,
    MATCHING_IMAGES,
    MATCHING_POINTS,
    MORTALITY,
    Density,
    Digits,
    Matching,
    PhysioNet,
    Spirals,
)
from neuralode.train.run import Run, free_folder

train = typer.Typer(help="Train a model; what comes of it is a run, a folder.", no_args_is_help=True)


@train.callback()
def _tasks() -> None:
    """Train a model; what comes of it is a run, a folder."""


@train.command()
@in_one_sentence
def digits(
    model: Annotated[str, typer.Option(help="odenet, rknet, resnet, resnet1 or noblock.")] = Digits.model,
    gradient: Annotated[
        str | None,
        typer.Option(help="replay, adjoint or direct.", show_default="replay; direct for rknet"),
    ] = Digits.gradient,
    method: Annotated[str, typer.Option(help="How the ODE is solved.")] = Digits.method,
    rtol: Annotated[float, typer.Option(help="Relative tolerance of the solver.")] = Digits.rtol,
    atol: Annotated[float | None, typer.Option(help="Absolute tolerance.", show_default="rtol")] = Digits.atol,
    step_size: Annotated[float | None, typer.Option(help="For methods with a fixed step.")] = Digits.step_size,
    engine: Annotated[str, typer.Option(help="What repeats the steps.")] = Digits.engine,
    seed: Annotated[int, typer.Option(help="Of the split, the first weights and the batches.")] = Digits.seed,
    epochs: Annotated[int, typer.Option(min=1, help="How often each image is seen.")] = Digits.epochs,
    batch_size: Annotated[int, typer.Option(min=1, help="Images per step of the optimizer.")] = Digits.batch_size,
    learning_rate: Annotated[float, typer.Option(help="The highest of the one-cycle schedule.")] = Digits.learning_rate,
    patience: Annotated[int, typer.Option(help="Epochs to wait for a lower validation loss.")] = Digits.patience,
    precision: Annotated[str, typer.Option(help="Lightning's: 32-true, bf16-mixed, 16-mixed …")] = Digits.precision,
    accelerator: Annotated[str, typer.Option(help="Lightning's: auto, cpu, gpu …")] = Digits.accelerator,
    devices: Annotated[str, typer.Option(help="Lightning's: auto, a number, or a list of them.")] = Digits.devices,
    batches: Annotated[int | None, typer.Option(help="At most so many batches an epoch: to try things out.")] = None,
    out: Annotated[Path | None, typer.Option(help="Folder of the run.", show_default="runs/digits-MODEL")] = None,
    resume: Annotated[Path | None, typer.Option(help="Go on with this run; other options are its own.")] = None,
) -> None:
    """Classify scikit-learn's 1,797 handwritten digits, by default with the ODE-Net of Chen et al. 2018."""
    # Here, not above: Lightning takes seconds to load, which --help should not.
    from neuralode.cli.progress import is_global_zero, telling
    from neuralode.train import digits as task

    wanted = Digits(
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
        batches=batches,
    )
    if resume:
        wanted = task.asked(Run.open(resume))
    folder = resume or out or free_folder(Path("runs") / f"digits-{wanted.model}")

    callbacks, tell = telling(wanted.epochs)
    run = task.train(wanted, folder, resume=resume is not None, callbacks=callbacks, tell=tell)
    if not is_global_zero():
        return  # one process of several speaks for all
    show_summary(run)
    if run.summary["interrupted"]:
        say(f"Stopped by Ctrl-C; go on with: neuralode train digits --resume {folder}")
        raise typer.Exit(INTERRUPTED)
    if task.takes_tolerances(run):
        show_points(task.evaluate(run))
    say(f"The run is in {folder}, its pictures in {run.plots}.")


@train.command()
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
    from neuralode.train import spirals as task

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
    _finish(
        run,
        "spirals",
        {
            "error beyond the window": f"[bold]{run.summary['test_rmse']:.4f}[/]",
            "error within": f"{run.summary['window_rmse']:.4f}",
            "smallest possible beyond": f"{run.summary['floor_rmse']:.4f}",
        },
    )


@train.command()
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
    batches: Annotated[int | None, typer.Option(help="At most so many batches an epoch: to try things out.")] = None,
    out: Annotated[Path | None, typer.Option(help="Folder of the run.", show_default="runs/physionet-MODEL")] = None,
    resume: Annotated[Path | None, typer.Option(help="Go on with this run; other options are its own.")] = None,
) -> None:
    """Who dies in hospital, or what was not measured: intensive care, as PhysioNet 2012 has it."""
    from neuralode.cli.progress import one_thread, telling
    from neuralode.train import physionet as experiment

    usual = pick("task", task, {"mortality": MORTALITY, "interpolation": INTERPOLATION}, PhysioNet)
    wanted = replace(
        usual, model=model or usual.model, sets=sets, every=every, method=method, steps=steps, seed=seed,
        epochs=epochs or usual.epochs, batch_size=batch_size, learning_rate=learning_rate or usual.learning_rate,
        hidden=hidden, batches=batches,
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
    _finish(run, f"physionet, {wanted.task}", {**figures, "an epoch": f"{run.summary['seconds_per_epoch']:.1f} s"})


@train.command()
@in_one_sentence
def density(
    data: Annotated[
        str | None,
        typer.Option(help="A table, .csv, .tsv or .parquet; or moons, circles, pinwheel, 8gaussians, checkerboard."),
    ] = None,
    columns: Annotated[str | None, typer.Option(help="Columns to model: a,b,c.", show_default="all")] = None,
    rows: Annotated[int, typer.Option(min=10, help="How many to draw, for moons and the like.")] = Density.rows,
    width: Annotated[int, typer.Option(min=1, help="Numbers in a hidden layer.")] = Density.width,
    layers: Annotated[int, typer.Option(min=1, help="Hidden layers.")] = Density.layers,
    divergence: Annotated[
        str | None,
        typer.Option(
            help="In training: exact, hutchinson or hutch++.", show_default="exact, or hutchinson above 20 columns"
        ),
    ] = Density.divergence,
    kinetic: Annotated[float, typer.Option(min=0, help="Weight of the speed of paths.")] = Density.kinetic,
    frobenius: Annotated[float, typer.Option(min=0, help="Weight of how they part.")] = Density.frobenius,
    jitter: Annotated[float, typer.Option(min=0, help="Of the end time, in training.")] = Density.jitter,
    gradient: Annotated[str, typer.Option(help="replay, adjoint or direct.")] = Density.gradient,
    method: Annotated[str, typer.Option(help="How the ODE is solved in training.")] = Density.method,
    rtol: Annotated[float, typer.Option(help="Tolerance of that.")] = Density.rtol,
    step_size: Annotated[float | None, typer.Option(help="For methods with a fixed step.")] = Density.step_size,
    spread: Annotated[bool, typer.Option(help="Spread values that most rows repeat.")] = Density.spread,
    seed: Annotated[int, typer.Option(help="Of the split, the first weights and the batches.")] = Density.seed,
    epochs: Annotated[int, typer.Option(min=1, help="At most.")] = Density.epochs,
    batch_size: Annotated[int, typer.Option(min=1, help="Rows per step of the optimizer.")] = Density.batch_size,
    learning_rate: Annotated[float, typer.Option(help="At the beginning.")] = Density.learning_rate,
    patience: Annotated[int, typer.Option(min=1, help="Epochs to wait for fewer nats.")] = Density.patience,
    accelerator: Annotated[str, typer.Option(help="Lightning's: auto, cpu, gpu …")] = Density.accelerator,
    out: Annotated[Path | None, typer.Option(help="Folder of the run.", show_default="runs/density-NAME")] = None,
    resume: Annotated[Path | None, typer.Option(help="Go on with this run; other options are its own.")] = None,
) -> None:
    """How likely each row of a table is: for odd ones out, and for new rows by `neuralode sample`."""
    from neuralode.cli.progress import one_thread, telling
    from neuralode.train import density as task

    if (data is None) == (resume is None):
        raise ValueError("wanted rows to learn from by --data, or a run to go on with by --resume: one of them.")
    if resume is not None:
        wanted = task.asked(Run.open(resume))
    else:
        assert data is not None
        names = None if columns is None else tuple(name.strip() for name in columns.split(","))
        wanted = Density(
            data=data, columns=names, rows=rows, width=width, layers=layers, divergence=divergence, kinetic=kinetic,
            frobenius=frobenius, jitter=jitter, method=method, rtol=rtol, step_size=step_size, gradient=gradient,
            spread=spread, seed=seed, epochs=epochs, batch_size=batch_size, learning_rate=learning_rate,
            patience=patience, accelerator=accelerator,
        )  # fmt: skip
    folder = resume or out or free_folder(Path("runs") / f"density-{Path(wanted.data).stem}")
    callbacks, tell = telling(wanted.epochs)
    one_thread()
    run = task.train(wanted, folder, resume=resume is not None, callbacks=callbacks, tell=tell)
    summary = run.summary
    for remark in summary["remarks"]:
        say(f"Note: {remark}")
    _finish(
        run,
        "density",
        {
            "rows, columns": f"{sum(summary['rows'].values()):,}, {len(summary['columns'])}",
            "nats a row, of rows held out": f"[bold]{summary['test_nats']:.4f}[/] ± {summary['test_nats_error']:.4f}",
            "bits a dimension": f"{summary['test_bits_per_dimension']:.4f}",
            "nats of a normal distribution": f"{summary['gaussian_nats']:.4f}",
            **({"entropy of the truth": f"{summary['entropy']:.4f}"} if "entropy" in summary else {}),
        },
    )
    say(f"A score for every row: {folder / 'scores.csv'}. Next: neuralode sample {folder}")


@train.command()
@in_one_sentence
def matching(
    data: Annotated[str, typer.Option(help="moons, circles, pinwheel, 8gaussians, checkerboard or digits.")] = (
        Matching.data
    ),
    path: Annotated[str, typer.Option(help="linear, variance-preserving or cosine.")] = Matching.path,
    coupling: Annotated[str, typer.Option(help="independent or optimal-transport.")] = Matching.coupling,
    grid: Annotated[str, typer.Option(help="Of sampling: uniform, edm or adaptive.")] = Matching.grid,
    steps: Annotated[int, typer.Option(min=1, help="Of sampling.")] = Matching.steps,
    method: Annotated[
        str | None, typer.Option(help="Of sampling.", show_default="euler; tsit5 where steps adapt")
    ] = None,
    guidance: Annotated[float, typer.Option(help="How far past the class digits are led.")] = Matching.guidance,
    seed: Annotated[int, typer.Option(help="Of the data, the first weights and the batches.")] = Matching.seed,
    epochs: Annotated[int, typer.Option(min=1, help="Of the training.")] = Matching.epochs,
    batches: Annotated[int, typer.Option(min=1, help="In each epoch.")] = Matching.batches,
    batch_size: Annotated[
        int | None, typer.Option(min=1, help="Per step of the optimizer.", show_default="256; 128 for digits")
    ] = None,
    learning_rate: Annotated[float, typer.Option(help="The highest.")] = Matching.learning_rate,
    width: Annotated[
        int | None, typer.Option(min=1, help="Of hidden layers.", show_default="128; 256 for digits")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Folder of the run.", show_default="runs/matching-DATA")] = None,
    resume: Annotated[Path | None, typer.Option(help="Go on with this run; other options are its own.")] = None,
) -> None:
    """Teach a flow by flow matching, with no solve in training; draw points, or digits class by class."""
    from neuralode.cli.progress import one_thread, telling
    from neuralode.train import matching as task

    usual = MATCHING_IMAGES if data == MATCHING_IMAGES.data else MATCHING_POINTS
    wanted = replace(
        usual, data=data, path=path, coupling=coupling, grid=grid, steps=steps, method=method, guidance=guidance,
        seed=seed, epochs=epochs, batches=batches, batch_size=batch_size or usual.batch_size,
        learning_rate=learning_rate, width=width or usual.width,
    )  # fmt: skip
    if resume:
        wanted = task.asked(Run.open(resume))
    folder = resume or out or free_folder(Path("runs") / f"matching-{wanted.data}")
    callbacks, tell = telling(wanted.epochs)
    one_thread()
    run = task.train(wanted, folder, resume=resume is not None, callbacks=callbacks, tell=tell)
    names = [name for name in task.FIGURES if name in run.summary]
    figures = {name.replace("_", " "): f"{run.summary[name]:.4g}" for name in names}
    _finish(run, f"matching, {wanted.data}", figures)


def _finish(run: Run, task: str, figures: dict[str, str]) -> None:
    """Say what came of a training, or how to go on with it."""
    summary, config = run.summary, run.config
    parameters = f"{summary['parameters']:,}"
    epochs = f"{summary['epochs']}, {summary['seconds']:.0f} s"
    show_figures(task, {"model": config["model"], "parameters": parameters, "epochs": epochs, **figures})
    if summary["interrupted"]:
        say(f"Stopped by Ctrl-C; go on with: neuralode train {task.split(',')[0]} --resume {run.folder}")
        raise typer.Exit(INTERRUPTED)
    say(f"The run is in {run.folder}, its pictures in {run.plots}.")
