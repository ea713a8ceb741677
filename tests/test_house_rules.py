"""Rules of the house that a reader relies on: few positional arguments, few files at the top."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[1] / "src" / "neuralode"
FILES = sorted(SOURCE.rglob("*.py"))
MOST_POSITIONAL = 3


def name_of(path: Path) -> str:
    return path.relative_to(SOURCE).as_posix()


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_no_call_passes_more_than_three_positional_arguments(path: Path) -> None:
    calls = [node for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))) if isinstance(node, ast.Call)]
    assert not [f"line {x.lineno}: {ast.unparse(x)[:80]}" for x in calls if len(x.args) > MOST_POSITIONAL]


def test_the_top_of_the_package_holds_rooms_only() -> None:
    assert {path.name for path in SOURCE.iterdir() if path.is_file()} == {"__init__.py", "py.typed"}


def test_every_room_says_what_it_holds() -> None:
    rooms = [path for path in FILES if path.name == "__init__.py"]
    assert len(rooms) > 20
    assert not [name_of(path) for path in rooms if not ast.get_docstring(ast.parse(path.read_text(encoding="utf-8")))]
