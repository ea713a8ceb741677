"""Steady states and their derivatives: against closed forms, finite differences and backpropagation."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from neuralode import GradientError, SolveError, Status, solve, steady_state, until_steady


@pytest.fixture(autouse=True)
def _double() -> Any:
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def logistic(t: Tensor, y: Tensor, capacity: Tensor) -> Tensor:
    return y * (1 - y / capacity)


class Equilibrium(torch.nn.Module):
    """A deep-equilibrium layer: y' = tanh(W y + U x + b) − y."""

    def __init__(self, width: int, spread: float = 0.5) -> None:
        super().__init__()
        self.inner = torch.nn.Linear(width, width)
        self.outer = torch.nn.Linear(3, width, bias=False)
        torch.nn.init.normal_(self.inner.weight, std=spread / math.sqrt(width))

    def forward(self, t: Tensor, y: Tensor, x: Tensor) -> Tensor:
        return torch.tanh(self.inner(y) + self.outer(x)) - y


# values and derivatives


def test_the_logistic_equation_approaches_its_capacity_with_derivative_one() -> None:
    capacity = torch.tensor([[2.0], [3.0]], requires_grad=True)
    y0 = torch.tensor([[0.1], [0.2]], requires_grad=True)
    rest = steady_state(logistic, y0, args=(capacity,), args_dims=0, per_sample=True)
    assert (rest.y - capacity).abs().max() < 1e-14
    assert rest.success
    assert rest.residual.max() < 1e-14
    by_capacity, by_y0 = torch.autograd.grad(rest.y.sum(), (capacity, y0), allow_unused=True)
    assert (by_capacity - 1).abs().max() < 1e-14
    assert by_y0 is None


@pytest.mark.parametrize("dense_limit", [128, 0])
def test_a_linear_system_has_exact_first_and_second_derivatives(dense_limit: int) -> None:
    """A y + b = 0 has the solution y = −A⁻¹ b, which autograd differentiates."""
    a = -2 * torch.eye(3) + 0.5 * torch.randn(3, 3)
    b = torch.randn(3)
    a.requires_grad_()
    b.requires_grad_()
    rest = steady_state(lambda t, y: a @ y + b, torch.zeros(3), dense_limit=dense_limit, derivatives=2)
    want = -torch.linalg.solve(a, b)
    assert (rest.y - want).abs().max() < 1e-12
    firsts = [torch.autograd.grad(y.sin().sum(), (a, b), create_graph=True) for y in (rest.y, want)]
    seconds = [torch.autograd.grad(one[0].square().sum() + one[1].sum(), (a, b)) for one in firsts]
    for found, known in zip((*firsts[0], *seconds[0]), (*firsts[1], *seconds[1]), strict=True):
        assert (found - known).abs().max() < 1e-9


@pytest.mark.parametrize(("per_sample", "dense_limit"), [(True, 128), (False, 128), (True, 0), (False, 0)])
def test_derivatives_of_a_deep_equilibrium_layer_agree_with_differences(per_sample: bool, dense_limit: int) -> None:
    layer, x, weights = Equilibrium(6), torch.randn(4, 3, requires_grad=True), torch.randn(4, 6)
    how = {"args_dims": 0, "per_sample": per_sample, "dense_limit": dense_limit}

    def loss(x: Tensor) -> Tensor:
        return (weights * steady_state(layer, torch.zeros(4, 6), args=(x,), **how).y).sum()

    parameters = list(layer.parameters())
    found = torch.autograd.grad(loss(x), (x, *parameters))
    step = 1e-6
    for tensor, grad in zip((x, *parameters), found, strict=True):
        direction = torch.randn_like(tensor)
        with torch.no_grad():
            tensor += step * direction
            above = loss(x)
            tensor -= 2 * step * direction
            below = loss(x)
            tensor += step * direction
        assert abs(float((above - below) / (2 * step) - (grad * direction).sum())) < 1e-7


def test_derivatives_agree_with_backpropagation_through_the_iteration() -> None:
    layer, x = Equilibrium(5), torch.randn(3, 3)
    y = torch.zeros(3, 5)
    for _ in range(200):
        y = y + layer(torch.zeros(()), y, x)
    parameters = list(layer.parameters())
    known = torch.autograd.grad(y.square().sum(), parameters)
    rest = steady_state(layer, torch.zeros(3, 5), args=(x,))
    found = torch.autograd.grad(rest.y.square().sum(), parameters)
    assert max(float((a - b).abs().max()) for a, b in zip(found, known, strict=True)) < 1e-12


def test_a_captured_tensor_and_its_source_are_not_counted_twice() -> None:
    """f uses a tensor, and the parameter that it was computed from."""
    weight = torch.tensor(0.7, requires_grad=True)
    encoded = weight.square() + 1
    rest = steady_state(lambda t, y: encoded - weight * y, torch.zeros(1))
    found = torch.autograd.grad(rest.y.sum(), weight)[0]
    assert abs(float(found) - (1 - 1 / 0.7**2)) < 1e-12  # y = w + 1/w


@pytest.mark.parametrize("coupled", [False, True])
def test_rows_that_depend_on_each_other_form_one_system(coupled: bool) -> None:
    bias = torch.randn(3, 2, requires_grad=True)

    def f(t: Tensor, y: Tensor) -> Tensor:
        return bias - y + (0.5 * y.mean(0) if coupled else 0)

    rest = steady_state(f, torch.zeros(3, 2))
    want = bias + bias.mean(0) if coupled else bias
    assert (rest.y - want).abs().max() < 1e-13
    found = torch.autograd.grad(rest.y[0].sum(), bias)[0]
    known = torch.autograd.grad((want + 0 * bias)[0].sum(), bias)[0]
    assert (found - known).abs().max() < 1e-13


def test_states_of_any_structure_become_steady() -> None:
    k = torch.tensor(1.5, requires_grad=True)

    def f(t: Tensor, y: Any) -> Any:
        return {"a": 1 - y["a"], "b": k * y["a"].sum() - 1j * y["b"] - y["b"]}

    rest = steady_state(f, {"a": torch.zeros(2), "b": torch.zeros((), dtype=torch.complex128)})
    want = 2 * k / (1 + 1j)
    assert abs(rest.y["b"].detach() - want.detach()) < 1e-13
    found, known = (torch.autograd.grad(x.real + 2 * x.imag, k)[0] for x in (rest.y["b"], want))
    assert abs(float(found - known)) < 1e-12


def test_stiff_kinetics_become_steady_where_newton_alone_would_fail() -> None:
    """The Jacobian is singular at the start."""

    def f(t: Tensor, y: Tensor) -> Tensor:
        a, b, c = y.unbind(-1)
        return torch.stack((1 - 1000 * a * b - 0.1 * a, 1000 * a * (1 - b) - 2 * b, b - 0.01 * c), -1)

    rest = steady_state(f, torch.zeros(1, 3))
    assert f(torch.zeros(()), rest.y).abs().max() < 1e-12
    assert bool((rest.y > 0).all())
    assert rest.stats.accepted.max() < 200


def test_float32_and_no_grad() -> None:
    with torch.no_grad():
        rest = steady_state(logistic, torch.full((1,), 0.1, dtype=torch.float32), args=(2.0,), rtol=1e-4, atol=1e-6)
    assert rest.y.dtype == torch.float32
    assert abs(rest.y.item() - 2) < 1e-6
    assert not rest.y.requires_grad


def test_a_steady_initial_state_takes_no_step() -> None:
    rest = steady_state(logistic, torch.tensor([[2.0], [0.1]]), args=(2.0,), per_sample=True)
    assert rest.t[0] == 0
    assert rest.stats.accepted[0] == 0
    assert rest.stats.accepted[1] > 0
    alone = steady_state(logistic, torch.tensor([[2.0]]), args=(2.0,))
    assert alone.y.item() == 2
    assert int(alone.stats.accepted) == 0


# failures


def spin(t: Tensor, y: Tensor) -> Tensor:
    return torch.stack((y[..., 1], -y[..., 0]), -1)


def test_a_periodic_orbit_raises_with_a_hint() -> None:
    with pytest.raises(SolveError, match="periodic orbit") as raised:
        steady_state(spin, torch.tensor([1.0, 0.0]), max_time=20.0, method="tsit5")
    assert raised.value.solution.y.isnan().all()
    assert raised.value.solution.status.tolist() == [Status.MAX_STEPS]


def test_a_row_without_a_steady_state_leaves_the_others_and_their_gradients() -> None:
    """Row 1 grows without bound."""
    k = torch.tensor([[1.0], [-1.0], [2.0]], requires_grad=True)
    rate = torch.tensor(1.0, requires_grad=True)

    def f(t: Tensor, y: Tensor, k: Tensor) -> Tensor:
        return rate - k * y

    how = {"args": (k,), "args_dims": 0, "per_sample": True, "max_time": 50.0}
    rest = steady_state(f, torch.ones(3, 1), on_failure="return", **how)
    assert rest.y[:, 0].isnan().tolist() == [False, True, False]
    assert rest.t.isnan().tolist() == [False, True, False]
    by_k, by_rate = torch.autograd.grad(rest.y.nan_to_num().sum(), (k, rate))
    assert by_k.flatten().tolist() == pytest.approx([-1, 0, -0.25])
    assert float(by_rate) == pytest.approx(1.5)
    with pytest.raises(SolveError, match=r"rows \[1\] of 3"):
        steady_state(f, torch.ones(3, 1), **how)


@pytest.mark.parametrize("dense_limit", [128, 0])
def test_a_conserved_quantity_raises_in_backward(dense_limit: int) -> None:
    k = torch.tensor(2.0, requires_grad=True)

    def exchange(t: Tensor, y: Tensor) -> Tensor:
        flow = k * y[0] - y[1]
        return torch.stack((-flow, flow))

    rest = steady_state(exchange, torch.tensor([1.0, 0.0]), dense_limit=dense_limit)
    assert rest.y.tolist() == pytest.approx([1 / 3, 2 / 3], abs=1e-6)
    with pytest.raises(GradientError, match="something is conserved"):
        rest.y[0].backward()


def test_second_derivatives_need_derivatives_2() -> None:
    k = torch.tensor(2.0, requires_grad=True)
    rest = steady_state(lambda t, y: 1 - k * y, torch.zeros(1))
    with pytest.raises(GradientError, match="derivatives=2"):
        torch.autograd.grad(rest.y.sum(), k, create_graph=True)


@pytest.mark.parametrize(
    ("f", "options", "words"),
    [
        (lambda t, y: torch.sin(2 * math.pi * t) - y, {}, "f changes with t"),
        (lambda t, y: torch.rand_like(y) - y, {}, "draws random numbers"),
        (lambda t, y: -y, {"rtol": -1.0}, "rtol=-1.0"),
        (lambda t, y: -y, {"rtol": 0, "atol": 0}, "both 0"),
        (lambda t, y: -y, {"derivatives": 3}, "derivatives=3"),
        (lambda t, y: -y, {"max_time": 0.0}, "max_time"),
        (lambda t, y: -y, {"method": "rk4"}, "step_size"),
        (lambda t, y: -y[:1], {}, "returned shape"),
    ],
)
def test_bad_arguments_are_refused(f: Any, options: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        steady_state(f, torch.ones(2), **options)


# the event


@pytest.mark.parametrize("per_sample", [False, True])
def test_until_steady_ends_a_solve(per_sample: bool) -> None:
    rates = torch.tensor([[1.0], [4.0]])

    def f(t: Tensor, y: Tensor, rates: Tensor) -> Tensor:
        return rates * (1 - y)

    event = until_steady(f, rtol=0, atol=1e-6)
    sol = solve(
        f, torch.zeros(2, 1), (0.0, math.inf), args=(rates,), args_dims=0, per_sample=per_sample, events=event,
        rtol=1e-9, atol=1e-10,
    )  # fmt: skip
    ends = torch.log(rates[:, 0] / 1e-6) / rates[:, 0] if per_sample else torch.log(torch.tensor(1e6 / math.sqrt(2)))
    assert (sol.ts[..., -1] - ends).abs().max() < 1e-3
    assert sol.status.tolist() == [Status.EVENT] * 2
