"""`neuralode train density` and `matching`: flows, by likelihood and without a solve."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from neuralode.cli.screen import in_one_sentence, say
from neuralode.cli.train.finish import finish
from neuralode.tasks.config import MATCHING_IMAGES, MATCHING_POINTS, Density, Matching
from neuralode.training.config_io import SEEDS
from neuralode.training.run import Run, free_folder


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
    kinetic: Annotated[
        float | None, typer.Option(min=0, help="Weight of the speed of paths.", show_default="0.05, less of many rows")
    ] = Density.kinetic,
    frobenius: Annotated[
        float | None, typer.Option(min=0, help="Weight of how they part.", show_default="0.05, less of many rows")
    ] = Density.frobenius,
    jitter: Annotated[float, typer.Option(min=0, help="Of the end time, in training.")] = Density.jitter,
    gradient: Annotated[str, typer.Option(help="replay, adjoint or direct.")] = Density.gradient,
    method: Annotated[str, typer.Option(help="How the ODE is solved in training.")] = Density.method,
    rtol: Annotated[float, typer.Option(help="Tolerance of that.")] = Density.rtol,
    step_size: Annotated[float | None, typer.Option(help="For methods with a fixed step.")] = Density.step_size,
    spread: Annotated[bool, typer.Option(help="Spread values that most rows repeat.")] = Density.spread,
    seed: Annotated[
        int, typer.Option(min=0, max=SEEDS, help="Of the split, the first weights and the batches.")
    ] = Density.seed,
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
    from neuralode.tasks.density import run as task

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
    finish(
        run,
        "density",
        {
            "rows, columns modelled": f"{sum(summary['rows'].values()):,}, {len(summary['modelled'])}",
            "nats a row, of rows held out": f"[bold]{summary['test_nats']:.4f}[/] ± {summary['test_nats_error']:.4f}",
            "bits a dimension": f"{summary['test_bits_per_dimension']:.4f}",
            "nats of a normal distribution": f"{summary['gaussian_nats']:.4f}",
            **({"entropy of the truth": f"{summary['entropy']:.4f}"} if "entropy" in summary else {}),
        },
    )
    say(f"A score for every row: {folder / 'scores.csv'}. Next: neuralode sample {folder}")


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
    seed: Annotated[
        int, typer.Option(min=0, max=SEEDS, help="Of the data, the first weights and the batches.")
    ] = Matching.seed,
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
    from neuralode.tasks.flow_matching import run as task

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
    finish(run, f"matching, {wanted.data}", figures)
