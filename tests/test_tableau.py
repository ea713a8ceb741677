"""A tableau is data that checks itself, and anyone may bring one."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import pytest
import torch
from fields import ADAPTIVE, METHODS

import neuralode
from neuralode import ExplicitRungeKutta, Tableau, solve

RALSTON: dict[str, Any] = {
    "name": "ralston",
    "order": 2,
    "c": (0, 2 / 3),
    "a": ((), (2 / 3,)),
    "b": (1 / 4, 3 / 4),
    "interpolant": ((1, -3 / 4), (0, 3 / 4)),
    "source": "A. Ralston, Runge-Kutta methods with minimum error bounds, Math. Comp. 16, 1962",
}


def test_a_tableau_of_ones_own_is_a_method() -> None:
    y0 = torch.ones(2, dtype=torch.float64)
    errors = []
    for step_size in (0.1, 0.05):
        sol = solve(lambda t, y: -y, y0, (0.0, 1.0), method=Tableau(**RALSTON), step_size=step_size)
        errors.append(float((sol.ys[-1] - math.exp(-1)).abs().max()))
    assert errors[1] < errors[0] / 3.5
    same = solve(lambda t, y: -y, y0, (0.0, 1.0), method=ExplicitRungeKutta(Tableau(**RALSTON)), step_size=0.05)
    assert torch.equal(same.ys, sol.ys)


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"order": 3}, "order 3"),
        ({"b": (1 / 2, 1 / 2)}, "order"),
        ({"b": (1 / 4, 1 / 2)}, "order"),
        ({"c": (0, 1 / 2)}, "sum"),
        ({"c": (0.1, 2 / 3)}, "sum"),
        ({"a": ((), (1 / 2,))}, "sum"),
        ({"interpolant": ((1, -1 / 2), (0, 3 / 4))}, "interpolant"),
        ({"interpolant": ((1 / 2, -1 / 4), (1 / 4, 1 / 2))}, "interpolant"),
        ({"interpolant": ((1, -3 / 4),)}, "interpolant"),
        ({"c": (0, 2 / 3, 1)}, "c"),
        ({"a": ((), (2 / 3,), (1, 1))}, "a"),
        ({"b_error": (1, 0, 0)}, "b_error"),
        ({"b_error": (-0.75, 0.5)}, "embedded"),
        ({"c": (0, math.nan)}, "sum|finite|c"),
    ],
)
def test_a_wrong_tableau_is_refused(wrong: dict[str, Any], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        Tableau(**(RALSTON | wrong))


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("part", ["c", "a", "b", "b_error", "interpolant"])
def test_a_slip_in_any_registered_coefficient_is_noticed(method: str, part: str) -> None:
    """One wrong digit in the eighth place, in every coefficient of the table in turn."""
    table = METHODS[method].tableau
    data = getattr(table, part)
    if part == "b_error" and data is None:
        assert method not in ADAPTIVE
        return
    flat = [(i, j) for i, row in enumerate(data) for j in range(len(row))] if part in ("a", "interpolant") else None
    for place in flat if flat is not None else range(len(data)):
        if flat is None:
            changed = [x + 1e-8 * (i == place) for i, x in enumerate(data)]
        else:
            changed = [[x + 1e-8 * ((i, j) == place) for j, x in enumerate(row)] for i, row in enumerate(data)]
        with pytest.raises(ValueError, match=table.name):
            dataclasses.replace(table, **{part: changed})


@pytest.mark.parametrize("method", METHODS)
def test_every_tableau_says_where_it_is_from(method: str) -> None:
    table = METHODS[method].tableau
    assert table.name == method
    assert any(character.isdigit() for character in table.source), "no year in the source"


def test_the_registry_cannot_be_written_to() -> None:
    registry: Any = neuralode.methods()
    with pytest.raises(TypeError):
        registry["mine"] = METHODS["rk4"]
