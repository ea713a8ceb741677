"""Every registered method, and its dense output, converges at the order that it declares."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from fields import METHODS, ORDER, even_steps, slope
from problems import PROBLEMS, Problem

from neuralode import Given, solve

WINDOW = (1e-12, 1e-4)
NAMES = ["logistic", "oscillator", "modulated"]  # the last is the non-autonomous one


def error_at_end(problem: Problem, method: str, span: tuple[float, float], steps: int, everywhere: bool) -> float:
    sol = solve(problem.f, problem.y0, span, method=method, save="steps", **even_steps(method, *span, steps))
    assert int(sol.stats.accepted.max()) == steps
    assert problem.exact is not None
    wanted = np.stack([problem.exact(float(t)) for t in sol.ts])
    errors = np.abs(sol.ys.numpy() - wanted).reshape(steps + 1, -1).max(1)
    return float(errors.max() if everywhere else errors[-1])


def error_inside(problem: Problem, method: str, start: float, step: float) -> float:
    """The largest error at four places inside one step from the exact state."""
    assert problem.exact is not None
    end = start + step
    grid = torch.tensor([start, end], dtype=torch.float64)
    y0 = torch.as_tensor(problem.exact(start))
    sol = solve(problem.f, y0, (start, end), method=method, controller=Given(grid), dense=True)
    read = start + torch.tensor([0.15, 0.4, 0.65, 0.9], dtype=torch.float64) * step
    wanted = np.stack([problem.exact(float(t)) for t in read])
    return float(np.abs(sol(read).numpy() - wanted).max())


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("method", METHODS)
def test_a_method_converges_at_its_order(method: str, name: str) -> None:
    problem, one_step = PROBLEMS[name], METHODS[method].memoryless
    high = one_step and ORDER[method] > 5
    span = (0.0, (0.5 if ORDER[method] > 1 else 0.05) if one_step and not high else 4.0)  # short: first order creeps
    sizes, errors = [], []
    # coarse grids say nothing yet about low orders, nor about a method that begins with steps of another one
    steps = (4 if ORDER[method] <= 3 else 1) if one_step else 16
    # grids that are tried, and of these the ones that count: few steps of a high order say little, and may cancel
    most, finest = (14 if high else 7, 4) if one_step else (5, 5)
    while steps <= 2048 and len(errors) < most:
        error = error_at_end(problem, method, span, steps, everywhere=high)
        if error < WINDOW[0]:
            break
        if error <= WINDOW[1]:
            sizes.append(1 / steps)
            errors.append(error)
        steps = 2 * steps if ORDER[method] <= 3 else int(np.ceil((1.2 if ORDER[method] > 5 else 1.5) * steps))

    assert len(errors) >= 3, f"only {len(errors)} errors fall in the window {WINDOW}"
    assert slope(sizes[-finest:], errors[-finest:]) >= ORDER[method] - 0.2


@pytest.mark.parametrize("direction", [1, -1], ids=["forward", "backward"])
@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("method", METHODS)
def test_dense_output_has_the_order_that_the_method_declares(method: str, name: str, direction: int) -> None:
    problem, order = PROBLEMS[name], METHODS[method].interpolant_order
    # a collocation method has its own polynomial, of as high an order as it has stages
    kind = METHODS[method]
    collocates = kind.implicit and not kind.tableau.diagonally_implicit
    assert order >= (kind.stages if collocates else ORDER[method] - 1)
    assert order >= 1
    # errors of high orders cancel here and there: the largest of some steps
    starts = (0.3, 1.2, 2.0, 2.7) if order > 5 else (0.3,)
    sizes, errors = [], []
    for h in 1.6 * 0.85 ** np.arange(24) if order > 5 else 0.8 * 0.7 ** np.arange(24):
        error = max(error_inside(problem, method, start, direction * float(h)) for start in starts)
        if error < (4e-13 if order > 8 else 1e-13):
            break
        if error <= 1e-3:
            sizes.append(float(h))
            errors.append(error)
    assert len(errors) >= 4
    assert slope(sizes[-6:], errors[-6:]) >= order + 0.8


@pytest.mark.parametrize("method", METHODS)
def test_dense_output_meets_the_steps_at_both_ends(method: str) -> None:
    problem = PROBLEMS["lorenz"]
    grid = torch.tensor([0.0, 0.1, 0.25, 0.3], dtype=torch.float64)
    sol = solve(problem.f, problem.y0, (0.0, 0.3), method=method, controller=Given(grid), dense=True, save="steps")
    torch.testing.assert_close(sol(grid), sol.ys, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("method", METHODS)
def test_inner_outputs_are_the_dense_output(method: str) -> None:
    problem = PROBLEMS["oscillator"]
    times = torch.tensor([0.0, 0.13, 0.2, 0.71, 1.0], dtype=torch.float64)
    sol = solve(problem.f, problem.y0, times, method=method, dense=True, **even_steps(method, 0.0, 1.0, 7))
    torch.testing.assert_close(sol(times), sol.ys, rtol=1e-13, atol=1e-13)


@pytest.mark.parametrize("method", METHODS)
def test_asking_for_inner_outputs_does_not_change_the_steps(method: str) -> None:
    problem = PROBLEMS["van der pol"]
    options = even_steps(method, 0.0, 1.0, 20) if method not in ORDER or not METHODS[method].adaptive else {}
    few = solve(problem.f, problem.y0, (0.0, 1.0), method=method, **options)
    many = solve(problem.f, problem.y0, torch.linspace(0.0, 1.0, 30, dtype=torch.float64), method=method, **options)
    assert torch.equal(few.ys[-1], many.ys[-1])
    assert torch.equal(few.stats.accepted, many.stats.accepted)
