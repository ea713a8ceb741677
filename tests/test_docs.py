"""What the documentation lists is what there is."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import neuralode

PAGE = Path(__file__).parents[1] / "docs" / "methods.md"


def listed() -> dict[str, tuple[str, str, str]]:
    """Method → order, evaluations and order of dense output, as the tables of the page have them.

    A row may list several methods; a cell of it then has one entry for all, or one each.
    """
    found = {}
    for line in PAGE.read_text().split("## All of them")[1].split("## Where")[0].splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        names = re.findall(r"`(\w+)`", cells[0]) if len(cells) == 4 else []
        columns = [cell.split(", ") for cell in cells[1:]]
        for place, name in enumerate(names):
            order, *rest = (column[place] if len(column) == len(names) else column[0] for column in columns)
            found[name] = (order, *rest)
    return found


def test_the_page_of_methods_lists_every_method_that_is_registered():
    assert set(listed()) == set(neuralode.methods())


@pytest.mark.parametrize("name", neuralode.methods())
def test_the_page_of_methods_says_of_each_what_it_declares(name):
    order, evaluations, dense = listed()[name]
    method = neuralode.methods()[name]
    assert order == (f"{method.order}({method.error_order})" if method.adaptive else str(method.order))
    assert evaluations == str(method.evaluations_per_step)
    more = f" (+{method.dense_evaluations})" if method.dense_evaluations else ""
    assert dense == f"{method.interpolant_order}{more}"
