"""What the commands print: tables, and errors in one sentence."""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from neuralode.core.status import SolveError
from neuralode.training.run import Run

if TYPE_CHECKING:
    import pandas as pd

    from neuralode.tasks.images.tolerance_sweep import Point

P = ParamSpec("P")
R = TypeVar("R")

# data are printed as they are: no colours of their own making, and no pictures for words between colons
console = Console(highlight=False, emoji=False)
errors = Console(stderr=True, highlight=False, emoji=False)

INTERRUPTED = 130  # what a shell expects of a program that Ctrl-C ended
USAGE = 2  # the status of a command that was asked for something it cannot do


def say(sentence: str) -> None:
    """Print a sentence that may hold a command or a path: on one line, so that it can be copied."""
    console.print(sentence, markup=False, soft_wrap=True)


def in_one_sentence(command: Callable[P, R]) -> Callable[P, R]:
    """Let ``command`` end with a sentence, not a traceback, where a name, a folder or a solve is at fault."""

    @functools.wraps(command)
    def told(*args: P.args, **kwargs: P.kwargs) -> R:
        with warnings.catch_warnings():
            warnings.showwarning = _show_warning
            try:
                return command(*args, **kwargs)
            except (ValueError, TypeError, OSError, ImportError, SolveError) as error:
                _complain(str(error))
                raise typer.Exit(USAGE) from error

    return told


def _complain(sentence: str) -> None:
    printable = sentence.encode(errors="replace").decode()  # what a file holds need not be text
    errors.print(f"neuralode: {printable}", markup=False, soft_wrap=True)


def _show_warning(message: Warning | str, category: type[Warning], *where: Any, **besides: Any) -> None:
    """A warning as a sentence, without the line of the program that it came from."""
    _complain(str(message))


def show_summary(run: Run) -> None:
    """Print what a run was and what came of it."""
    config, summary = run.config, run.summary
    solver = config["solver"]
    rows = {
        "model": config["model"],
        "parameters": f"{summary['parameters']:,}",
        "seed": str(config["training"]["seed"]),
        "epochs": str(summary["epochs"]),
        "training": f"{summary['seconds']:.1f} s",
        "test loss": f"{summary['test_loss']:.4f}",
        "test accuracy": f"[bold]{summary['test_accuracy']:.2%}[/]",
    }
    if solver:
        steps = f"rtol {solver['rtol']:g}" if solver["step_size"] is None else f"step {solver['step_size']:g}"
        rows["solver"] = f"{solver['method']}, {steps}, gradient {solver['gradient']}, engine {solver['engine']}"
        rows["evaluations per solve"] = f"{summary['test_evaluations']:.1f}"
    table = Table(show_header=False, title=config["task"])
    for name, value in rows.items():
        table.add_row(name, value)
    console.print(table)


def show_points(points: Sequence[Point]) -> None:
    """Print precision against work."""
    table = Table("rtol", "evaluations", "relative error", "test accuracy", "seconds", title="precision against work")
    for column in table.columns:
        column.justify = "right"
    for point in points:
        table.add_row(
            f"{point.rtol:g}",
            f"{point.evaluations:.1f}",
            f"{point.error:.1e}",
            f"{point.accuracy:.2%}",
            f"{point.seconds:.2f}",
        )
    console.print(table)


def show_figures(title: str, figures: Mapping[str, str]) -> None:
    """Print a few named figures, whose values may have rich's markup."""
    table = Table(show_header=False, title=title)
    for name, value in figures.items():
        table.add_row(name, value)
    console.print(table)


def show_comparison(compared: pd.DataFrame) -> None:
    """Print errors of a forecaster beside those of the baselines, the smallest of each row in bold."""
    if not len(compared):
        console.print("Nothing was held out, so there is nothing to compare: every series is short, or holdout is 0.")
        return
    table = Table("", "channel", "values", "latent ODE", "last value", "baseline", title="root mean square error")
    for column in table.columns[2:]:
        column.justify = "right"
    for row in compared.to_dict("records"):
        errors = [float(row[name]) for name in ("model", "last_value", "baseline")]
        least = min(error for error in errors if error == error)  # NaN: a baseline that has seen nothing
        told = [f"[bold]{error:.4g}[/]" if error == least else f"{error:.4g}" for error in errors]
        table.add_row(row["what"], escape(str(row["channel"])), str(row["values"]), *told)
    console.print(table)
    console.print("Baselines: of forecasts, the season before or the trend; of fillings, straight lines.")


def show_frame(frame: pd.DataFrame, title: str, most: int = 20, widest: int = 10) -> None:
    """Print the first rows of a table, and of a wide one the first columns."""
    cut = [
        f"{n} {what}" for n, of, what in zip((most, widest), frame.shape, ("rows", "columns"), strict=True) if of > n
    ]
    frame = frame.iloc[:most, :widest]
    table = Table(
        *(escape(str(name)) for name in frame.columns), title=f"{title}: first {' and '.join(cut)}" if cut else title
    )
    for row in frame.itertuples(index=False):
        table.add_row(*map(_cell, row))
    console.print(table)


def show_rows(rows: Sequence[Mapping[str, Any]], title: str) -> None:
    """Print rows that share their columns."""
    table = Table(*map(escape, rows[0]), title=title)
    for row in rows:
        table.add_row(*map(_cell, row.values()))
    console.print(table)


def _cell(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else escape(str(value))
