"""Implicit Runge–Kutta steps: order, damping, Newton's iteration and derivatives."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from fields import slope
from torch import Tensor, nn
from torch.autograd import gradcheck, gradgradcheck

import neuralode
from neuralode import solve
from neuralode.core.dense_output import horner
from neuralode.core.jacobians import Linearised, jacobian, jvp, vjp
from neuralode.core.status import GradientError
from neuralode.methods.base import StepStart
from neuralode.methods.implicit.runge_kutta import ImplicitRungeKutta
from neuralode.methods.runge_kutta.order_conditions import residual
from neuralode.methods.runge_kutta.tableau import Tableau

METHODS = {name: method for name, method in neuralode.methods().items() if isinstance(method, ImplicitRungeKutta)}
ADAPTIVE = [name for name, method in METHODS.items() if method.adaptive]
DAMPING = ["implicit_euler", "sdirk2", "trbdf2", "radauIIA3", "radauIIA5", *ADAPTIVE]
F64 = torch.float64

assert len(ADAPTIVE) == 3
assert {"trapezoid", "gl4", *DAMPING} <= set(METHODS)


class Plain:
    """A field that counts its evaluations, to test a method alone."""

    dtype: torch.dtype | None = None

    def __init__(self, f: Callable[[Tensor, Tensor], Tensor], coupled: bool = False) -> None:
        self.f, self.coupled = f, coupled
        self.calls = self.jacobians = 0

    def __call__(self, t: Tensor, y: Tensor) -> Tensor:
        self.calls += 1
        return self.f(t, y)

    def jacobian(self, t: Tensor, y: Tensor) -> Tensor:
        self.jacobians += 1
        return jacobian(self.f, t, y, coupled=self.coupled)

    def linearised(self, t: Tensor, y: Tensor) -> Linearised:
        self.calls += 1
        return Linearised(self.f, t, y)

    def jvp(self, t: Tensor, y: Tensor, v: Tensor) -> Tensor:
        return jvp(self.f, t, y, v=v)

    def vjp(self, t: Tensor, y: Tensor, w: Tensor) -> Tensor:
        return vjp(self.f, t, y, w=w)


def tolerance(rtol: float, atol: float, per_sample: bool = False) -> Callable[[Tensor, Tensor, Tensor], Tensor]:
    def ratio(error: Tensor, y: Tensor, y1: Tensor) -> Tensor:
        scaled = error.abs() / (atol + rtol * torch.maximum(y.abs(), y1.abs()))
        return scaled.amax(1) if per_sample else scaled.amax()

    return ratio


def method_of(name: str, products: bool = False) -> ImplicitRungeKutta:
    return ImplicitRungeKutta(METHODS[name].tableau, dense_limit=0) if products else METHODS[name]


def solve_loop(method: ImplicitRungeKutta, field: Plain, y: Tensor, t: float, t1: float, steps: int) -> Tensor:
    h, method_state = (t1 - t) / steps, None
    for n in range(steps):
        step = method.step(StepStart(field, t + n * h, y, h, method_state))
        assert step.ok
        y, method_state = step.y1, step.method_state
    return y


def pendulum(t: Tensor, y: Tensor) -> Tensor:
    angle, speed = y[:, :1], y[:, 1:]
    push = torch.cos(t)[:, None] if t.dim() else torch.cos(t)
    return torch.cat([speed, -torch.sin(angle) - 0.1 * speed + push * angle], 1)


STARTS = torch.tensor([[1.0, 0.0], [-0.4, 0.7], [2.0, -1.0]], dtype=F64)

each_method = pytest.mark.parametrize("name", METHODS)
dense_or_not = pytest.mark.parametrize("products", [False, True], ids=["dense", "products"])


# ------------------------------------------------------------------------------------------- orders and damping


@each_method
def test_a_method_converges_at_its_order_on_a_nonlinear_equation(name: str) -> None:
    method, y0 = METHODS[name], torch.full((1, 1), 0.2, dtype=F64)
    coarse = {1: 40, 2: 24, 3: 12, 4: 8, 5: 12, 6: 4}[method.order]
    sizes, errors = [], []
    for steps in (coarse, 2 * coarse, 4 * coarse):
        y1 = solve_loop(method, Plain(lambda t, y: y * (1 - y)), y0, 0.0, 3.0, steps)
        sizes.append(3.0 / steps)
        errors.append(abs(y1.item() - 1 / (1 + 4 * math.exp(-3.0))))
    assert 1e-13 < errors[-1] < 1e-2
    assert slope(sizes, errors) > method.order - 0.4


@pytest.mark.parametrize("name", DAMPING)
def test_an_l_stable_method_damps_components_much_faster_than_its_step(name: str) -> None:
    y0 = torch.ones(1, 1, dtype=F64)
    y1 = solve_loop(METHODS[name], Plain(lambda t, y: -1e6 * y), y0, 0.0, 2.0, 2)
    assert y1.abs() < 1e-5


@each_method
def test_every_method_is_stable_on_components_much_faster_than_its_step(name: str) -> None:
    y0 = torch.ones(1, 1, dtype=F64)
    y1 = solve_loop(METHODS[name], Plain(lambda t, y: -1e6 * y), y0, 0.0, 20.0, 20)
    assert y1.abs() <= 1


@each_method
def test_a_stiff_equation_follows_its_slow_solution(name: str) -> None:
    y0 = torch.ones(1, 1, dtype=F64)
    y1 = solve_loop(METHODS[name], Plain(lambda t, y: -1e5 * (y - torch.cos(t))), y0, 0.0, 1.0, 10)
    assert (y1 - math.cos(1.0)).abs() < 1e-2


# ------------------------------------------------------------------------------------------- Newton's iteration


@dense_or_not
@each_method
def test_fixed_steps_are_solved_to_rounding(name: str, products: bool) -> None:
    """The stage equations hold to rounding for y1 and the slopes of the stages."""
    method, table = method_of(name, products), METHODS[name].tableau
    step = method.step(StepStart(Plain(pendulum), 0.2, STARTS, 0.5))
    slopes = [x / 0.5 for x in step.stages]
    for i, row in enumerate(table.a):
        at = STARTS + sum(0.5 * weight * k for weight, k in zip(row, slopes, strict=True))
        wanted = pendulum(torch.tensor(0.2 + 0.5 * table.c[i], dtype=F64), at)
        torch.testing.assert_close(slopes[i], wanted, rtol=0, atol=2e-14)
    y1 = STARTS + sum(0.5 * weight * k for weight, k in zip(table.b, slopes, strict=True))
    torch.testing.assert_close(step.y1, y1, rtol=0, atol=1e-14)


@pytest.mark.parametrize("name", ADAPTIVE)
def test_adaptive_steps_stop_iterating_within_the_tolerance(name: str) -> None:
    full, early = Plain(pendulum), Plain(pendulum)
    exact = METHODS[name].step(StepStart(full, 0.2, STARTS, 0.3))
    step = METHODS[name].step(StepStart(early, 0.2, STARTS, 0.3), tolerance(1e-4, 1e-4))
    assert tolerance(1e-4, 1e-4)(step.y1 - exact.y1, STARTS, exact.y1) < 0.1
    assert (step.y1 != exact.y1).any()
    assert step.evaluations < exact.evaluations


@each_method
def test_a_linear_equation_needs_one_jacobian_and_one_factorisation(name: str) -> None:
    matrix = torch.tensor([[-1.0, 2.0], [-2.0, -300.0]], dtype=F64)
    field = Plain(lambda t, y: y @ matrix.T)
    solve_loop(METHODS[name], field, STARTS, 0.0, 2.0, 10)
    assert field.jacobians == 1


@each_method
def test_a_jacobian_that_contracts_badly_is_evaluated_again(name: str) -> None:
    field = Plain(lambda t, y: -(y**3) * (1 + 5 * torch.sin(3 * t) ** 2))
    solve_loop(METHODS[name], field, STARTS, 0.0, 4.0, 20)
    assert field.jacobians >= 2
    gentle = Plain(lambda t, y: -0.01 * y**3)
    solve_loop(METHODS[name], gentle, STARTS, 0.0, 0.02, 20)
    assert gentle.jacobians <= 2


@dense_or_not
@pytest.mark.parametrize("error_norm", [None, tolerance(1e-6, 1e-8)], ids=["stated", "tolerated"])
@pytest.mark.parametrize("name", ["sdirk2", "gl4", *ADAPTIVE])
def test_evaluations_are_counted(name: str, error_norm: Any, products: bool) -> None:
    field, method, method_state, y = Plain(pendulum), method_of(name, products), None, STARTS
    counted = calls = 0
    for n in range(5):
        step = method.step(StepStart(field, 0.1 * n, y, 0.1, method_state), error_norm)
        y, method_state = step.y1, step.method_state
        counted, calls = counted + step.evaluations, calls + step.calls
    assert counted == calls == field.calls + field.jacobians


def blow_up(t: Tensor, y: Tensor) -> Tensor:
    """y' = y²: an implicit step across the pole has no solution."""
    return y * y


@dense_or_not
@pytest.mark.parametrize("name", ["implicit_euler", "gl4", *ADAPTIVE])
def test_a_fixed_step_without_a_solution_gives_nan(name: str, products: bool) -> None:
    y = torch.full((1, 1), 2.0, dtype=F64)
    step = method_of(name, products).step(StepStart(Plain(blow_up), 0.0, y, 5.0))
    assert step.y1.isnan().all()


@dense_or_not
@pytest.mark.parametrize("name", ADAPTIVE)
def test_an_adaptive_step_without_a_solution_is_not_ok_and_has_an_infinite_error(name: str, products: bool) -> None:
    y = torch.full((1, 1), 2.0, dtype=F64)
    step = method_of(name, products).step(StepStart(Plain(blow_up), 0.0, y, 5.0), tolerance(1e-6, 1e-6))
    assert step.ok is False
    assert step.error is not None
    assert step.error.isinf().all()
    start = StepStart(Plain(blow_up), 0.0, y, 0.01, step.method_state_if_rejected)
    again = method_of(name, products).step(start, tolerance(1e-6, 1e-6))
    assert again.ok is True
    torch.testing.assert_close(again.y1, y / (1 - 0.01 * y), rtol=1e-6, atol=0)


def test_a_solve_shortens_its_steps_where_newton_fails() -> None:
    y0 = torch.full((1, 1), 1.0, dtype=F64)
    sol = solve(
        blow_up, y0, (0.0, 0.99), method="kvaerno5", rtol=1e-6, atol=1e-8, controller=neuralode.PI(first_step=0.9)
    )
    torch.testing.assert_close(sol.y1, torch.full((1, 1), 100.0, dtype=F64), rtol=1e-3, atol=0)
    assert int(sol.stats.rejected) > 0


@pytest.mark.parametrize("per_sample", [False, True])
def test_a_solve_with_fixed_steps_ends_where_newton_fails(per_sample: bool) -> None:
    options = {"method": "implicit_euler", "step_size": 0.05, "per_sample": per_sample}
    y0 = torch.full((1, 1), 2.0, dtype=F64)
    with pytest.raises(neuralode.SolveError) as caught:
        solve(blow_up, y0, (0.0, 1.0), **options)
    assert caught.value.solution.ys[-1].isnan().all()
    assert solve(blow_up, y0, (0.0, 0.2), **options).y1.isfinite().all()


@pytest.mark.parametrize("name", ["sdirk2", "gl4", "kvaerno3"])
def test_the_iteration_stops_at_the_rounding_of_f(name: str) -> None:
    """Newton's iteration cannot go below the rounding of a bfloat16 network."""
    net = nn.Sequential(nn.Linear(3, 16), nn.Tanh(), nn.Linear(16, 3))
    coarse = nn.Sequential(nn.Linear(3, 16), nn.Tanh(), nn.Linear(16, 3)).bfloat16()
    coarse.load_state_dict(net.state_dict())
    field = Plain(lambda t, y: coarse(y.bfloat16()).float())
    field.dtype = torch.bfloat16
    y = torch.randn(4, 3)
    step = METHODS[name].step(StepStart(field, 0.0, y, 0.2))
    assert step.ok
    fine = METHODS[name].step(StepStart(Plain(lambda t, y: net(y)), 0.0, y, 0.2))
    torch.testing.assert_close(step.y1, fine.y1, rtol=0.02, atol=0.02)


# ---------------------------------------------------------------------------------------------- rows and dtypes


@dense_or_not
@pytest.mark.parametrize("error_norm", [None, tolerance(1e-5, 1e-7, True)], ids=["stated", "tolerated"])
@each_method
def test_a_row_of_a_step_has_the_same_bits_alone(name: str, error_norm: Any, products: bool) -> None:
    method = method_of(name, products)
    t, h = torch.tensor([0.0, 0.3, 0.1], dtype=F64), torch.tensor([0.2, 0.9, 0.01], dtype=F64)

    def twice(rows: slice) -> list[Tensor]:
        step = method.step(StepStart(Plain(pendulum), t[rows], STARTS[rows], h[rows]), error_norm)
        following = method.step(
            StepStart(Plain(pendulum), t[rows] + h[rows], step.y1, h[rows] * 1.3, step.method_state), error_norm
        )
        last = torch.where(following.ok[:, None], following.y1, 0)  # results of failed attempts are not used
        return [step.y1, last, step.evaluations, following.evaluations, following.ok]

    together = twice(slice(None))
    assert len(set((together[2] + together[3]).tolist())) > 1
    for i in range(3):
        for whole, alone in zip(together, twice(slice(i, i + 1)), strict=True):
            assert torch.equal(whole[i], alone[0])


@dense_or_not
@pytest.mark.parametrize("name", ["sdirk2", "gl4", *ADAPTIVE])
def test_rows_without_a_step_cost_nothing_and_failing_rows_leave_others_unchanged(name: str, products: bool) -> None:
    y = torch.tensor([[0.5], [torch.nan], [3.0], [0.2]], dtype=F64)
    h = torch.tensor([0.1, 0.0, 5.0, 0.3], dtype=F64)
    t, healthy = torch.zeros(4, dtype=F64), [0, 3]
    for error_norm in (None, tolerance(1e-6, 1e-8, True)):
        step = method_of(name, products).step(StepStart(Plain(blow_up), t, y, h), error_norm)
        assert step.ok.tolist() == [True, True, error_norm is None, True]
        assert step.y1[2].isnan().all() == (error_norm is None)
        assert step.evaluations[1] == 0
        alone = method_of(name, products).step(
            StepStart(Plain(blow_up), t[healthy], y[healthy], h[healthy]), error_norm
        )
        assert torch.equal(step.y1[healthy], alone.y1)
        assert torch.equal(step.evaluations[healthy], alone.evaluations)


@each_method
def test_it_converges_in_single_precision(name: str) -> None:
    y1 = solve_loop(METHODS[name], Plain(pendulum), STARTS.float(), 0.0, 1.0, 4)
    assert y1.dtype == torch.float32
    wanted = solve_loop(METHODS[name], Plain(pendulum), STARTS, 0.0, 1.0, 4)
    torch.testing.assert_close(y1.to(F64), wanted, rtol=1e-5, atol=1e-5)


@dense_or_not
@pytest.mark.parametrize("name", ["trapezoid", "radauIIA3", "kvaerno4"])
def test_a_complex_equation_equals_that_of_its_real_and_imaginary_parts(name: str, products: bool) -> None:
    def f(t: Tensor, z: Tensor) -> Tensor:
        return (-2 + 3j) * z * z.abs() ** 2 + 0.3 * z.conj() * t  # not holomorphic

    def parts(t: Tensor, y: Tensor) -> Tensor:
        return torch.view_as_real(f(t, torch.view_as_complex(y.unflatten(1, (2, 2))))).flatten(1)

    z = torch.tensor([[1 + 1j, 0.3 - 0.2j], [-0.5j, 2.0]], dtype=torch.complex128)
    method = method_of(name, products)
    found = solve_loop(method, Plain(f), z, 0.0, 0.5, 3)
    wanted = solve_loop(method, Plain(parts), torch.view_as_real(z).flatten(1), 0.0, 0.5, 3)
    torch.testing.assert_close(torch.view_as_real(found).flatten(1), wanted, rtol=1e-12, atol=1e-12)


def mixing(t: Tensor, y: Tensor) -> Tensor:
    return pendulum(t, y) - 20 * (y - y.mean(0)) * y.mean(0) ** 2


@dense_or_not
@pytest.mark.parametrize("name", ["implicit_euler", "gl4", "kvaerno3"])
def test_coupled_rows_are_solved_together(name: str, products: bool) -> None:
    def flat(t: Tensor, y: Tensor) -> Tensor:
        return mixing(t, y.reshape(3, 2)).reshape(1, 6)

    method = method_of(name, products)
    found = solve_loop(method, Plain(mixing, coupled=True), STARTS, 0.0, 0.6, 2)
    wanted = solve_loop(method, Plain(flat), STARTS.reshape(1, 6), 0.0, 0.6, 2)
    torch.testing.assert_close(found.reshape(1, 6), wanted, rtol=1e-12, atol=1e-12)


def test_a_state_without_features_is_accepted() -> None:
    step = METHODS["sdirk2"].step(StepStart(Plain(lambda t, y: y), 0.0, torch.zeros(2, 0), 0.1))
    assert step.ok
    assert step.y1.shape == (2, 0)


# --------------------------------------------------------------------------------------------------- dense output


@each_method
def test_the_interpolant_starts_and_ends_with_the_step(name: str) -> None:
    method, field = METHODS[name], Plain(pendulum)
    step = method.step(StepStart(field, 0.2, STARTS, 0.5))
    coefficients = method.interpolant(StepStart(field, 0.2, STARTS, 0.5), step.stages)
    thetas = (0.25, 0.5, 1.0)
    read = method.interpolate(StepStart(field, 0.2, STARTS, 0.5), step.stages, thetas)
    for theta, state in zip(thetas, read, strict=True):
        torch.testing.assert_close(horner(coefficients, torch.tensor(theta, dtype=F64)), state, rtol=0, atol=1e-14)
    assert torch.equal(coefficients[0], STARTS)
    torch.testing.assert_close(read[-1], step.y1, rtol=0, atol=1e-14)


@each_method
def test_the_quadrature_of_the_slope_equals_the_increment(name: str) -> None:
    t, h = torch.tensor([0.2, 0.0, 1.0], dtype=F64), torch.tensor([0.5, 0.1, -0.3], dtype=F64)
    nodes = METHODS[name].quadrature(StepStart(Plain(pendulum), t, STARTS, h))
    total = sum(h[:, None] * weight * pendulum(time, state) for weight, time, state in nodes)
    step = METHODS[name].step(StepStart(Plain(pendulum), t, STARTS, h))
    torch.testing.assert_close(STARTS + total, step.y1, rtol=0, atol=1e-13)


# ------------------------------------------------------------------------------------------------- derivatives


def retaken(
    method: ImplicitRungeKutta, coupled: bool, derivatives: int
) -> Callable[[Tensor, Tensor, Tensor, Tensor], tuple[Tensor, Tensor]]:
    """Return a step and its interpolant as a function of everything that gradients flow to."""

    def step(rate: Tensor, y: Tensor, t: Tensor, h: Tensor) -> tuple[Tensor, Tensor]:
        field = Plain(lambda t, y: rate * pendulum(t, y) + (y.mean(0) ** 2 if coupled else 0), coupled)
        y1, stages, _ = method.retake(StepStart(field, t, y, h), dense=True, derivatives=derivatives)
        return y1, method.interpolant(StepStart(field, t, y, h), stages)

    return step


def inputs(per_sample: bool) -> tuple[Tensor, ...]:
    t, h = ([0.1, 0.5], [0.3, -0.2]) if per_sample else (0.1, 0.3)
    numbers = ([1.3, 0.8], STARTS[:2].tolist(), t, h)
    return tuple(torch.tensor(x, dtype=F64, requires_grad=True) for x in numbers)


@pytest.mark.parametrize("clock", ["shared", "per sample", "coupled"])
@pytest.mark.parametrize("name", ["implicit_euler", "trapezoid", "sdirk2", "gl4", "kvaerno3"])
def test_a_step_has_first_and_second_derivatives_in_all_inputs(name: str, clock: str) -> None:
    step = retaken(METHODS[name], clock == "coupled", derivatives=2)
    given = inputs(clock == "per sample")
    assert gradcheck(step, given, atol=1e-8, rtol=1e-6)
    assert gradgradcheck(step, given, atol=1e-7, rtol=1e-5)


@pytest.mark.parametrize("clock", ["shared", "per sample", "coupled"])
@pytest.mark.parametrize("name", ["sdirk2", "gl4"])
def test_matrix_free_derivatives_equal_dense_ones(name: str, clock: str) -> None:
    def derivatives(products: bool) -> list[Tensor]:
        given = inputs(clock == "per sample")
        y1, inside = retaken(method_of(name, products), clock == "coupled", derivatives=2)(*given)
        first = torch.autograd.grad((y1**3).sum() + inside.sin().sum(), given, create_graph=True)
        second = torch.autograd.grad(sum((g**2).sum() for g in first), given)
        return [y1, inside, *first, *second]

    for dense, products in zip(derivatives(False), derivatives(True), strict=True):
        torch.testing.assert_close(products, dense, rtol=1e-9, atol=1e-11)


@each_method
def test_the_first_derivative_does_not_depend_on_their_number(name: str) -> None:
    found = []
    for derivatives in (1, 2):
        given = inputs(per_sample=False)
        y1, inside = retaken(METHODS[name], False, derivatives)(*given)
        found.append(torch.autograd.grad(y1.sum() + inside.sum(), given))
    for one, two in zip(*found, strict=True):
        torch.testing.assert_close(one, two, rtol=1e-12, atol=1e-13)


@each_method
def test_a_retaken_step_equals_the_fixed_step_with_or_without_a_graph(name: str) -> None:
    step = METHODS[name].step(StepStart(Plain(pendulum), 0.2, STARTS, 0.5))
    with torch.no_grad():
        plain = METHODS[name].retake(StepStart(Plain(pendulum), 0.2, STARTS, 0.5), dense=True)[0]
    graphed = METHODS[name].retake(StepStart(Plain(pendulum), 0.2, STARTS.clone().requires_grad_(), 0.5), dense=True)[0]
    torch.testing.assert_close(plain, step.y1, rtol=0, atol=1e-14)
    torch.testing.assert_close(graphed.detach(), step.y1, rtol=0, atol=1e-14)
    assert graphed.requires_grad
    assert not plain.requires_grad


def test_a_retaken_step_without_a_solution_is_refused() -> None:
    y = torch.full((1, 1), 2.0, dtype=F64, requires_grad=True)
    with pytest.raises(GradientError, match="could not be solved to rounding"):
        METHODS["implicit_euler"].retake(StepStart(Plain(blow_up), 0.0, y, 5.0), dense=False)


@pytest.mark.parametrize("gradient", ["replay", "direct", neuralode.Replay(memory="stage"), neuralode.Replay(every=3)])
def test_gradients_of_an_adaptive_solve_are_those_of_the_equation(gradient: Any) -> None:
    """y' = -k y³: y(1)² = y0² / (1 + 2 k y0²)."""
    k = torch.tensor(2.0, dtype=F64, requires_grad=True)
    y0 = torch.tensor([[1.0], [0.3]], dtype=F64, requires_grad=True)
    sol = solve(lambda t, y: -k * y**3, y0, (0.0, 1.0), method="kvaerno5", rtol=1e-8, atol=1e-10, gradient=gradient)
    found = torch.autograd.grad(sol.y1.sum(), (k, y0))
    exact = (y0**2 / (1 + 2 * k * y0**2)).sqrt().sum()
    for own, wanted in zip(found, torch.autograd.grad(exact, (k, y0)), strict=True):
        torch.testing.assert_close(own, wanted, rtol=1e-6, atol=0)


def test_a_failed_row_does_not_make_shared_gradients_nan() -> None:
    k = torch.tensor(1.0, dtype=F64, requires_grad=True)
    y0 = torch.tensor([[0.2], [2.0], [0.5]], dtype=F64)  # row 1 is infinite at t = 0.5
    options = {"method": "kvaerno5", "per_sample": True, "on_failure": "return"}
    all_rows = solve(lambda t, y: k * y * y, y0, (0.0, 1.0), **options).y1
    assert all_rows.isnan().any(1).tolist() == [False, True, False]
    (found,) = torch.autograd.grad(all_rows.sum(), k)
    (wanted,) = torch.autograd.grad(solve(lambda t, y: k * y * y, y0[[0, 2]], (0.0, 1.0), **options).y1.sum(), k)
    assert found.isfinite()
    torch.testing.assert_close(found, wanted, rtol=1e-9, atol=0)


# ---------------------------------------------------------------------------------------------------- refused input


def test_invalid_options_are_refused() -> None:
    table = METHODS["gl4"].tableau
    with pytest.raises(ValueError, match="dense_limit=-1"):
        ImplicitRungeKutta(table, dense_limit=-1)
    with pytest.raises(ValueError, match="iterations=0"):
        ImplicitRungeKutta(table, iterations=0)
    with pytest.raises(ValueError, match="iterations=2.5"):
        ImplicitRungeKutta(table, iterations=2.5)  # pyright: ignore[reportArgumentType]


def test_a_tableau_with_blocks_of_different_sizes_is_solved() -> None:
    """Lobatto IIIA of order 4: an explicit stage and two that are solved together."""
    table = Tableau(
        name="lobatto", order=4, c=(0, 1 / 2, 1), a=((), (5 / 24, 1 / 3, -1 / 24), (1 / 6, 2 / 3, 1 / 6)),
        b=(1 / 6, 2 / 3, 1 / 6), interpolant=((1, -3 / 2, 2 / 3), (0, 2, -4 / 3), (0, -1 / 2, 2 / 3)),
        interpolant_order=3, source="Hairer & Wanner II, IV.5",
    )  # fmt: skip
    assert table.blocks == ((0,), (1, 2))
    assert residual(4, torch.tensor(table.a).numpy(), torch.tensor(table.b).numpy()) < 1e-6
    errors = []
    for steps in (5, 10):
        y1 = solve_loop(
            ImplicitRungeKutta(table), Plain(lambda t, y: y * (1 - y)), STARTS[:1, :1] * 0.2, 0.0, 3.0, steps
        )
        errors.append(abs(y1.item() - 1 / (1 + 4 * math.exp(-3.0))))
    assert 12 < errors[0] / errors[1] < 20
    assert gradcheck(retaken(ImplicitRungeKutta(table), False, 1), inputs(False), atol=1e-8, rtol=1e-6)
