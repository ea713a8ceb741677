"""User methods: accepted wherever a name is, with the defaults of `OneStepMethod` or without them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
import torch
from fields import slope
from torch import Tensor, nn

import neuralode
from neuralode import Stepper, solve
from neuralode.core.clock import scaled
from neuralode.engines.grid import equal_steps, integrate_grid
from neuralode.methods import OneStepMethod, Step, StepStart, find_method
from neuralode.methods.base import DeclaredProperties, Method
from neuralode.nn import NeuralODE

F64 = torch.float64
Y0 = torch.tensor([[1.0], [0.5], [2.0]], dtype=F64)
STEPS = (40, 80, 160)


class Heun(OneStepMethod):
    """Heun's method, with Euler's as the embedded one."""

    name, order, evaluations_per_step, weights = "my_heun", 2, 2, (0.5, 0.5)

    def step(self, start: StepStart, error_norm: Any = None) -> Step:
        k1 = start.slope(0.0, start.y)
        euler = scaled(start.y, start.h, k1)
        k2 = start.slope(1.0, euler)
        y1 = scaled(start.y, start.h, (k1 + k2) / 2)
        return self.result(start, y1=y1, error=y1 - euler if self.adaptive else None)


class AdaptiveHeun(Heun):
    name, adaptive, error_order = "my_adaptive_heun", True, 1


class WithoutWeights(Heun):
    name, weights = "my_plain_heun", ()


class Alone:
    """The midpoint rule with all members of the contract and no base class."""

    name, family, order, error_order, interpolant_order, stages = "alone", "mine", 2, 0, 2, 2
    adaptive, implicit, partitioned, one_call, memoryless, inexact = False, False, False, False, True, 0.0
    evaluations_per_step, dense_evaluations = 2, 0

    def begin(self, f0: Tensor) -> Tensor:
        return f0

    def evaluations_again(self, dense: bool, method_state: Any = None) -> int:
        return 2

    def _midpoint(self, start: StepStart, first: Tensor | None) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        f, t, y, h, _ = start
        times = [torch.as_tensor(x, dtype=y.dtype) for x in (t, t + h / 2)]
        k1 = f(times[0], y) if first is None else first
        k2 = f(times[1], scaled(y, h, k1 / 2))
        return scaled(y, h, k2), (k1, k2)

    def step(self, start: StepStart, error_norm: Any = None) -> Step:
        y1, stages = self._midpoint(start, start.method_state)
        made = 2 - (start.method_state is not None)
        return Step(y1, None, None, stages[0], stages, True, evaluations=made, calls=made)

    def retake(self, start: StepStart, *, dense: bool, derivatives: int = 1) -> tuple[Tensor, Any, None]:
        return *self._midpoint(start, None), None

    def interpolate(self, start: StepStart, stages: Any, thetas: Sequence[float]) -> Tensor:
        c = self.interpolant(start, stages)
        return torch.stack([c[0] + theta * c[1] + theta**2 * c[2] for theta in thetas])

    def interpolant(self, start: StepStart, stages: Any) -> Tensor:
        zero, (k1, k2) = torch.zeros_like(start.y), stages
        return torch.stack((start.y, scaled(zero, start.h, k1), scaled(zero, start.h, k2 - k1)))

    def quadrature(self, start: StepStart) -> list[tuple[float, Tensor, Tensor]]:
        f, t, y, h, _ = start
        time = torch.as_tensor(t + h / 2, dtype=y.dtype)
        return [(1.0, time, scaled(y, h, f(torch.as_tensor(t, dtype=y.dtype), y) / 2))]


OWN = [Heun(), WithoutWeights(), Alone()]
each_method = pytest.mark.parametrize("method", OWN, ids=lambda method: method.name)
each_clock = pytest.mark.parametrize("per_sample", [False, True], ids=["shared", "per_sample"])


def modulated(t: Tensor, y: Tensor) -> Tensor:
    t = t[:, None] if t.dim() else t
    return y * torch.cos(t)


def exact(t: float) -> Tensor:
    return Y0 * torch.sin(torch.tensor(t, dtype=F64)).exp()


def assert_order(errors: Sequence[float], order: int) -> None:
    assert order - 0.2 <= slope([1 / n for n in STEPS], list(errors)) <= order + 0.7


@each_clock
@each_method
def test_it_converges_at_its_order_at_the_end_and_within_steps(method: Any, per_sample: bool) -> None:
    ends, inside = [], []
    for steps in STEPS:
        options = {"method": method, "step_size": 2.0 / steps, "per_sample": per_sample}
        ends.append(float((solve(modulated, Y0, (0.0, 2.0), **options).y1 - exact(2.0)).abs().max()))
        at = torch.tensor([0.0, 1.0 + 0.9 / steps, 2.0], dtype=F64)
        inside.append(float((solve(modulated, Y0, at, **options).ys[1] - exact(at[1].item())).abs().max()))
    assert_order(ends, 2)
    assert_order(inside, 2)


def by_hand(method: Any, rate: Tensor, y: Tensor, steps: int) -> Tensor:
    h = 1.0 / steps
    for n in range(steps):
        t = torch.tensor(n * h, dtype=F64)
        k1 = rate * modulated(t, y)
        if isinstance(method, Alone):
            y = y + h * rate * modulated(t + h / 2, y + h / 2 * k1)
        else:
            y = y + h / 2 * (k1 + rate * modulated(t + h, y + h * k1))
    return y


@each_clock
@pytest.mark.parametrize("gradient", ["replay", "direct", "adjoint"])
@each_method
def test_it_has_the_gradients_of_its_steps(method: Any, gradient: str, per_sample: bool) -> None:
    rate, y0 = torch.tensor(0.7, dtype=F64, requires_grad=True), Y0.clone().requires_grad_()
    wanted = torch.autograd.grad(by_hand(method, rate, y0, 50).square().sum(), (rate, y0))
    options = {"method": method, "step_size": 0.02, "gradient": gradient, "per_sample": per_sample}
    sol = solve(lambda t, y: rate * modulated(t, y), y0, (0.0, 1.0), **options)
    found = torch.autograd.grad(sol.y1.square().sum(), (rate, y0))
    # the same method solves the adjoint equation, so that gradients have its order
    tolerance = 1e-3 if gradient == "adjoint" else 1e-12
    torch.testing.assert_close(found, wanted, rtol=tolerance, atol=0)


@each_clock
@each_method
def test_adjoint_gradients_of_parameters_converge_at_its_order(method: Any, per_sample: bool) -> None:
    rate = torch.tensor(0.7, dtype=F64, requires_grad=True)
    errors = []
    for steps in STEPS:
        options = {"method": method, "step_size": 1.0 / steps, "gradient": "adjoint", "per_sample": per_sample}
        sol = solve(lambda t, y: rate * modulated(t, y), Y0, (0.0, 1.0), **options)
        (found,) = torch.autograd.grad(sol.y1.sum(), rate)
        growth = torch.sin(torch.tensor(1.0, dtype=F64))
        errors.append(float((found - (Y0 * growth * (rate.detach() * growth).exp()).sum()).abs()))
    assert slope([1 / n for n in STEPS], errors) >= 1.8


@each_clock
@pytest.mark.parametrize("gradient", ["replay", "adjoint"])
def test_an_error_estimate_makes_it_adaptive(gradient: str, per_sample: bool) -> None:
    y0 = Y0.clone().requires_grad_()
    options = {"method": AdaptiveHeun(), "rtol": 1e-6, "atol": 1e-8, "per_sample": per_sample, "gradient": gradient}
    sol = solve(modulated, y0, (0.0, 2.0), **options)
    torch.testing.assert_close(sol.y1, exact(2.0), rtol=1e-4, atol=0)
    (found,) = torch.autograd.grad(sol.y1.sum(), y0)
    torch.testing.assert_close(found, (exact(2.0) / Y0), rtol=1e-4, atol=0)


@each_method
def test_it_counts_its_evaluations(method: Any) -> None:
    stats = solve(modulated, Y0, (0.0, 1.0), method=method, step_size=0.1).stats
    wanted = 1 + 10 * 2 - isinstance(method, Alone)  # Alone reuses f0 as its first stage
    assert stats.evaluations.tolist() == [wanted] * len(Y0)


@each_method
def test_it_is_accepted_wherever_a_name_is(method: Any) -> None:
    assert find_method(method) is method
    net = nn.Linear(1, 1).double()
    block = NeuralODE(lambda t, y: net(y), t=(0.0, 1.0), method=method, step_size=0.25)
    block(Y0).sum().backward()
    assert net.weight.grad is not None
    stepper = Stepper(modulated, Y0, (0.0, 1.0), method=method, step_size=0.5).step().step()
    torch.testing.assert_close(stepper.y, solve(modulated, Y0, (0.0, 1.0), method=method, step_size=0.5).y1)
    y0 = Y0.clone().requires_grad_()
    backward = neuralode.Adjoint(method=method, step_size=0.01)
    (found,) = torch.autograd.grad(solve(modulated, y0, (0.0, 2.0), gradient=backward, rtol=1e-8).y1.sum(), y0)
    torch.testing.assert_close(found, exact(2.0) / Y0, rtol=1e-4, atol=0)
    on_grid = integrate_grid(modulated, Y0, equal_steps(0.0, 1.0, 4), method=method)
    torch.testing.assert_close(on_grid, solve(modulated, Y0, (0.0, 1.0), method=method, step_size=0.25).y1)


@pytest.mark.parametrize("name", ["retake", "interpolant", "error_order", "memoryless", "quadrature"])
def test_a_method_that_lacks_a_member_is_refused_with_its_name(name: str) -> None:
    members = {key: value for key, value in vars(Alone).items() if not key.startswith("__") and key != name}
    incomplete = type("Incomplete", (), members)()
    message = (
        rf"method is a Incomplete, which has no '{name}'; wanted a name, or an object with the members of "
        r"neuralode\.methods\.base\.Method \(docs/extending\.md\)"
    )
    with pytest.raises(TypeError, match=message):
        solve(modulated, Y0, (0.0, 1.0), method=incomplete, step_size=0.5)


def test_a_class_and_other_objects_are_refused() -> None:
    with pytest.raises(TypeError, match=r"method is the class Alone; wanted an instance, Alone\(\.\.\.\)"):
        solve(modulated, Y0, (0.0, 1.0), method=Alone, step_size=0.5)
    with pytest.raises(TypeError, match=r"method is a float, which has no 'name', 'family', .*; wanted a name, or an"):
        solve(modulated, Y0, (0.0, 1.0), method=4.0)
    with pytest.raises(TypeError, match=r"method is a Crossing, which has no 'name', .*'cross'.*base\.OneCallMethod"):
        solve(modulated, Y0, (0.0, 1.0), method=type("Crossing", (), {"one_call": True})())


def members(protocol: type) -> list[str]:
    return [name for base in protocol.__mro__ for name in vars(base) if not name.startswith("_") and base is not object]


@pytest.mark.parametrize("name", neuralode.methods())
def test_every_registered_method_meets_the_contract(name: str) -> None:
    method = neuralode.methods()[name]
    assert find_method(method) is method
    assert {"step", "begin", "order"} <= set(members(Method))
    assert [member for member in members(Method) if not hasattr(method, member)] == []


def test_a_one_call_method_meets_the_contract() -> None:
    assert find_method(neuralode.Scipy()).one_call
    assert [member for member in members(DeclaredProperties) if not hasattr(neuralode.Scipy(), member)] == []
