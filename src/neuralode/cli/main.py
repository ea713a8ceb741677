"""The commands, put together."""

from __future__ import annotations

from importlib.metadata import version
from typing import Annotated

import typer

from neuralode.cli.evaluate import evaluate
from neuralode.cli.fit import fit, forecast, impute
from neuralode.cli.methods import methods
from neuralode.cli.reproduce import reproduce
from neuralode.cli.sample import sample
from neuralode.cli.train import train

app = typer.Typer(
    name="neuralode",
    help="Neural ordinary differential equations: train them, and see what they do.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)
app.add_typer(train, name="train")
app.command()(fit)
app.command()(forecast)
app.command()(impute)
app.command()(evaluate)
app.command()(sample)
app.command()(methods)
app.add_typer(reproduce, name="reproduce")


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"neuralode {version('neuralode')}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Show the version and leave.")
    ] = False,
) -> None:
    """Neural ordinary differential equations: train them, and see what they do."""
