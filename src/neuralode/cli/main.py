"""The `neuralode` command: its own commands and those of the tasks."""

from __future__ import annotations

from importlib.metadata import version
from typing import Annotated

import typer

from neuralode.cli.evaluate import evaluate
from neuralode.cli.methods import methods
from neuralode.cli.reproduce import reproduce
from neuralode.cli.sample import sample
from neuralode.tasks.registry import task_commands
from neuralode.terminal.console import in_one_sentence

app = typer.Typer(
    name="neuralode",
    help="Neural ordinary differential equations: train and use them.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)
train = typer.Typer(help="Train a model and write the results to a run folder.", no_args_is_help=True)


def _add_task_commands() -> None:
    groups = {"": app, "train": train}
    commands = {words: command for task in task_commands().values() for words, command in task.commands.items()}
    for words in sorted(commands):
        group, _, name = words.rpartition(" ")
        groups[group].command(name)(in_one_sentence(commands[words]))


app.add_typer(train, name="train")
_add_task_commands()
app.command()(evaluate)
app.command()(sample)
app.command()(methods)
app.add_typer(reproduce, name="reproduce")


def _print_version(requested: bool) -> None:
    if requested:
        typer.echo(f"neuralode {version('neuralode')}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    """Neural ordinary differential equations: train and use them."""
