"""Stiff problems from the literature, against SciPy's Radau."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass

import pytest
import torch
from scipy.integrate import solve_ivp
from torch import Tensor

from neuralode import solve
from neuralode.methods.implicit.runge_kutta import ImplicitRungeKutta
from neuralode.methods.runge_kutta.tableaus.kvaerno5 import KVAERNO5

KVAERNOS = ["kvaerno3", "kvaerno4", "kvaerno5"]


def robertson(t: Tensor, y: Tensor) -> Tensor:
    a, b, c = y.unbind(-1)
    first, second, third = 0.04 * a, 1e4 * b * c, 3e7 * b * b
    return torch.stack([second - first, first - second - third, third], -1)


def hires(t: Tensor, y: Tensor) -> Tensor:
    """High irradiance response of photomorphogenesis (Hairer & Wanner II, IV.10)."""
    a, b, c, d, e, f, g, h = y.unbind(-1)
    bound = 280 * f * h
    return torch.stack(
        [
            -1.71 * a + 0.43 * b + 8.32 * c + 0.0007,
            1.71 * a - 8.75 * b,
            -10.03 * c + 0.43 * d + 0.035 * e,
            8.32 * b + 1.71 * c - 1.12 * d,
            -1.745 * e + 0.43 * f + 0.43 * g,
            -bound + 0.69 * d + 1.71 * e - 0.43 * f + 0.69 * g,
            bound - 1.81 * g,
            -bound + 1.81 * g,
        ],
        -1,
    )


def van_der_pol(t: Tensor, y: Tensor, stiffness: float | Tensor = 1000.0) -> Tensor:
    x, v = y.unbind(-1)
    return torch.stack([v, stiffness * (1 - x * x) * v - x], -1)


@dataclass(frozen=True)
class Stiff:
    f: Callable[..., Tensor]
    start: tuple[float, ...]
    end: float

    @property
    def y0(self) -> Tensor:
        return torch.tensor([self.start], dtype=torch.float64)


PROBLEMS = {
    "robertson": Stiff(robertson, (1.0, 0.0, 0.0), 1e5),
    "hires": Stiff(hires, (1.0, 0, 0, 0, 0, 0, 0, 0.0057), 321.8122),
    "van der pol": Stiff(van_der_pol, (2.0, 0.0), 2000.0),
}


@functools.cache
def reference(name: str) -> Tensor:
    problem = PROBLEMS[name]

    def field(t: float, y: object) -> object:
        return problem.f(torch.tensor(t), torch.as_tensor(y)).numpy()

    found = solve_ivp(field, (0, problem.end), problem.start, method="Radau", rtol=1e-10, atol=1e-12)
    assert found.success
    return torch.from_numpy(found.y[:, -1])[None]


@pytest.mark.parametrize("name", PROBLEMS)
def test_every_component_agrees_with_radau_at_1e_8(name: str) -> None:
    problem = PROBLEMS[name]
    sol = solve(problem.f, problem.y0, (0.0, problem.end), method="kvaerno5", rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(sol.y1, reference(name), rtol=1e-8, atol=0)


@pytest.mark.parametrize("method", KVAERNOS)
@pytest.mark.parametrize(("name", "most"), [("robertson", 900), ("hires", 500)])
def test_a_moderate_tolerance_is_met_in_few_steps(method: str, name: str, most: int) -> None:
    problem = PROBLEMS[name]
    sol = solve(problem.f, problem.y0, (0.0, problem.end), method=method, rtol=1e-5, atol=1e-8)
    torch.testing.assert_close(sol.y1, reference(name), rtol=1e-3, atol=1e-8)
    assert int(sol.stats.accepted) < most  # an explicit method takes as many for a hundredth of the time span


def test_newton_does_not_limit_the_steps() -> None:
    """An extrapolated initial guess diverges on this problem; without a second attempt it took 200 steps."""
    problem = PROBLEMS["robertson"]
    sol = solve(problem.f, problem.y0, (0.0, problem.end), method="kvaerno5", rtol=1e-6, atol=1e-8)
    assert int(sol.stats.accepted + sol.stats.rejected) < 90
    assert int(sol.stats.evaluations) < 1500


def test_rows_of_different_stiffness_take_their_own_steps() -> None:
    stiffness = torch.tensor([1.0, 30.0, 1000.0], dtype=torch.float64)

    def f(t: Tensor, y: Tensor, stiffness: Tensor) -> Tensor:
        return van_der_pol(t, y, stiffness)

    y0 = torch.tensor([[2.0, 0.0]] * 3, dtype=torch.float64)
    options = {"method": "kvaerno5", "rtol": 1e-6, "atol": 1e-8, "per_sample": True, "args_dims": 0}
    together = solve(f, y0, (0.0, 20.0), args=(stiffness,), **options)
    for i in range(3):
        alone = solve(f, y0[:1], (0.0, 20.0), args=(stiffness[i : i + 1],), **options)
        assert torch.equal(together.ys[:, i], alone.ys[:, 0])
        assert together.stats.evaluations[i] == alone.stats.evaluations[0]
    assert len(set(together.stats.accepted.tolist())) == 3


@pytest.mark.parametrize("gradient", ["replay", "direct"])
def test_gradients_of_a_stiff_solve_agree_with_finite_differences(gradient: str) -> None:
    rates = torch.tensor([0.04, 1e4, 3e7], dtype=torch.float64)

    def final(scale: Tensor) -> Tensor:
        def f(t: Tensor, y: Tensor) -> Tensor:
            k = rates * scale
            a, b, c = y.unbind(-1)
            first, second, third = k[0] * a, k[1] * b * c, k[2] * b * b
            return torch.stack([second - first, first - second - third, third], -1)

        y0 = PROBLEMS["robertson"].y0
        return solve(f, y0, (0.0, 40.0), method="kvaerno5", rtol=1e-9, atol=1e-12, gradient=gradient).y1[0]

    scale = torch.ones(3, dtype=torch.float64, requires_grad=True)
    y1 = final(scale)
    found = torch.stack([torch.autograd.grad(y1[i], scale, retain_graph=True)[0] for i in range(3)], 1)
    step = 1e-3
    for i, own in enumerate(found):
        shift = torch.zeros(3, dtype=torch.float64)
        shift[i] = step
        with torch.no_grad():
            wanted = (final(1 + shift) - final(1 - shift)) / (2 * step)
        torch.testing.assert_close(own, wanted, rtol=1e-4, atol=1e-9)


def test_a_large_stiff_system_is_solved_matrix_free() -> None:
    """A reaction–diffusion equation, y' = ν y'' + y (1 − y), on 60 points, with rates up to 1500."""
    n = 60

    def f(t: Tensor, y: Tensor) -> Tensor:
        padded = torch.nn.functional.pad(y, (1, 1))
        return 0.1 * (n + 1) ** 2 * (padded[:, :-2] - 2 * y + padded[:, 2:]) + y * (1 - y)

    draw = torch.Generator().manual_seed(0)
    y0 = torch.rand(2, n, generator=draw, dtype=torch.float64)
    options = {"rtol": 1e-6, "atol": 1e-8}
    dense = solve(f, y0, (0.0, 0.2), method=ImplicitRungeKutta(KVAERNO5), **options)
    products = solve(f, y0, (0.0, 0.2), method=ImplicitRungeKutta(KVAERNO5, dense_limit=0), **options)
    torch.testing.assert_close(products.y1, dense.y1, rtol=1e-5, atol=1e-8)
    assert int(products.stats.accepted.max()) < 60
