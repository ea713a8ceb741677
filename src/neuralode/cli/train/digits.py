"""`neuralode train digits`: the ODE-Net and its rivals."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from neuralode.cli.screen import INTERRUPTED, in_one_sentence, say, show_points, show_summary
from neuralode.train.config import Digits
from neuralode.train.run import Run, free_folder


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
