"""The command `methods`."""

from __future__ import annotations

import pytest
from typer.testing import CliRunner

import neuralode
from neuralode.cli import app
from neuralode.terminal.console import console


@pytest.fixture(autouse=True)
def _a_wide_screen(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(console, "width", 160)


def run(*words: str):
    return CliRunner().invoke(app, ["methods", *words])


def rows(output: str) -> dict[str, list[str]]:
    cells = [[cell.strip() for cell in line.split("│")[1:-1]] for line in output.splitlines() if line.startswith("│")]
    return {name: rest for name, *rest in cells}


def test_every_registered_method_is_listed_with_its_properties():
    listed = rows(run().output)
    assert set(listed) == set(neuralode.methods())
    for name, (family, order, evaluations, adapts, _) in listed.items():
        method = neuralode.methods()[name]
        assert family == method.family
        assert int(order.split("(")[0]) == method.order
        assert int(evaluations) == method.evaluations_per_step
        assert (adapts == "yes") == method.adaptive


@pytest.mark.parametrize("word", ["implicit", "multistep"])
def test_a_family_is_selected_by_a_word_of_its_name(word):
    listed = rows(run("--family", word).output)
    assert set(listed) == {name for name, method in neuralode.methods().items() if word in method.family}
    assert listed


def test_an_unknown_family_is_rejected_in_one_sentence():
    result = run("--family", "magic")
    assert result.exit_code == 2
    assert "--family magic is in the name of none" in result.output
    assert "Traceback" not in result.output
