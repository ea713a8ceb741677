"""At equal tolerance our error is at most three times SciPy's with a pair of the same order."""

from __future__ import annotations

import functools

import numpy as np
import pytest
from problems import PROBLEMS

from neuralode import solve

PEER = {"bosh3": "RK23", "dopri5": "RK45", "tsit5": "RK45"}
TOLERANCES = {"bosh3": (1e-3, 1e-5), "dopri5": (1e-4, 1e-6, 1e-8), "tsit5": (1e-4, 1e-6, 1e-8)}
CASES = [(method, tolerance) for method, tolerances in TOLERANCES.items() for tolerance in tolerances]


def largest_error(found: np.ndarray, reference: np.ndarray) -> float:
    return float(np.abs(found - reference).max())


@functools.cache
def scipy_error(name: str, peer: str, tolerance: float) -> float:
    problem = PROBLEMS[name]
    return largest_error(problem.scipy_solve(peer, tolerance, tolerance), problem.reference())


@pytest.mark.parametrize(("method", "tolerance"), CASES)
@pytest.mark.parametrize("name", PROBLEMS)
def test_error_is_at_most_three_times_that_of_scipy(name: str, method: str, tolerance: float) -> None:
    problem = PROBLEMS[name]
    sol = solve(problem.f, problem.y0, problem.times(), method=method, rtol=tolerance, atol=tolerance)
    ours = largest_error(problem.flat(sol.ys).numpy(), problem.reference())
    assert ours <= 3 * scipy_error(name, PEER[method], tolerance)


@pytest.mark.parametrize("method", PEER)
@pytest.mark.parametrize("name", PROBLEMS)
def test_the_error_falls_with_the_tolerance(name: str, method: str) -> None:
    problem = PROBLEMS[name]
    errors = []
    for tolerance in (1e-3, 1e-6):
        sol = solve(problem.f, problem.y0, problem.times(), method=method, rtol=tolerance, atol=tolerance)
        errors.append(largest_error(problem.flat(sol.ys).numpy(), problem.reference()))
    assert errors[1] < errors[0] / 10


@pytest.mark.parametrize("name", [name for name, problem in PROBLEMS.items() if problem.exact is not None])
def test_the_references_agree(name: str) -> None:
    problem = PROBLEMS[name]
    np.testing.assert_allclose(problem.scipy_solve("DOP853", 1e-13, 1e-13), problem.reference(), rtol=1e-9, atol=1e-10)
