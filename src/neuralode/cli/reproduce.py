"""`neuralode reproduce`: the paper's tables."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from neuralode.cli.screen import in_one_sentence, say, show_rows

reproduce = typer.Typer(help="Reproduce a table of the paper.", no_args_is_help=True)


@reproduce.callback()
def _tables() -> None:
    """Reproduce a table of the paper."""


@reproduce.command()
@in_one_sentence
def table2(
    observed: Annotated[int, typer.Option(help="The column: points kept of each series, 30, 50 or 100.")] = 100,
    seeds: Annotated[str, typer.Option(help="Trainings of each model.")] = "0,1,2",
    out: Annotated[Path, typer.Option(help="Where the runs go; what is finished there is not done again.")] = Path(
        "runs/table2"
    ),
) -> None:
    """Forecast the bi-directional spirals by a latent ODE and by a recurrent network (Chen et al. 2018, Table 2)."""
    from neuralode.reproduce.table2 import table2 as reproduced

    try:
        chosen = [int(seed) for seed in seeds.split(",")]
    except ValueError:
        raise ValueError(f"seeds={seeds!r}; wanted whole numbers, as in 0,1,2.") from None
    shown = ("model", "published", "test_rmse", "spread", "window_rmse", "floor_rmse")
    rows = reproduced(observed, chosen, out, tell=say)
    show_rows([{name: row[name] for name in shown} for row in rows], f"Table 2, {observed} observations")
    say(f"Table and picture: {out / f'table2-{observed}.csv'}, {out / f'table2-{observed}.png'}.")
