"""`neuralode reproduce`: the paper's tables and figures."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from neuralode.terminal.console import in_one_sentence, say, show_rows

Seeds = Annotated[str, typer.Option(help="Seeds; each model is trained once per seed.")]
Out = Annotated[Path, typer.Option(help="Folder of the runs. Finished runs in it are not repeated.")]

reproduce = typer.Typer(help="Reproduce a table or a figure of the paper.", no_args_is_help=True)


@reproduce.callback()
def _tables() -> None:
    """Reproduce a table or a figure of the paper."""


@reproduce.command()
@in_one_sentence
def table2(
    observed: Annotated[
        int, typer.Option(help="Column of the table: points observed of each series, 30, 50 or 100.")
    ] = 100,
    seeds: Seeds = "0,1,2",
    out: Out = Path("runs/table2"),
) -> None:
    """Forecast the bi-directional spirals with a latent ODE and a recurrent network (Chen et al. 2018, Table 2)."""
    from neuralode.reproduce.table2 import table2 as reproduced

    chosen = _numbers("seeds", seeds)
    shown = ("model", "published", "test_rmse", "spread", "window_rmse", "floor_rmse")
    rows = reproduced(observed, chosen, out, log=say)
    show_rows([{name: row[name] for name in shown} for row in rows], f"Table 2, {observed} observations")
    say(f"Table and figure: {out / f'table2-{observed}.csv'}, {out / f'table2-{observed}.png'}.")


@reproduce.command()
@in_one_sentence
def moons(seeds: Seeds = "0,1,2", out: Out = Path("runs/moons")) -> None:
    """Learn the density of two moons with a continuous flow of 64 units and 64 planar layers (as in Figure 5)."""
    _compare("moons", seeds, out)


@reproduce.command()
@in_one_sentence
def circles(seeds: Seeds = "0,1,2", out: Out = Path("runs/circles")) -> None:
    """Learn the density of two circles with a continuous flow of 64 units and 64 planar layers (as in Figure 5)."""
    _compare("circles", seeds, out)


@reproduce.command()
@in_one_sentence
def figure4(
    seed: Annotated[int, typer.Option(help="Seed of the initial weights and the samples.")] = 0,
    out: Out = Path("runs/figure4"),
) -> None:
    """Fit flows of 2, 8 and 32 units, and of as many planar layers, to energies (Chen et al. 2018, Figure 4)."""
    from neuralode.reproduce.figure4 import figure4 as reproduced

    rows = reproduced(out, log=say, seed=seed)
    show_rows([{name: row[name] for name in ("target", "kind", "size", "kl")} for row in rows], "KL(q‖p) in nats")
    say(f"Table and figure: {out / 'figure4.csv'}, {out / 'figure4.png'}.")


def _compare(density: str, seeds: str, out: Path) -> None:
    from neuralode.reproduce.figure5 import compare_flows

    rows = compare_flows(density, _numbers("seeds", seeds), out, log=say)
    shown = ("model", "width", "entropy", "truth", "nats", "gap", "spread", "parameters", "seconds")
    show_rows([{name: row[name] for name in shown} for row in rows], f"{density}, held-out nats")
    say(f"Table and figure: {out / f'{density}.csv'}, {out / f'{density}.png'}.")


def _numbers(name: str, given: str) -> list[int]:
    try:
        return [int(number) for number in given.split(",")]
    except ValueError:
        raise ValueError(f"{name}={given!r}; wanted whole numbers, as in 0,1,2.") from None
