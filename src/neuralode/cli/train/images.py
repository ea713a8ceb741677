"""`neuralode train digits`, `mnist` and `fashion-mnist`: the ODE-Net and its rivals."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer

from neuralode.cli.screen import INTERRUPTED, in_one_sentence, say, show_points, show_summary
from neuralode.tasks.config import DIGITS, FASHION_MNIST, MNIST, Images
from neuralode.training.run import Run, free_folder

Model = Annotated[str, typer.Option(help="odenet, rknet, resnet, resnet1 or noblock.")]
Gradient = Annotated[
    str | None, typer.Option(help="replay, adjoint or direct.", show_default="replay; direct for rknet")
]
Method = Annotated[str, typer.Option(help="How the ODE is solved.")]
Rtol = Annotated[float, typer.Option(help="Relative tolerance of the solver.")]
Atol = Annotated[float | None, typer.Option(help="Absolute tolerance.", show_default="rtol")]
StepSize = Annotated[float | None, typer.Option(help="For methods with a fixed step.")]
Engine = Annotated[str, typer.Option(help="What repeats the steps.")]
Seed = Annotated[int, typer.Option(help="Of the split, the first weights and the batches.")]
Epochs = Annotated[int, typer.Option(min=1, help="How often each image is seen.")]
BatchSize = Annotated[int, typer.Option(min=1, help="Images per step of the optimizer.")]
LearningRate = Annotated[float, typer.Option(help="The highest of the one-cycle schedule.")]
Patience = Annotated[int, typer.Option(min=1, help="Epochs to wait for a lower validation loss.")]
Precision = Annotated[str, typer.Option(help="Lightning's: 32-true, bf16-mixed, 16-mixed …")]
Accelerator = Annotated[str, typer.Option(help="Lightning's: auto, cpu, gpu …")]
Devices = Annotated[str, typer.Option(help="Lightning's: auto, a number, or a list of them.")]
ChannelsLast = Annotated[bool, typer.Option(help="Keep the channels of a pixel together in memory.")]
Batches = Annotated[int | None, typer.Option(min=1, help="At most so many batches an epoch: to try things out.")]
CheckpointEvery = Annotated[
    int | None, typer.Option(min=1, help="Steps between checkpoints.", show_default="as many as 10 seconds have")
]
Out = Annotated[Path | None, typer.Option(help="Folder of the run.", show_default="runs/DATA-MODEL")]
Resume = Annotated[Path | None, typer.Option(help="Go on with this run; other options are its own.")]


def command(usual: Images, sentence: str) -> Callable[..., None]:
    """The command that trains on the images of ``usual``, whose other fields are its defaults."""

    @in_one_sentence
    def train(
        model: Model = usual.model,
        gradient: Gradient = usual.gradient,
        method: Method = usual.method,
        rtol: Rtol = usual.rtol,
        atol: Atol = usual.atol,
        step_size: StepSize = usual.step_size,
        engine: Engine = usual.engine,
        seed: Seed = usual.seed,
        epochs: Epochs = usual.epochs,
        batch_size: BatchSize = usual.batch_size,
        learning_rate: LearningRate = usual.learning_rate,
        patience: Patience = usual.patience,
        precision: Precision = usual.precision,
        accelerator: Accelerator = usual.accelerator,
        devices: Devices = usual.devices,
        channels_last: ChannelsLast = usual.channels_last,
        batches: Batches = usual.batches,
        checkpoint_every: CheckpointEvery = usual.checkpoint_every,
        out: Out = None,
        resume: Resume = None,
    ) -> None:
        wanted = Images(
            data=usual.data,
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
        _train(wanted, out, resume)

    train.__name__, train.__doc__ = usual.data.replace("-", "_"), sentence
    return train


def _train(wanted: Images, out: Path | None, resume: Path | None) -> None:
    # Here, not above: Lightning takes seconds to load, which --help should not.
    from neuralode.cli.progress import is_global_zero, telling
    from neuralode.tasks.images import run as task

    if resume:
        wanted = asked_of(task.asked(Run.open(resume)), wanted.data, resume)
    folder = resume or out or free_folder(Path("runs") / f"{wanted.data}-{wanted.model}")
    finished = resume is not None and Run(folder).finished
    callbacks, tell = telling(wanted.epochs)
    run = task.train(wanted, folder, resume=resume is not None, callbacks=callbacks, tell=tell)
    if not is_global_zero():
        return  # one process of several speaks for all
    show_summary(run)
    if finished:
        return  # as it was, and as was said
    if run.summary["interrupted"]:
        say(f"Stopped by Ctrl-C; go on with: neuralode train {wanted.data} --resume {folder}")
        raise typer.Exit(INTERRUPTED)
    if task.takes_tolerances(run):
        show_points(task.evaluate(run))
    say(f"The run is in {folder}, its pictures in {run.plots}.")


def asked_of(found: Images, data: str, folder: Path) -> Images:
    """What a run was asked to do, if it is one of ``data``; `ValueError` if not."""
    if found.data != data:
        raise ValueError(f"{folder} is a run of {found.data!r}; go on with it by: neuralode train {found.data}.")
    return found


digits = command(
    DIGITS, "Classify scikit-learn's 1,797 handwritten digits, by default with the ODE-Net of Chen et al. 2018."
)
mnist = command(MNIST, "Classify MNIST's 70,000 handwritten digits, by default with the ODE-Net of Chen et al. 2018.")
fashion_mnist = command(
    FASHION_MNIST,
    "Classify Fashion-MNIST's 70,000 pictures of clothes, by default with the ODE-Net of Chen et al. 2018.",
)
