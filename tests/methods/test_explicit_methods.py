"""Properties of explicit methods besides their order: DOP853, strong stability, low storage, dense output."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from benchmarks.memory import peak_bytes
from fields import Counting, even_steps
from problems import PROBLEMS, Problem
from scipy.integrate import DOP853, solve_ivp
from torch import Tensor

import neuralode
from neuralode import ExplicitRungeKutta, Given, Tableau, solve
from neuralode.core.layout import lay_out
from neuralode.core.norms import Norm
from neuralode.methods.base import StepStart
from neuralode.methods.runge_kutta.low_storage import LowStorageRungeKutta
from neuralode.methods.runge_kutta.tableaus.bosh3 import BOSH3
from neuralode.methods.runge_kutta.tableaus.carpenter_kennedy54 import CARPENTER_KENNEDY54
from neuralode.methods.runge_kutta.tableaus.dop853 import DOP853 as TABLE
from neuralode.methods.runge_kutta.tableaus.gl4 import GL4
from neuralode.methods.runge_kutta.tableaus.rk4 import RK4

METHODS: dict[str, Any] = dict(neuralode.methods())


def in_numpy(problem: Problem) -> Callable[[float, np.ndarray], np.ndarray]:
    return lambda t, y: problem.f(torch.tensor(t, dtype=torch.float64), torch.as_tensor(y)).numpy()


def vector(*numbers: float) -> Tensor:
    return torch.tensor(numbers, dtype=torch.float64)


# DOP853


@pytest.mark.parametrize("tolerance", [1e-4, 1e-7, 1e-10])
@pytest.mark.parametrize("name", ["arenstorf", "lorenz", "brusselator", "backward forced"])
def test_dop853_takes_the_same_steps_as_scipy(name: str, tolerance: float) -> None:
    problem = PROBLEMS[name]
    span = (problem.t0, problem.t1)
    sol = solve(problem.f, problem.y0, span, method="dop853", rtol=tolerance, atol=tolerance)
    peer = solve_ivp(in_numpy(problem), span, problem.y0.numpy(), method="DOP853", rtol=tolerance, atol=tolerance)
    assert abs(int(sol.stats.evaluations.max()) - peer.nfev) <= 0.05 * peer.nfev
    np.testing.assert_allclose(sol.y1.numpy(), peer.y[:, -1], rtol=0, atol=100 * tolerance)


@pytest.mark.parametrize("name", ["oscillator", "logistic", "modulated", "forced"])
def test_dop853_reaches_twelve_digits(name: str) -> None:
    problem = PROBLEMS[name]
    options: dict[str, Any] = {"method": "dop853", "rtol": 1e-13, "atol": 1e-13}
    steps = solve(problem.f, problem.y0, (problem.t0, problem.t1), save="steps", **options)
    inner = solve(problem.f, problem.y0, problem.times(20), **options)
    assert problem.exact is not None
    for sol, least in ((steps, 1e-12), (inner, 1e-11)):  # the order of dense output is lower by one
        wanted = np.stack([problem.exact(float(t)) for t in sol.ts])
        np.testing.assert_allclose(sol.ys.numpy(), wanted, rtol=0, atol=least)


@pytest.mark.parametrize("name", ["lorenz", "arenstorf", "modulated"])
def test_dense_output_of_dop853_equals_that_of_scipy(name: str) -> None:
    problem, h = PROBLEMS[name], 0.02
    peer = DOP853(in_numpy(problem), 0.0, problem.y0.numpy(), t_bound=h, first_step=h, rtol=1.0, atol=1e3)
    peer.step()
    assert peer.t == h
    times = torch.linspace(0.0, h, 13, dtype=torch.float64)
    sol = solve(problem.f, problem.y0, (0.0, h), method="dop853", controller=Given(times[[0, -1]]), dense=True)
    wanted = peer.dense_output()(times.numpy()).T
    np.testing.assert_allclose(sol(times).numpy(), wanted, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("name", ["lorenz", "arenstorf", "brusselator"])
@pytest.mark.parametrize("h", [0.003, 0.03, 0.3])
def test_the_two_estimates_of_dop853_are_combined_as_published(name: str, h: float) -> None:
    problem = PROBLEMS[name]
    method = METHODS["dop853"]
    field = problem.f
    y = problem.y0[None]
    step = method.step(StepStart(field, 0.0, y, h))
    assert isinstance(step.error, tuple)
    rtol, atol = 1e-6, 1e-8
    peer = DOP853(in_numpy(problem), 0.0, problem.y0.numpy(), t_bound=10.0, rtol=rtol, atol=atol)
    stages = np.stack([stage[0].numpy() for stage in step.stages])
    scale = atol + rtol * np.maximum(np.abs(y[0].numpy()), np.abs(step.y1[0].numpy()))
    wanted = peer._estimate_error_norm(stages, h, scale)
    for per_sample in (False, True):
        norm = Norm(lay_out(problem.y0[None], True), rtol, atol, per_sample)
        found = norm(step.error, y, step.y1)
        assert found.shape == ((1,) if per_sample else ())
        assert float(found) == pytest.approx(wanted, rel=1e-10)


def test_a_pair_of_estimates_is_combined_by_row_and_zero_errors_are_tolerated() -> None:
    high = torch.tensor([[3e-6, 3e-6], [0.0, 0.0], [0.0, 0.0], [torch.inf, 0.0], [1e-6, torch.nan]])
    low = torch.tensor([[4e-5, 4e-5], [1.0, 1.0], [0.0, 0.0], [0.0, 0.0], [1e-6, 1e-6]])
    y = torch.zeros(5, 2)
    found = Norm(lay_out(y, True), 0.0, 1e-6, True)((high, low), y, y)
    torch.testing.assert_close(found[:3], vector(1.8, 0.0, 0.0), rtol=1e-5, atol=0)
    assert not found[3:].isfinite().any()  # a nonfinite estimate must not count as small


def test_the_combined_estimate_has_order_7() -> None:
    method = METHODS["dop853"]
    assert method.error_order == 7
    assert (TABLE.error_order, TABLE.error_order_low) == (5, 3)
    problem = PROBLEMS["lorenz"]
    norm = Norm(lay_out(problem.y0[None], False), 0.0, 1.0, False)
    ratios = []
    sizes = [0.04, 0.02]
    for h in sizes:
        step = method.step(StepStart(problem.f, 0.0, problem.y0[None], h))
        ratios.append(float(norm(step.error, problem.y0[None], step.y1)))
    assert 7.5 < np.log2(ratios[0] / ratios[1]) < 8.8  # h^(7 + 1)


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"b_error": None}, "b_error_low"),
        ({"error_order_low": 5}, "error_order_low=5"),
        ({"error_order_low": 0}, "error_order_low=0"),
        ({"error_order_low": 4}, "second embedded order 4"),
        ({"b_error_low": TABLE.b_error_low[:-1] if TABLE.b_error_low else None}, "b_error_low has 12 rows"),
    ],
)
def test_a_wrong_second_estimate_is_refused(wrong: dict[str, Any], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        dataclasses.replace(TABLE, **wrong)


def test_a_wrong_coefficient_of_the_second_estimate_is_detected() -> None:
    weights = TABLE.b_error_low
    assert weights is not None
    for place in range(len(weights)):
        changed = [x + 1e-8 * (i == place) for i, x in enumerate(weights)]
        with pytest.raises(ValueError, match="second embedded order"):
            dataclasses.replace(TABLE, b_error_low=changed)


def test_an_implicit_tableau_with_a_second_estimate_is_refused() -> None:
    with pytest.raises(ValueError, match="implicit"):
        dataclasses.replace(
            GL4, b_error=(0.5, -0.5), error_order=2, b_error_low=(0.0, 0.0), error_order_low=1, interpolant_order=2
        )


# Dense output


@pytest.mark.parametrize("method", ["fehlberg45", "cash_karp", "dop853", "carpenter_kennedy54"])
@pytest.mark.parametrize("per_sample", [False, True])
def test_dense_stages_are_evaluated_for_dense_output_only(method: str, per_sample: bool) -> None:
    problem, kind = PROBLEMS["oscillator"], METHODS[method]
    y0, span = problem.y0[None], vector(0.0, 1.0)
    options: dict[str, Any] = {"method": method, "controller": Given(torch.linspace(0, 1, 6, dtype=torch.float64))}

    def calls(times: Tensor, **more: Any) -> int:
        field = Counting(problem.f)
        sol = solve(field, y0, times, per_sample=per_sample, **options, **more)
        assert int(sol.stats.calls) == field.calls == int(sol.stats.evaluations.max()) or per_sample
        return field.calls

    ends = calls(span)
    assert calls(span, dense=True) == ends + 5 * kind.dense_evaluations
    inner = calls(vector(0.0, 0.05, 0.1, 0.7, 1.0))  # two of the five steps have outputs inside
    assert inner == ends + (5 if per_sample else 2) * kind.dense_evaluations


@pytest.mark.parametrize("method", ["fehlberg45", "cash_karp", "dop853", "carpenter_kennedy54"])
def test_the_slope_of_dense_output_is_continuous(method: str) -> None:
    table = METHODS[method].tableau
    interpolant = np.array(table.interpolant)
    slopes = interpolant @ np.arange(1, interpolant.shape[1] + 1)
    last = table.stages - 1 if table.first_same_as_last else table.stages  # f(t1, y1)
    assert np.abs(interpolant[:, 0] - np.eye(len(slopes))[0]).max() < 1e-12
    assert np.abs(slopes - np.eye(len(slopes))[last]).max() < 1e-11


# Pairs of order 5


@pytest.mark.parametrize("tolerance", [1e-5, 1e-8])
@pytest.mark.parametrize("name", ["lorenz", "van der pol", "brusselator", "pleiades"])
@pytest.mark.parametrize("method", ["fehlberg45", "cash_karp"])
def test_pairs_of_order_5_have_errors_and_work_similar_to_scipy(method: str, name: str, tolerance: float) -> None:
    problem = PROBLEMS[name]
    span = (problem.t0, problem.t1)
    sol = solve(problem.f, problem.y0, span, method=method, rtol=tolerance, atol=tolerance)
    peer = solve_ivp(in_numpy(problem), span, problem.y0.numpy(), method="RK45", rtol=tolerance, atol=tolerance)
    wanted = problem.reference()[-1]
    assert int(sol.stats.evaluations.max()) <= 1.15 * peer.nfev
    # the estimates of these pairs are smaller for the same error, so that steps are longer
    assert np.abs(sol.y1.numpy() - wanted).max() <= 10 * np.abs(peer.y[:, -1] - wanted).max()


# Strong stability


CELLS, STEPS = 100, 30


def variation(u: Tensor) -> Tensor:
    return (u - u.roll(1, -1)).abs().sum(-1)


def growth(method: str, courant: float, gusts: bool) -> tuple[float, float]:
    """Return the growth of the total variation of upwind transport over a step, or to any point within one.

    By Euler steps it does not grow up to a Courant number of 1. The wind drops whenever a step begins; or it is the
    state itself (Burgers' equation).
    """
    h = courant / CELLS
    x = torch.arange(CELLS, dtype=torch.float64) / CELLS
    block = ((x > 0.2) & (x < 0.6)).double()

    def f(t: Tensor, u: Tensor) -> Tensor:
        wind = (2 * torch.sin(torch.pi * t / h) ** 2).clamp(max=1) if gusts else u / 2
        flux = wind * u
        return -CELLS * (flux - flux.roll(1, -1))

    grid = torch.arange(STEPS + 1, dtype=torch.float64) * h
    sol = solve(f, block, (0.0, float(grid[-1])), method=method, controller=Given(grid), save="steps", dense=True)
    ends = variation(sol.ys)
    thetas = torch.linspace(0.1, 0.9, 9, dtype=torch.float64)
    inside = variation(sol((grid[:-1, None] + thetas * h).flatten())).reshape(STEPS, -1)
    return float((ends[1:] - ends[:-1]).max()), float((inside - ends[:-1, None]).max())


@pytest.mark.parametrize("gusts", [True, False], ids=["gusts", "burgers"])
@pytest.mark.parametrize(("method", "limit"), [("ssprk33", 1.0), ("ssprk43", 2.0)])
def test_the_total_variation_does_not_grow_up_to_the_limit(method: str, limit: float, gusts: bool) -> None:
    for courant in (0.5 * limit, limit):
        assert max(growth(method, courant, gusts)) < 1e-13


def test_the_total_variation_grows_with_a_method_that_is_not_strong_stability_preserving() -> None:
    assert growth("heun3", 1.0, True)[0] > 0.1
    assert growth("bosh3", 2.0, True)[0] > 0.1


@pytest.mark.parametrize(("method", "beyond"), [("ssprk33", 2.0), ("ssprk43", 2.1)])
def test_the_total_variation_grows_beyond_the_limit(method: str, beyond: float) -> None:
    assert growth(method, beyond, True)[0] > 0.1


def test_the_pair_of_ssprk43_adapts() -> None:
    problem = PROBLEMS["van der pol"]
    errors = []
    for tolerance in (1e-4, 1e-7):
        sol = solve(problem.f, problem.y0, problem.times(), method="ssprk43", rtol=tolerance, atol=tolerance)
        errors.append(np.abs(sol.ys.numpy() - problem.reference()).max())
    assert errors[0] < 1e-2
    assert errors[1] < errors[0] / 100


# Low storage


AS_TABLE = ExplicitRungeKutta(CARPENTER_KENNEDY54)


@pytest.mark.parametrize("name", ["lorenz", "modulated", "complex rotation", "backward forced"])
def test_a_low_storage_step_equals_that_of_the_tableau(name: str) -> None:
    problem = PROBLEMS[name]
    span, steps = (problem.t0, problem.t1), even_steps("rk4", problem.t0, problem.t1, 200)
    times = problem.times(17)
    low = solve(problem.f, problem.y0, times, method="carpenter_kennedy54", **steps)
    table = solve(problem.f, problem.y0, times, method=AS_TABLE, **steps)
    torch.testing.assert_close(low.ys, table.ys, rtol=1e-12, atol=1e-12)
    assert solve(problem.f, problem.y0, span, method="carpenter_kennedy54", **steps).stats.accepted.max() == 200


@pytest.mark.parametrize("per_sample", [False, True])
def test_low_storage_gradients_equal_those_of_the_tableau(per_sample: bool) -> None:
    def gradients(method: Any) -> tuple[Tensor, ...]:
        w = torch.tensor([[0.3, -1.0], [0.8, 0.1]], dtype=torch.float64, requires_grad=True)
        y0 = torch.tensor([[1.0, 0.5], [-0.3, 0.2], [0.1, 0.9]], dtype=torch.float64, requires_grad=True)
        t = torch.tensor([0.0, 0.4, 1.0], dtype=torch.float64, requires_grad=True)
        sol = solve(lambda t, y: torch.tanh(y @ w), y0, t, method=method, step_size=0.3, per_sample=per_sample)
        return torch.autograd.grad((sol.ys**2).sum(), (w, y0, t))

    for ours, wanted in zip(gradients("carpenter_kennedy54"), gradients(AS_TABLE), strict=True):
        torch.testing.assert_close(ours, wanted, rtol=1e-11, atol=1e-12)


def test_a_low_storage_step_keeps_no_stages() -> None:
    y = torch.ones(1, 100_000, dtype=torch.float64)

    def peak(method: Any) -> float:
        """Return the peak memory in states, without that before the step."""
        with torch.no_grad():
            method.step(StepStart(lambda t, y: -y, 0.0, y[:, :10], 0.1))
            return peak_bytes(lambda: method.step(StepStart(lambda t, y: -y, 0.0, y, 0.1))) / (8 * y.numel())

    method = METHODS["carpenter_kennedy54"]
    assert peak(method) == pytest.approx(3, abs=0.01)  # the current state, the other register, and the result of f
    assert peak(AS_TABLE) > 6
    step = method.step(StepStart(lambda t, y: -y, 0.0, y, 0.1))
    assert [x.data_ptr() for x in step.stages] == [step.y1.data_ptr()]


def test_tensors_that_f_received_are_not_overwritten() -> None:
    seen: list[tuple[Tensor, Tensor]] = []

    def f(t: Tensor, y: Tensor) -> Tensor:
        answer = -y
        seen.extend((x, x.clone()) for x in (y, answer))
        return answer

    solve(f, vector(1.0, 2.0), (0.0, 1.0), method="carpenter_kennedy54", step_size=0.25)
    assert len(seen) == 2 * 20
    for x, before in seen:
        assert torch.equal(x, before)


@pytest.mark.parametrize(
    ("table", "says"),
    [
        (RK4, "Williamson"),
        (BOSH3, "b_error"),
        (METHODS["ssprk33"].tableau, "Williamson"),
        (METHODS["midpoint"].tableau, None),  # A = (0, -1/2), B = (1/2, 1)
    ],
)
def test_tableaus_without_a_low_storage_form_are_refused(table: Tableau, says: str | None) -> None:
    if says is not None:
        with pytest.raises(ValueError, match=says):
            LowStorageRungeKutta(table)
        return
    problem = PROBLEMS["lorenz"]
    low, usual = (
        solve(problem.f, problem.y0, (0.0, 1.0), method=method, step_size=0.01)
        for method in (LowStorageRungeKutta(table), table)
    )
    torch.testing.assert_close(low.ys, usual.ys, rtol=1e-12, atol=1e-12)
