"""`neuralode fit`, and `forecast` and `impute` for its runs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape
from rich.table import Table

from neuralode.tasks.command import (
    Epochs,
    LearningRate,
    Patience,
    Resume,
    TaskCommands,
    exit_interrupted,
)
from neuralode.tasks.fit.config import RUN_TASKS, SeriesConfig
from neuralode.terminal.console import INTERRUPTED, console, say, show_frame
from neuralode.training.config_io import SEEDS
from neuralode.training.run import Run, free_folder

if TYPE_CHECKING:
    import pandas as pd
    from lightning.pytorch.callbacks import Callback

ERROR_COLUMNS = ("", "channel", "values", "latent ODE", "last value", "baseline")
OtherTable = Annotated[
    Path | None, typer.Option(help="Another table with the same columns, instead of the training table.")
]
FittedRun = Annotated[Path, typer.Argument(help="Folder of a run of `neuralode fit`.")]


def fit(
    data: Annotated[Path | None, typer.Argument(help="A .csv, .tsv or .parquet file.", show_default=False)] = None,
    series: Annotated[str | None, typer.Option(help="Column of series ids.", show_default="a single series")] = None,
    time: Annotated[
        str | None, typer.Option(help="Column of times: numbers or timestamps.", show_default="row numbers")
    ] = None,
    values: Annotated[
        str | None, typer.Option(help="Columns of measurements: a,b,c.", show_default="all others")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Folder of the run.", show_default="runs/NAME")] = None,
    window: Annotated[
        int | None, typer.Option(min=2, help="Observations per window.", show_default="all, at most 60")
    ] = None,
    latent: Annotated[
        int | None, typer.Option(min=1, help="Dimension of the latent state.", show_default="from the data")
    ] = None,
    recognition: Annotated[str, typer.Option(help="Recognition network: odernn or rnn.")] = SeriesConfig.recognition,
    epochs: Epochs = SeriesConfig.epochs,
    batch_size: Annotated[int, typer.Option(min=1, help="Windows per step.")] = SeriesConfig.batch_size,
    learning_rate: LearningRate = SeriesConfig.learning_rate,
    patience: Patience = SeriesConfig.patience,
    holdout: Annotated[
        float, typer.Option(min=0, max=0.9, help="Fraction held out at the end of each series.")
    ] = SeriesConfig.holdout,
    refit: Annotated[bool, typer.Option(help="Train again on all data at the end.")] = SeriesConfig.refit,
    seed: Annotated[int, typer.Option(min=0, max=SEEDS, help="Seed of everything that is random.")] = SeriesConfig.seed,
    accelerator: Annotated[
        str, typer.Option(help="Accelerator, as in Lightning: cpu, gpu, …")
    ] = SeriesConfig.accelerator,
    resume: Resume = None,
) -> None:
    """Fit a latent ODE to a table of irregular measurements, gaps included."""
    from neuralode.tasks.fit.run import SeriesTask
    from neuralode.tasks.runner import train
    from neuralode.terminal.progress import progress, use_one_thread

    if (data is None) == (resume is None):
        raise ValueError("wanted either a table, or a run to resume by --resume.")
    if resume is not None:
        config = SeriesTask.load_config(Run.open(resume))
    else:
        config = SeriesConfig(
            data=str(data), series=series, time=time, values=_split_names(values), window=window, latent=latent,
            recognition=recognition, epochs=epochs, batch_size=batch_size, learning_rate=learning_rate,
            patience=patience, holdout=holdout, refit=refit, seed=seed, accelerator=accelerator,
        )  # fmt: skip
    folder = resume or out or free_folder(Path("runs") / Path(config.data).stem)

    def callbacks(stage: str) -> Sequence[Callback]:
        say("Training, with the ends of series held out" if stage == "first" else "Training on all data")
        return progress(config.epochs, every=10)

    use_one_thread()
    try:
        run = train(SeriesTask, config, folder, resume=resume is not None, callbacks=callbacks)
    except KeyboardInterrupt:  # before the first epoch or after the last one; otherwise Ctrl-C only ends the training
        if (folder / "config.json").is_file():
            exit_interrupted(f"neuralode fit --resume {folder}")
        say("Stopped by Ctrl-C.")
        raise typer.Exit(INTERRUPTED) from None
    summary = run.summary
    say(
        f"{summary['observations']:,} observations of {summary['series']} series, {len(summary['channels'])} channels; "
        f"{summary['parameters']:,} parameters, {summary['epochs']} epochs, {summary['seconds']:.0f} s."
    )
    evaluate(run, None, None)
    if summary["interrupted"]:
        exit_interrupted(f"neuralode fit --resume {folder}")
    say(f"The run is in {folder}. Next: neuralode forecast {folder} --horizon 10")


def forecast(
    run: FittedRun,
    horizon: Annotated[int, typer.Option(min=1, help="Steps beyond the end, each the typical time between rows.")] = 10,
    data: OtherTable = None,
) -> None:
    """Forecast beyond the end of each series, with 90 % prediction intervals."""
    opened = Run.open(run)
    from neuralode.tasks.fit import run as fit_run

    show_frame(fit_run.forecast(opened, horizon, data), "forecast")
    say(f"Table and figure: {opened.folder / 'forecast.csv'}, {opened.plots / 'forecast.png'}.")


def impute(run: FittedRun, data: OtherTable = None) -> None:
    """Fill the gaps of a table with the expected values."""
    opened = Run.open(run)
    from neuralode.tasks.fit import run as fit_run

    show_frame(fit_run.impute(opened, data), "with its gaps filled")
    say(f"Table and figure: {opened.folder / 'imputed.csv'}, {opened.plots / 'imputed.png'}.")


def evaluate(run: Run, rtols: Sequence[float] | None, data: Path | None) -> None:
    """Print the errors of a forecaster beside those of the baselines."""
    from neuralode.tasks.fit import run as fit_run

    if rtols:
        raise ValueError("--rtol is for images; wanted nothing, or --data, for a run on series.")
    show_comparison(fit_run.evaluate(run, data))


def show_comparison(errors: pd.DataFrame) -> None:
    """Print errors of a forecaster and the baselines, with the smallest of each row in bold."""
    if not len(errors):
        console.print("Nothing was held out, so there is nothing to compare: every series is short, or holdout is 0.")
        return
    table = Table(*ERROR_COLUMNS, title="root mean square error")
    for column in table.columns[2:]:
        column.justify = "right"
    for row in errors.to_dict("records"):
        values = [float(row[name]) for name in ("model", "last_value", "baseline")]
        least = min(value for value in values if value == value)  # skip NaN, of a baseline without data
        cells = [f"[bold]{value:.4g}[/]" if value == least else f"{value:.4g}" for value in values]
        table.add_row(*(row["what"], escape(str(row["channel"])), str(row["values"])), *cells)
    console.print(table)
    console.print("Baselines: for forecasts, the last season or the trend; for gaps, linear interpolation.")


def _split_names(names: str | None) -> tuple[str, ...] | None:
    return None if names is None else tuple(name.strip() for name in names.split(","))


COMMANDS = TaskCommands(
    run_tasks=RUN_TASKS,
    commands={"fit": fit, "forecast": forecast, "impute": impute},
    evaluate=evaluate,
)
