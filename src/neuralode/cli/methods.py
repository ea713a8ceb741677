"""`neuralode methods`: list the solver methods."""

from __future__ import annotations

from itertools import groupby
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from neuralode.terminal.console import console, in_one_sentence

if TYPE_CHECKING:
    from neuralode.methods import Method

COLUMNS = ("method", "family", "order", "evaluations", "adapts", "dense output")


@in_one_sentence
def methods(
    family: Annotated[str | None, typer.Option(help="Only families whose name contains this word.")] = None,
) -> None:
    """List the solver methods by family: order, evaluations of f per step, and whether they adapt the step size."""
    from neuralode.methods import methods as registered

    all_methods = list(registered().values())
    families = list(dict.fromkeys(method.family for method in all_methods))
    shown = [name for name in families if family is None or family.lower() in name.lower()]
    if not shown:
        raise ValueError(f"--family {family} is in the name of none; the families are {', '.join(families)}.")
    table = Table(*COLUMNS, title="methods")
    for column in table.columns[2:4]:
        column.justify = "right"
    ordered = sorted(
        (method for method in all_methods if method.family in shown),
        key=lambda method: (families.index(method.family), not method.adaptive, method.order),
    )
    for _, group in groupby(ordered, lambda method: method.family):
        for method in group:
            table.add_row(*_row(method))
        table.add_section()
    console.print(table)
    console.print(
        "In brackets: the order of the error estimate, and the additional evaluations for dense output, made only for "
        "outputs within a step."
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
