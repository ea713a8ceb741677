"""How the peak of memory grows: with the steps taken, and with the depth of f."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from benchmarks.memory import peak_bytes
from torch import Tensor, nn

from neuralode import Adjoint, Given, Replay, solve

ROWS, WIDTH = 512, 8
STATE = ROWS * WIDTH * 8  # bytes of one state, which is also one activation of the field


class Deep(nn.Module):
    """Layers whose activations are large and whose weights are small."""

    def __init__(self, depth: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(WIDTH, WIDTH, dtype=torch.float64) for _ in range(depth))

    def forward(self, t: Tensor, y: Tensor) -> Tensor:
        for layer in self.layers:
            y = torch.tanh(layer(y))
        return y


def solve_and_go_back(f: nn.Module, gradient: Any, steps: int, method: str = "rk4", per_sample: bool = False) -> int:
    """Peak of a solve with this many steps, and of its gradient to the state and the parameters."""
    grid = torch.linspace(0, 1, steps + 1, dtype=torch.float64)
    y0 = torch.full((ROWS, WIDTH), 0.3, dtype=torch.float64, requires_grad=True)
    inputs = [y0, *f.parameters()]

    def run() -> None:
        sol = solve(f, y0, (0.0, 1.0), method=method, controller=Given(grid), gradient=gradient, per_sample=per_sample)
        torch.autograd.grad(sol.ys[-1].sum(), inputs)

    torch.autograd.grad(f(torch.zeros(()), y0).sum(), inputs)  # what is allocated once, once
    solve(f, y0, (0.0, 1.0), method=method, controller=Given(grid), per_sample=per_sample)
    return peak_bytes(run)


def adjoint() -> Adjoint:
    """An adjoint whose own steps do not depend on the field."""
    return Adjoint(method="rk4", step_size=0.05)


CLOCKS = pytest.mark.parametrize("per_sample", [False, True], ids=["shared", "per sample"])


def test_the_measure_sees_what_is_held() -> None:
    def run() -> None:
        kept = [torch.zeros(1000, dtype=torch.float64) for _ in range(10)]
        kept.clear()
        torch.zeros(2000, dtype=torch.float64)

    assert 80_000 <= peak_bytes(run) <= 82_000


@CLOCKS
def test_the_peak_of_adjoint_is_flat_against_steps(per_sample: bool) -> None:
    f = Deep(2)
    few, many = (solve_and_go_back(f, adjoint(), steps, per_sample=per_sample) for steps in (10, 80))
    assert many <= 1.05 * few


@CLOCKS
def test_the_peak_of_adjoint_is_flat_against_its_own_steps(per_sample: bool) -> None:
    f = Deep(2)
    few, many = (
        solve_and_go_back(f, Adjoint(method="rk4", step_size=1 / steps), 10, per_sample=per_sample)
        for steps in (40, 160)  # steps come in chunks: the peak is reached once a chunk is full
    )
    assert many <= 1.05 * few


@CLOCKS
@pytest.mark.parametrize("memory", ["step", "stage"])
def test_the_peak_of_replay_grows_by_the_state_alone(memory: Any, per_sample: bool) -> None:
    f = Deep(4)
    few, many = (solve_and_go_back(f, Replay(memory=memory), steps, per_sample=per_sample) for steps in (10, 40))
    clocks = 30 * 8 * 4 * ROWS if per_sample else 0  # t and h of each row and step
    assert many - few <= 1.05 * 30 * STATE + clocks
    assert many - few >= 0.9 * 30 * STATE, "the states are not even kept: the measure sees nothing"


@pytest.mark.parametrize("every", [5, 10])
def test_keeping_every_kth_state_divides_the_growth(every: int) -> None:
    f = Deep(4)
    few, many = (solve_and_go_back(f, Replay(every=every), steps) for steps in (20, 120))
    assert many - few <= 1.2 * 100 / every * STATE


def test_direct_grows_by_everything_that_f_computes() -> None:
    """The control: what the others spare is there to be spared."""
    f = Deep(4)
    few, many = (solve_and_go_back(f, "direct", steps) for steps in (10, 30))
    assert many - few >= 20 * 4 * 4 * STATE


SHALLOW, DEEP = 4, 20


def growth_with_depth(measure: Callable[[nn.Module], int]) -> int:
    """Bytes by which the peak grows from a shallow field to a deep one."""
    return measure(Deep(DEEP)) - measure(Deep(SHALLOW))


def vjp_of_f(f: nn.Module) -> int:
    y = torch.full((ROWS, WIDTH), 0.3, dtype=torch.float64, requires_grad=True)
    inputs = [y, *f.parameters()]

    def run() -> None:
        torch.autograd.grad(f(torch.zeros(()), y).sum(), inputs)

    run()
    return peak_bytes(run)


def vjp_of_a_step_by_hand(f: nn.Module) -> int:
    """One step of the classical Runge-Kutta method, written out, with its gradient."""
    y = torch.full((ROWS, WIDTH), 0.3, dtype=torch.float64, requires_grad=True)
    inputs, t, h = [y, *f.parameters()], torch.zeros(()), 0.1

    def run() -> None:
        k1 = f(t, y)
        k2 = f(t, y + h / 2 * k1)
        k3 = f(t, y + h / 2 * k2)
        k4 = f(t, y + h * k3)
        torch.autograd.grad((y + h / 6 * (k1 + 2 * k2 + 2 * k3 + k4)).sum(), inputs)

    run()
    return peak_bytes(run)


def test_a_vjp_grows_by_its_activations() -> None:
    """The control: the yardstick is what it is thought to be."""
    assert growth_with_depth(vjp_of_f) >= 0.9 * (DEEP - SHALLOW) * STATE


@CLOCKS
@pytest.mark.parametrize("gradient", [adjoint(), Replay(memory="stage"), Replay(every=3, memory="stage")], ids=str)
def test_against_depth_one_evaluation_is_held_at_a_time(gradient: Any, per_sample: bool) -> None:
    grown = growth_with_depth(lambda f: solve_and_go_back(f, gradient, 5, per_sample=per_sample))
    assert grown <= 1.2 * growth_with_depth(vjp_of_f)


@CLOCKS
@pytest.mark.parametrize("gradient", [Replay(), Replay(every=3)], ids=str)
def test_against_depth_replay_holds_one_step_at_a_time(gradient: Any, per_sample: bool) -> None:
    grown = growth_with_depth(lambda f: solve_and_go_back(f, gradient, 5, per_sample=per_sample))
    assert grown <= 1.2 * growth_with_depth(vjp_of_a_step_by_hand)


@CLOCKS
def test_an_adaptive_solve_without_gradient_keeps_nothing(per_sample: bool) -> None:
    y0 = torch.full((ROWS, WIDTH), 0.3, dtype=torch.float64)

    def measured(span: float) -> int:
        def run() -> None:
            with torch.no_grad():
                sol = solve(lambda t, y: torch.cos(20 * t)[..., None] * y, y0, (0.0, span), per_sample=per_sample)
                taken.append(int(sol.stats.accepted.max()))

        return peak_bytes(run)

    taken: list[int] = []
    few, many = measured(1.0), measured(8.0)
    assert taken[1] > 3 * taken[0]
    clocks = (taken[1] - taken[0]) * 8 * 4 * ROWS if per_sample else 0
    assert many <= 1.05 * few + clocks
