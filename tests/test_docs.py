"""The documentation agrees with the code: its lists, its numbers, and the Python examples of its pages, which run."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest
from test_imports import FLOORS

import neuralode
from neuralode.controllers import initial_step, pid
from neuralode.core import clock
from neuralode.engines import attempt, event_location, loop
from neuralode.methods.implicit import newton, runge_kutta, stage_solver
from neuralode.solver import stiffness
from neuralode.training import checkpoints

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


# ------------------------------------------------------------------------------------------------- architecture


ARCHITECTURE = (DOCS / "architecture.md").read_text()
SOURCE = DOCS.parent / "src" / "neuralode"
TREE = ARCHITECTURE.split("## Folders")[1].split("```")[1]
FOLDERS = sorted(path.parent for path in SOURCE.rglob("__init__.py") if path.parent != SOURCE)


def test_the_page_of_the_architecture_names_files_that_exist():
    names = set(re.findall(r"`([\w/]+/\w+\.py)`|(\w+/\w+\.py) ", ARCHITECTURE))
    named = {name for pair in names for name in pair if name and "NAME" not in name}
    assert len(named) > 50
    roots = (SOURCE, DOCS.parent)
    assert [name for name in sorted(named) if not any((root / name).is_file() for root in roots)] == []


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda path: path.relative_to(SOURCE).as_posix())
def test_the_page_of_the_architecture_lists_every_folder(folder: Path):
    if folder.parent.name in ("tasks", "torchdiffeq"):
        assert folder.name in TREE or folder.name == "_impl"
    else:
        assert f"{folder.name}/" in TREE


@pytest.mark.parametrize(
    "folder", ["core", "controllers", "methods", "inputs", "autodiff", "engines", "gradients", "solver"]
)
def test_the_page_of_the_architecture_lists_every_file_of_the_solver(folder: str):
    files = [
        path for path in (SOURCE / folder).rglob("*.py") if path.name != "__init__.py" and "tableaus" not in path.parts
    ]
    assert [path.stem for path in files if not re.search(rf"\b{path.stem}\b", TREE)] == []


def test_the_page_of_the_architecture_has_the_floors_of_the_import_test():
    block = ARCHITECTURE.split("Imports go down.")[1].split("```")[1]
    written = [set(re.findall(r"\w+", floor)) for floor in block.split("→")]
    existing = {path.name for path in FOLDERS if path.parent == SOURCE}
    assert written == [rooms & existing for rooms in FLOORS if rooms & existing]


NUMBERS = {  # words of the page, and the constants of the code that they state
    "divided by 10, at most 10 times": lambda: initial_step.TRIALS == 11,
    "ratios below 1e-10 count as 1e-10": lambda: pid.RATIO_MIN == 1e-10,
    "factors are in [0.2, 10], with safety 0.9": lambda: (
        (pid.FACTOR_MIN, pid.FACTOR_MAX, pid.SAFETY) == (0.2, 10.0, 0.9)
    ),
    "h ≥ r/1.01 gives h = r": lambda: pid.END_STRETCH == 1.01,
    "below 16 ε |t|": lambda: attempt.UNDERFLOW == 16 * clock.EPS,
    "8 attempts are made": lambda: loop.BUDGET == 8,
    "at most 100 iterations to locate a zero": lambda: event_location.HALVINGS == 100,
    "to 4 ε of t": lambda: event_location.RESOLUTION == 4 * clock.EPS,
    "at most 8 corrections": lambda: event_location.CORRECTIONS == 8,
    "contracts by less than a factor of 100": lambda: stage_solver.REFRESH_RATE == 1 / 100,
    "within 1e-9": lambda: stage_solver.SAME_STEP == 1e-9,
    "up to 128 numbers": lambda: runge_kutta.ImplicitRungeKutta.dense_limit == 128,
    "at a hundredth of the tolerance of the step": lambda: newton.STAGE_TOLERANCE == 1 / 100,
    "500 attempts or more": lambda: stiffness.MIN_ATTEMPTS == 500,
    "failed ones of 50 or more": lambda: stiffness.MIN_ATTEMPTS_FAILED == 50,
    "two are kept": lambda: checkpoints.COUNT == 2,
}


@pytest.mark.parametrize(("words", "true"), NUMBERS.items(), ids=NUMBERS)
def test_the_page_of_the_architecture_states_the_constants_of_the_code(words: str, true: Callable[[], bool]):
    assert words in " ".join(ARCHITECTURE.split())
    assert true()


# ------------------------------------------------------------------------------------------------- examples


@pytest.mark.parametrize("page", PAGES)
def test_the_examples_of_a_page_run(page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)  # examples write files
    examples = re.findall(r"```python\n(.*?)```", (DOCS / f"{page}.md").read_text(), re.DOTALL)
    assert examples
    names: dict[str, object] = {}  # one program per page: later examples use names of earlier ones
    for example in examples:
        exec(compile(example, f"docs/{page}.md", "exec"), names)
