"""Explicit pairs of order 6 and above: accuracy, evaluations and dense output."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
import torch
from fields import METHODS, Counting
from problems import PROBLEMS

from neuralode import Given, solve
from neuralode.methods.runge_kutta.order_conditions import residual
from neuralode.methods.runge_kutta.tableaus.vern6 import VERN6

VERNER = ["vern6", "vern7", "vern8", "vern9"]
DOUBLE_DIGITS = [name for name in ("vern7", "vern8", "vern9", "dop853") if name in METHODS]


@pytest.mark.parametrize("name", ["oscillator", "logistic", "modulated", "forced"])
@pytest.mark.parametrize("method", DOUBLE_DIGITS)
def test_errors_on_smooth_problems_are_below_1e_12(method: str, name: str) -> None:
    problem = PROBLEMS[name]
    sol = solve(problem.f, problem.y0, problem.times(), method=method, rtol=1e-13, atol=1e-13)
    assert np.abs(problem.flat(sol.ys).numpy() - problem.reference()).max() < 1e-12


@pytest.mark.parametrize("method", VERNER)
def test_an_error_of_1e_10_needs_fewer_evaluations_than_dopri5(method: str) -> None:
    problem, calls = PROBLEMS["oscillator"], {}
    for name in (method, "dopri5"):
        f = Counting(problem.f)
        solve(f, problem.y0, (problem.t0, problem.t1), method=name, rtol=1e-10, atol=1e-10)
        calls[name] = f.calls
    assert calls[method] < 0.6 * calls["dopri5"]


@pytest.mark.parametrize("name", ["arenstorf", "pleiades"])
def test_vern9_agrees_with_scipy_at_tight_tolerance(name: str) -> None:
    problem, tolerance = PROBLEMS[name], 1e-12
    sol = solve(problem.f, problem.y0, problem.times(), method="vern9", rtol=tolerance, atol=tolerance)
    ours = np.abs(problem.flat(sol.ys).numpy() - problem.reference()).max()
    scipys = np.abs(problem.scipy_solve("DOP853", tolerance, tolerance) - problem.reference()).max()
    assert ours < 1e-10
    assert ours <= 3 * scipys


@pytest.mark.parametrize("method", VERNER)
def test_dense_stages_are_evaluated_only_in_steps_with_dense_output(method: str) -> None:
    problem, kind = PROBLEMS["logistic"], METHODS[method]
    grid = torch.linspace(0.0, 6.0, 11, dtype=torch.float64)

    def calls(times: list[float], dense: bool = False) -> int:
        f = Counting(problem.f)
        t = torch.tensor(times, dtype=torch.float64)
        solve(f, problem.y0, t, method=method, controller=Given(grid), dense=dense)
        return f.calls

    unseen = calls([0.0, 6.0])
    assert unseen == 10 * kind.evaluations_per_step + (kind.evaluations_per_step < kind.stages)
    assert calls([0.0, 0.7, 0.8, 6.0]) == unseen + kind.dense_evaluations
    assert calls([0.0, 6.0], dense=True) == unseen + 10 * kind.dense_evaluations


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("method", ["vern7", "vern8", "vern9", "dopri8"])
def test_dense_output_is_as_accurate_as_steps(method: str, dtype: torch.dtype) -> None:
    """The coefficients of dense output reach 10,000 and cancel. Cancellation in the steps of vern6 is not tested."""
    problem, step = PROBLEMS["logistic"], 0.05
    assert problem.exact is not None
    y0 = problem.y0.to(dtype)
    read = torch.tensor([0.0, 0.2, 0.45, 0.7, 0.95, 1.0], dtype=torch.float64) * step
    grid = torch.tensor([0.0, step], dtype=torch.float64)
    sol = solve(problem.f, y0, read, method=method, controller=Given(grid), dense=True)
    wanted = torch.tensor(np.stack([problem.exact(float(t)) for t in read]), dtype=dtype)
    for found in (sol.ys, sol(read)):
        assert float((found - wanted).abs().max()) < 8 * torch.finfo(dtype).eps * float(wanted.max())


def test_violations_of_order_conditions_are_measured_beyond_float64() -> None:
    table = VERN6
    a = np.array([row + (0.0,) * (table.stages - len(row)) for row in table.a])
    nodes = [sum(map(Fraction, row)) for row in table.a]
    bushy = sum(Fraction(b) * c**5 for b, c in zip(table.b, nodes, strict=True)) - Fraction(1, 6)
    assert float(abs(bushy)) <= residual(6, a, np.array(table.b)) < 1e-12
    tall = np.zeros(table.stages)
    tall[0] = 1e8  # only the condition of the single node uses the first stage, whose node is 0
    assert residual(6, a, np.array(table.b) + tall) == pytest.approx(1e8)
