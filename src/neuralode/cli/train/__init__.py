"""`neuralode train`: one subcommand per task."""

from __future__ import annotations

import typer

from neuralode.cli.train.flows import density, matching
from neuralode.cli.train.images import digits, fashion_mnist, mnist
from neuralode.cli.train.series import physionet, spirals

train = typer.Typer(help="Train a model; what comes of it is a run, a folder.", no_args_is_help=True)
for task in (digits, mnist, fashion_mnist, spirals, physionet, density, matching):
    train.command()(task)
