"""`neuralode methods`: what a step can be."""

from __future__ import annotations

from itertools import groupby
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from neuralode.cli.screen import console, in_one_sentence

if TYPE_CHECKING:
    from neuralode.methods import Method

COLUMNS = ("method", "family", "order", "evaluations", "adapts", "dense output")


@in_one_sentence
def methods(
    family: Annotated[str | None, typer.Option(help="Those of some families only: a word of their names.")] = None,
) -> None:
    """List every method by family: its order, its evaluations of f a step, and whether it adapts its steps."""
    # Here, not above: --help need not wait for torch.
    from neuralode.methods import methods as registered

    known = list(registered().values())
    families = list(dict.fromkeys(method.family for method in known))
    shown = [name for name in families if family is None or family.lower() in name.lower()]
    if not shown:
        raise ValueError(f"--family {family} is in the name of none; the families are {', '.join(families)}.")
    table = Table(*COLUMNS, title="methods")
    for column in table.columns[2:4]:
        column.justify = "right"
    ordered = sorted(
        (method for method in known if method.family in shown),
        key=lambda method: (families.index(method.family), not method.adaptive, method.order),
    )
    for _, alike in groupby(ordered, lambda method: method.family):
        for method in alike:
            table.add_row(*_row(method))
        table.add_section()
    console.print(table)
    console.print(
        "In brackets: the order of the error estimate, and the evaluations that dense output needs besides, made only "
        "where somebody looks inside of a step."
    )


def _row(method: Method) -> tuple[str, ...]:
    order = f"{method.order}({method.error_order})" if method.adaptive else str(method.order)
    more = f" (+{method.dense_evaluations})" if method.dense_evaluations else ""
    return (
        method.name,
        method.family,
        order,
        str(method.evaluations_per_step),
        "yes" if method.adaptive else "",
        f"order {method.interpolant_order}{more}",
    )
