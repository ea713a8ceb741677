"""`neuralode fit`, and what can be asked of what it leaves: `forecast` and `impute`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from neuralode.cli.screen import INTERRUPTED, in_one_sentence, say, show_comparison, show_frame
from neuralode.tasks.config import Series
from neuralode.training.config_io import SEEDS
from neuralode.training.run import Run, free_folder

if TYPE_CHECKING:
    from collections.abc import Sequence

    from lightning.pytorch.callbacks import Callback

OTHER = "Another table with the same columns, instead of the one that was learned from."


@in_one_sentence
def fit(
    data: Annotated[Path | None, typer.Argument(help="A table: .csv, .tsv or .parquet.", show_default=False)] = None,
    series: Annotated[
        str | None, typer.Option(help="Column that tells series apart.", show_default="a single series")
    ] = None,
    time: Annotated[
        str | None, typer.Option(help="Column of times: numbers or timestamps.", show_default="row numbers")
    ] = None,
    values: Annotated[
        str | None, typer.Option(help="Columns of measurements: a,b,c.", show_default="all others")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Folder of the run.", show_default="runs/NAME")] = None,
    window: Annotated[
        int | None, typer.Option(min=2, help="Observations of a window.", show_default="all, at most 60")
    ] = None,
    latent: Annotated[
        int | None, typer.Option(min=1, help="Size of the latent state.", show_default="from the data")
    ] = None,
    recognition: Annotated[str, typer.Option(help="odernn or rnn.")] = Series.recognition,
    epochs: Annotated[int, typer.Option(min=1, help="At most.")] = Series.epochs,
    batch_size: Annotated[int, typer.Option(min=1, help="Windows per step of the optimizer.")] = Series.batch_size,
    learning_rate: Annotated[float, typer.Option(help="At the beginning.")] = Series.learning_rate,
    patience: Annotated[int, typer.Option(min=1, help="Epochs to wait for a smaller error.")] = Series.patience,
    holdout: Annotated[
        float, typer.Option(min=0, max=0.9, help="Part of each series held out at its end.")
    ] = Series.holdout,
    refit: Annotated[bool, typer.Option(help="Train anew on everything in the end.")] = Series.refit,
    seed: Annotated[int, typer.Option(min=0, max=SEEDS, help="Of all that is random.")] = Series.seed,
    accelerator: Annotated[str, typer.Option(help="Lightning's: cpu, gpu …")] = Series.accelerator,
    resume: Annotated[Path | None, typer.Option(help="Go on with this run; other options are its own.")] = None,
) -> None:
    """Learn from a table of irregular measurements, gaps and all, how its series move on."""
    # Here, not above: Lightning takes seconds to load, which --help should not.
    from neuralode.cli.progress import one_thread, progress
    from neuralode.tasks.fit import run as runs

    if (data is None) == (resume is None):
        raise ValueError("wanted a table to learn from, or a run to go on with by --resume: one of them.")
    if resume is not None:
        wanted = runs.asked(Run.open(resume))
    else:
        assert data is not None
        columns = None if values is None else tuple(name.strip() for name in values.split(","))
        wanted = Series(
            str(data), series, time, columns, window, latent, recognition, epochs, batch_size, learning_rate, patience,
            holdout, refit, seed, accelerator,
        )  # fmt: skip
    folder = resume or out or free_folder(Path("runs") / Path(wanted.data).stem)

    def callbacks(stage: str) -> Sequence[Callback]:
        say("Learning, with the ends of series held out" if stage == "first" else "Learning from everything")
        return progress(wanted.epochs, every=10)

    one_thread()
    try:
        run = runs.fit_run(wanted, folder, resume=resume is not None, callbacks=callbacks)
    except KeyboardInterrupt:  # before the first epoch or behind the last: within, it ends the training and no more
        begun = (folder / "config.json").is_file()
        say(f"Stopped by Ctrl-C; go on with: neuralode fit --resume {folder}" if begun else "Stopped by Ctrl-C.")
        raise typer.Exit(INTERRUPTED) from None
    summary = run.summary
    say(
        f"{summary['observations']:,} observations of {summary['series']} series, {len(summary['channels'])} channels; "
        f"{summary['parameters']:,} parameters, {summary['epochs']} epochs, {summary['seconds']:.0f} s."
    )
    show_comparison(runs.evaluate_run(run))
    if summary["interrupted"]:
        say(f"Stopped by Ctrl-C; go on with: neuralode fit --resume {folder}")
        raise typer.Exit(INTERRUPTED)
    say(f"The run is in {folder}. Next: neuralode forecast {folder} --horizon 10")


@in_one_sentence
def forecast(
    run: Annotated[Path, typer.Argument(help="Folder of a run of `neuralode fit`.")],
    horizon: Annotated[int, typer.Option(min=1, help="Steps beyond the end, each the typical time between rows.")] = 10,
    data: Annotated[Path | None, typer.Option(help=OTHER)] = None,
) -> None:
    """Forecast what comes after the end of each series, with bands that hold 90 % of what may come."""
    opened = Run.open(run)
    from neuralode.tasks.fit import run as runs

    show_frame(runs.forecast_run(opened, horizon, data), "forecast")
    say(f"Table and picture: {opened.folder / 'forecast.csv'}, {opened.plots / 'forecast.png'}.")


@in_one_sentence
def impute(
    run: Annotated[Path, typer.Argument(help="Folder of a run of `neuralode fit`.")],
    data: Annotated[Path | None, typer.Option(help=OTHER)] = None,
) -> None:
    """Fill the gaps of a table with the mean of what may have been there."""
    opened = Run.open(run)
    from neuralode.tasks.fit import run as runs

    found = runs.impute_run(opened, data)
    show_frame(found, "with its gaps filled")
    say(f"Table and picture: {opened.folder / 'imputed.csv'}, {opened.plots / 'imputed.png'}.")
