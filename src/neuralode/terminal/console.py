"""Print messages and tables, and errors as one sentence."""

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

if TYPE_CHECKING:
    import pandas as pd

P = ParamSpec("P")
R = TypeVar("R")

# Print data unchanged: no automatic colours, no emoji for words between colons.
console = Console(highlight=False, emoji=False)
errors = Console(stderr=True, highlight=False, emoji=False)

INTERRUPTED = 130  # exit status of a program that Ctrl-C ended
USAGE = 2  # exit status of a command with invalid arguments


def say(sentence: str) -> None:
    """Print a sentence on one line, so that commands and paths in it can be copied."""
    console.print(sentence, markup=False, soft_wrap=True)


def in_one_sentence(command: Callable[P, R]) -> Callable[P, R]:
    """Decorate a command so that expected errors and warnings are printed as one sentence, without a traceback."""

    @functools.wraps(command)
    def wrapped(*args: P.args, **kwargs: P.kwargs) -> R:
        with warnings.catch_warnings():
            warnings.showwarning = _show_warning
            try:
                return command(*args, **kwargs)
            except (ValueError, TypeError, OSError, ImportError, SolveError) as error:
                _print_error(str(error))
                raise typer.Exit(USAGE) from error

    return wrapped


def _print_error(sentence: str) -> None:
    printable = sentence.encode(errors="replace").decode()  # may contain lone surrogates from a file
    errors.print(f"neuralode: {printable}", markup=False, soft_wrap=True)


def _show_warning(message: Warning | str, category: type[Warning], *location: Any, **options: Any) -> None:
    _print_error(str(message))


def show_figures(title: str, figures: Mapping[str, str]) -> None:
    """Print named values as a table. Values may contain rich markup."""
    table = Table(show_header=False, title=title)
    for name, value in figures.items():
        table.add_row(name, value)
    console.print(table)


def show_frame(frame: pd.DataFrame, title: str, *, rows: int = 20, columns: int = 10) -> None:
    """Print the first rows and columns of a data frame."""
    limits = zip((rows, columns), frame.shape, ("rows", "columns"), strict=True)
    omitted = [f"{limit} {name}" for limit, size, name in limits if size > limit]
    title = f"{title}: first {' and '.join(omitted)}" if omitted else title
    frame = frame.iloc[:rows, :columns]
    table = Table(*(escape(str(name)) for name in frame.columns), title=title)
    for row in frame.itertuples(index=False):
        table.add_row(*map(_cell, row))
    console.print(table)


def show_rows(rows: Sequence[Mapping[str, Any]], title: str) -> None:
    """Print rows with the same keys as a table."""
    table = Table(*map(escape, rows[0]), title=title)
    for row in rows:
        table.add_row(*map(_cell, row.values()))
    console.print(table)


def _cell(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else escape(str(value))
