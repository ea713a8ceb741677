"""The documentation lists every method, and the Python examples of its pages run."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import neuralode

DOCS = Path(__file__).parents[1] / "docs"
PAGES = (  # those whose examples are complete programs
    "../README",
    "extending",
    "inputs",
    "methods",
    "series",
    "stiff",
    "solve",
    *(pytest.param(page, marks=pytest.mark.slow) for page in ("flows", "tables")),  # train models
)


def listed() -> dict[str, tuple[str, str, str]]:
    """Return order, evaluations and order of dense output by method, from the tables of docs/methods.md.

    A row may list several methods; each of its cells then has one entry for all of them, or one for each.
    """
    rows = {}
    for line in (DOCS / "methods.md").read_text().split("## All of them")[1].split("## Differences")[0].splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        names = re.findall(r"`(\w+)`", cells[0]) if len(cells) == 4 else []
        columns = [cell.split(", ") for cell in cells[1:]]
        for place, name in enumerate(names):
            order, *rest = (column[place] if len(column) == len(names) else column[0] for column in columns)
            rows[name] = (order, *rest)
    return rows


def test_the_page_of_methods_lists_every_registered_method():
    assert set(listed()) == set(neuralode.methods())


@pytest.mark.parametrize("name", neuralode.methods())
def test_the_page_of_methods_agrees_with_the_declared_properties(name):
    order, evaluations, dense = listed()[name]
    method = neuralode.methods()[name]
    assert order == (f"{method.order}({method.error_order})" if method.adaptive else str(method.order))
    assert evaluations == str(method.evaluations_per_step)
    more = f" (+{method.dense_evaluations})" if method.dense_evaluations else ""
    assert dense == f"{method.interpolant_order}{more}"


@pytest.mark.parametrize("page", PAGES)
def test_the_examples_of_a_page_run(page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)  # examples write files
    examples = re.findall(r"```python\n(.*?)```", (DOCS / f"{page}.md").read_text(), re.DOTALL)
    assert examples
    names: dict[str, object] = {}  # one program per page: later examples use names of earlier ones
    for example in examples:
        exec(compile(example, f"docs/{page}.md", "exec"), names)
