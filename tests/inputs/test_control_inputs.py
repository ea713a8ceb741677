"""Control inputs: values, steps that end at breakpoints, gradients by the values, and errors."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable
from functools import cache, partial
from typing import Any

import pytest
import torch
from fields import Counting, relative_error
from torch import Tensor, nn

from neuralode import Interpolation, Stepper, interpolate, solve
from neuralode.controllers.stop_times import find_stops, unite
from neuralode.core.problem import make_problem
from neuralode.torchdiffeq import odeint, odeint_adjoint

KINDS = pytest.mark.parametrize("kind", ["linear", "cubic", "step"])
CLOCKS = pytest.mark.parametrize("per_sample", [False, True], ids=["shared", "per sample"])
GRADIENTS = pytest.mark.parametrize("gradient", ["replay", "direct", "adjoint"])
TIGHT: dict[str, Any] = {"rtol": 1e-10, "atol": 1e-10}


def tensor(*numbers: Any) -> Tensor:
    return torch.tensor(numbers, dtype=torch.float64)


def knots(count: int) -> Tensor:
    return torch.cumsum(torch.rand(count, dtype=torch.float64) + 0.05, 0)


def around(times: Tensor) -> Tensor:
    """Return times inside, at and outside these."""
    return torch.cat((torch.linspace(float(times[0]) - 1, float(times[-1]) + 1, 301, dtype=times.dtype), times))


PULSES = tensor(0.0, 1.0, 1.5, 2.0)
VOLTS = tensor(0.0, 1.0, -2.0, 0.5)


def charged(end: float, volts: Tensor = VOLTS, times: Tensor = PULSES) -> float:
    """Return the exact solution of y' = u(t) − y, a capacitor behind a resistor."""
    y, edges = 0.0, [*times.tolist(), math.inf]
    for begin, stop, volt in zip(edges[:-1], edges[1:], volts, strict=True):
        if begin < end:
            y = volt + (y - volt) * math.exp(begin - min(stop, end))
    return float(y)


def capacitor(u: Interpolation) -> Callable[[Tensor, Tensor], Tensor]:
    return lambda t, y: u(t)[..., None].expand_as(y) - y


class Hidden:
    """Holds f where it cannot be found, and evaluates it on another thread, where queries are not recorded."""

    __slots__ = ("f",)

    def __init__(self, f: Callable[..., Any]) -> None:
        self.f = f

    def __call__(self, *args: Any) -> Any:
        values: list[Any] = []
        thread = threading.Thread(target=lambda: values.append(self.f(*args)))
        thread.start()
        thread.join()
        return values[0]


# --------------------------------------------------------------------------------------------------------------- values


def test_interpolations_agree_with_scipy() -> None:
    scipy = pytest.importorskip("scipy.interpolate")
    times, values = knots(40), torch.randn(40, 3, 2, dtype=torch.float64)
    queries = around(times)
    clamped = queries.clamp(times[0], times[-1])
    inside = (queries == clamped)[:, None, None]
    spline = scipy.CubicSpline(times, values, bc_type="natural")
    u = interpolate(times, values, "cubic")
    torch.testing.assert_close(u(queries), torch.from_numpy(spline(clamped)), rtol=0, atol=1e-13)
    torch.testing.assert_close(u.derivative(queries), torch.from_numpy(spline(clamped, 1)) * inside, rtol=0, atol=1e-12)
    for kind, name in (("linear", "linear"), ("step", "previous")):
        wanted = torch.from_numpy(scipy.interp1d(times, values, name, axis=0)(clamped))
        torch.testing.assert_close(interpolate(times, values, kind)(queries), wanted, rtol=0, atol=1e-14)


@pytest.mark.parametrize("count", [2, 3, 4, 5, 2000])
def test_a_cubic_spline_of_any_length_is_smooth_and_natural(count: int) -> None:
    times, values = knots(count), torch.randn(count, dtype=torch.float64)
    u = interpolate(times, values, "cubic")
    torch.testing.assert_close(u(times), values, rtol=0, atol=1e-12)
    curve = 2 * u.coefficients[:, 2]
    width = times.diff()
    last = curve + 6 * u.coefficients[:, 3] * width
    torch.testing.assert_close(last[:-1], curve[1:], rtol=0, atol=1e-9 * float(curve.abs().max() + 1))
    assert abs(float(curve[0])) < 1e-12
    assert abs(float(last[-1])) < 1e-9 * float(curve.abs().max() + 1)
    before = torch.nextafter(times[1:-1], times[:-2])
    torch.testing.assert_close(u.derivative(before), u.derivative(times[1:-1]), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("kind", ["linear", "cubic"])
def test_derivatives_agree_with_differences_of_values(kind: Any) -> None:
    times = knots(12)
    u = interpolate(times, torch.randn(12, 2, dtype=torch.float64), kind)
    queries = (times[1:] + times[:-1]) / 2
    difference = (u(queries + 1e-6) - u(queries - 1e-6)) / 2e-6
    torch.testing.assert_close(u.derivative(queries), difference, rtol=1e-6, atol=1e-7)
    t = queries.clone().requires_grad_()
    (slope,) = torch.autograd.grad(u(t)[:, 0].sum(), t)
    torch.testing.assert_close(slope, u.derivative(queries)[:, 0])


@KINDS
def test_floats_tensors_and_times_of_rows_give_the_same_values(kind: Any) -> None:
    times, values = knots(9), torch.randn(9, 2, dtype=torch.float64)
    u, queries = interpolate(times, values, kind), around(times)
    wanted = u(queries)
    assert torch.equal(torch.stack([u(t) for t in queries]), wanted)
    assert torch.equal(torch.stack([u(t.item()) for t in queries]), wanted)
    assert torch.equal(torch.vmap(u)(queries), wanted)
    both = torch.stack((values, -values))
    for own in (interpolate(times, both, kind, rows=True), interpolate(torch.stack((times, times + 1)), both, kind)):
        late = own.times[1, 0] - times[0]
        torch.testing.assert_close(own(queries[50]), torch.stack((u(queries[50]), -u(queries[50] - late))))
        torch.testing.assert_close(own(queries[[50, 200]]), torch.stack((u(queries[50]), -u(queries[200] - late))))
        torch.testing.assert_close(own(torch.stack((queries, queries + late))), torch.stack((wanted, -wanted)))
        torch.testing.assert_close(torch.vmap(lambda u, t: u(t), (0, None))(own, queries[50]), own(queries[50]))


@KINDS
def test_single_precision_times_are_on_the_right_side_of_every_knot(kind: Any) -> None:
    times = knots(30)
    values = torch.randn(30)
    u = interpolate(times, values, kind)
    at = times.float()
    for queries, side in ((at, "after"), (torch.nextafter(at, at - 1), "before")):
        one = torch.stack([u(t) for t in queries])
        assert torch.equal(one, u(queries))
        assert one.dtype == torch.float32
        if kind == "step":
            assert torch.equal(one, values if side == "after" else torch.cat((values[:1], values[:-1])))
        else:
            torch.testing.assert_close(one, values, rtol=1e-5, atol=1e-4)
    if kind == "linear":
        before = u.derivative(torch.nextafter(at, at - 1))[1:]
        torch.testing.assert_close(before, (values.double().diff() / times.diff()).float(), rtol=1e-5, atol=0)
        torch.testing.assert_close(u.derivative(at)[:-1], before, rtol=1e-5, atol=0)
        assert u.derivative(torch.nextafter(at[-1:], at[-1:] + 1)).item() == 0


def test_complex_values_and_writing_into_a_returned_value() -> None:
    values = torch.randn(4, dtype=torch.complex128)
    for kind in ("linear", "cubic", "step"):
        u = interpolate([0.0, 1.0, 2.0, 4.0], values, kind)
        parts = [interpolate([0.0, 1.0, 2.0, 4.0], part, kind)(1.3) for part in (values.real, values.imag)]
        torch.testing.assert_close(u(1.3), torch.complex(*parts))
        u(1.3).mul_(0)
        torch.testing.assert_close(u(1.3), torch.complex(*parts))


def test_an_interpolation_can_be_compiled_and_converted() -> None:
    u = interpolate([0.0, 1.0, 2.0, 4.0], torch.randn(4, 2), "cubic")
    compiled = torch.compile(lambda t: u(t), fullgraph=True, backend="eager")
    assert torch.equal(compiled(torch.tensor(1.7)), u(torch.tensor(1.7)))
    wide = u.to(dtype=torch.float64)
    assert (wide(1.7).dtype, wide.times.dtype) == (torch.float64, torch.float64)


# ---------------------------------------------------------------------------------------------------------- breakpoints


@CLOCKS
@pytest.mark.parametrize("end", [0.7, 1.0, 1.2, 2.0, 2.5])
def test_a_pulsed_capacitor_is_exact(end: float, per_sample: bool) -> None:
    u = interpolate(PULSES, VOLTS, "step")
    f = Counting(capacitor(u))
    sol = solve(f, torch.zeros(3, 1).double(), (0.0, end), per_sample=per_sample, **TIGHT)
    assert (sol.y1 - charged(end)).abs().max().item() < 1e-10
    back = solve(f, sol.y1, (end, 0.0), per_sample=per_sample, **TIGHT)
    assert back.y1.abs().max().item() < 1e-9
    assert int(sol.stats.rejected.max()) <= 3  # one for each pulse


@CLOCKS
def test_without_stops_a_solve_costs_more_and_errs_more(per_sample: bool) -> None:
    u = interpolate(PULSES, VOLTS, "step")
    y0 = torch.zeros(1, 1).double()
    aware = solve(capacitor(u), y0, (0.0, 2.5), per_sample=per_sample, **TIGHT)
    unaware = solve(Hidden(capacitor(u)), y0, (0.0, 2.5), per_sample=per_sample, **TIGHT)
    off = solve(
        capacitor(interpolate(PULSES, VOLTS, "step", stops=False)), y0, (0.0, 2.5), per_sample=per_sample, **TIGHT
    )
    assert torch.equal(off.ys, unaware.ys)
    assert 3 * int(aware.stats.evaluations) < int(unaware.stats.evaluations)
    assert 10 * abs(aware.y1.item() - charged(2.5)) < abs(unaware.y1.item() - charged(2.5))


@pytest.mark.parametrize(
    "how", [{"method": "rk4", "step_size": 0.1}, {"method": "kvaerno5", "rtol": 1e-8, "atol": 1e-10}], ids=str
)
@CLOCKS
def test_fixed_and_implicit_methods_end_steps_at_pulses(how: dict, per_sample: bool) -> None:
    sol = solve(
        capacitor(interpolate(PULSES, VOLTS, "step")), torch.zeros(1, 1).double(), (0.0, 2.5), per_sample=per_sample,
        **how,
    )  # fmt: skip
    assert abs(sol.y1.item() - charged(2.5)) < 1e-6


def ends_of(f: Any, span: tuple[float, float] = (0.0, 2.5), **how: Any) -> set[float]:
    return set(solve(f, torch.zeros(1, 1).double(), span, save="steps", **how).ts.flatten().tolist())


class Held(nn.Module):
    def __init__(self, u: Interpolation) -> None:
        super().__init__()
        self.u = u

    def forward(self, t: Tensor, y: Tensor) -> Tensor:
        return self.u(t) - y


GLOBAL = interpolate(PULSES, VOLTS, "step")


@pytest.mark.parametrize("grad", [True, False], ids=["grad", "no grad"])
@pytest.mark.parametrize("hold", ["closure", "args", "module", "partial", "method", "global", "nested module", "layer"])
def test_an_interpolation_is_found_however_f_holds_it(hold: str, grad: bool) -> None:
    u, args = interpolate(PULSES, VOLTS, "step"), ()
    if hold == "args":
        f, args = lambda t, y, control: control["u"](t) - y, ({"u": u},)
    elif hold == "partial":
        f = partial(lambda u, t, y: u(t) - y, u)
    else:
        module = nn.Sequential(Held(u))[0] if hold == "nested module" else Held(u)
        f = {
            "closure": capacitor(u),
            "module": module,
            "nested module": lambda t, y: nn.ModuleList([module])[0](t, y),
            "method": module.forward,
            "global": lambda t, y: GLOBAL(t) - y,
            "layer": nn.ModuleDict({"f": module})["f"],
        }[hold]
    with torch.set_grad_enabled(grad):
        assert {1.0, 1.5, 2.0} <= ends_of(f, args=args)


def test_an_interpolation_that_f_evaluates_later_is_found_where_f_holds_it() -> None:
    u = interpolate(PULSES, VOLTS, "step")

    class Late(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.u = u

        def forward(self, t: Tensor, y: Tensor) -> Tensor:
            return self.u(t) - y if t > 0.5 else -y

    for f, args in (
        (Late(), ()),
        (lambda t, y: u(t) - y if t > 0.5 else -y, ()),
        (lambda t, y, u: u(t) - y if t > 0.5 else -y, (u,)),
        (partial(lambda u, t, y: u(t) - y if t > 0.5 else -y, u), ()),
    ):
        assert {1.0, 1.5, 2.0} <= ends_of(f, args=args)


def test_breakpoints_depend_on_the_quantity_that_f_uses() -> None:
    """Linear: kinks of the value, jumps of the derivative at all times. Cubic: at both ends only."""
    times, values = tensor(0.5, 1.0, 1.5, 2.0), tensor(0.0, 1.0, -2.0, 0.5)
    linear, cubic = interpolate(times, values), interpolate(times, values, "cubic")
    every = set(times.tolist())
    for f, stops, jump in (
        (lambda t, y: linear(t) - y, every, False),
        (lambda t, y: linear.derivative(t) - y, every, True),
        (lambda t, y: cubic(t) - y, {0.5, 2.0}, False),
        (lambda t, y: cubic.derivative(t) - y, {0.5, 2.0}, True),
    ):
        counted = Counting(f)
        assert ends_of(counted) & every >= stops
        evaluated = {float(t) for t in counted.times}
        assert evaluated.isdisjoint(stops) == jump  # at a jump f is evaluated beside the time only
        assert (math.nextafter(1.0, 0) in evaluated) == (jump and 1.0 in stops)


@pytest.mark.parametrize("kind", ["linear", "cubic"])
def test_the_derivative_integrates_to_the_value(kind: Any) -> None:
    """Also over the ends, where it jumps to zero; forwards and backwards."""
    times, values = knots(6), torch.randn(6, 2, dtype=torch.float64)
    u = interpolate(times, values, kind)
    for span in ((float(times[0]) - 0.3, float(times[-1]) + 0.4), (float(times[0]), float(times[-1]))):
        for ends in (span, span[::-1]):
            sol = solve(lambda t, y: u.derivative(t).expand_as(y), u(ends[0]), ends, **TIGHT)
            torch.testing.assert_close(sol.y1, u(ends[1]), rtol=0, atol=1e-10 if kind == "linear" else 1e-8)
            assert kind == "cubic" or int(sol.stats.rejected) == 0


@CLOCKS
def test_single_precision_evaluates_f_on_the_right_side_of_jumps(per_sample: bool) -> None:
    times = tensor(0.0, 0.7, 1.1, 1.9)
    u = interpolate(times, VOLTS.float(), "step")
    sol = solve(capacitor(u), torch.zeros(2, 1), (0.0, 2.5), per_sample=per_sample, rtol=1e-6, atol=1e-6)
    assert (sol.y1 - charged(2.5, times=times)).abs().max() < 1e-5
    assert int(sol.stats.rejected.max()) <= 3  # one for each pulse


def test_stops_of_several_interpolations_and_of_the_user_unite() -> None:
    u, v = interpolate(PULSES, VOLTS, "step"), interpolate([0.0, 0.3, 1.5, 9.0], VOLTS)
    f = Counting(lambda t, y: u(t) * v(t) - y)
    ends = ends_of(f, step_t=[0.1, 1.0], jump_t=[0.2])
    assert {0.1, 0.2, 0.3, 1.0, 1.5, 2.0} <= ends
    assert {1.0, 1.5, 0.2}.isdisjoint({float(t) for t in f.times})  # a kink or a stop where something else jumps
    assert 0.3 in {float(t) for t in f.times}


def test_times_outside_the_span_cost_nothing() -> None:
    u = interpolate([-3.0, -1.0, 0.0, 5.0], VOLTS, "step")
    driven = solve(lambda t, y: u(t) - y, tensor(0.0), (0.0, 4.0))
    plain = solve(lambda t, y: VOLTS[2] - y, tensor(0.0), (0.0, 4.0))
    assert torch.equal(driven.ys, plain.ys)
    assert driven.stats.calls == plain.stats.calls


def test_rows_stop_at_their_own_breakpoints() -> None:
    """Each row takes the steps that it takes alone, also after finished rows have left the batch."""
    times = torch.stack((PULSES, PULSES + 0.25, 3 * PULSES, PULSES + 50)).double()
    values = torch.stack((VOLTS, VOLTS, -VOLTS, VOLTS))
    u = interpolate(times, values, "step")
    ends = tensor([0.0, 2.5], [0.0, 2.5], [0.0, 7.0], [0.0, 1.0])
    y0 = torch.zeros(4, 1).double()

    def f(t: Tensor, y: Tensor, u: Interpolation) -> Tensor:
        return u(t)[:, None] - y

    how: dict[str, Any] = {"per_sample": True, "args_dims": (0,), **TIGHT}
    sol = solve(f, y0, ends, args=(u,), **how)
    for row in range(4):
        wanted = charged(float(ends[row, 1]), values[row], times[row])
        if row == 3:
            wanted = 0.0
        assert sol.y1[row].item() == pytest.approx(wanted, abs=1e-10)
        own = interpolate(times[row : row + 1], values[row : row + 1], "step")
        alone = solve(f, y0[:1], ends[row : row + 1], args=(own,), **how)
        torch.testing.assert_close(alone.y1[0], sol.y1[row], rtol=1e-14, atol=1e-14)
        assert int(alone.stats.evaluations) == int(sol.stats.evaluations[row])
    shared = solve(lambda t, y: u(t)[:, None] - y, y0, (0.0, 1.0), **TIGHT)
    torch.testing.assert_close(shared.y1[:3, 0], tensor(*(charged(1.0, values[i], times[i]) for i in range(3))))


def test_stops_of_rows_are_sorted_and_unite() -> None:
    start, end = torch.zeros(2).double(), torch.full((2,), 5.0).double()
    t = torch.stack((start, end), 1)
    problem = make_problem(lambda t, y: y, torch.ones(len(start), 1), t, per_sample=True)
    given = find_stops(problem, step_t=[1.0], jump_t=[2.0])
    found = (tensor([1.0, 3.0, 4.0], [2.0, 2.5, 7.0]), torch.tensor([[True, False, True], [False, True, True]]))
    stops = unite(problem, given, [found])
    inf = math.inf
    for row, times in enumerate(([-inf, 1, 1, 2, 3, 4, inf], [-inf, 1, 2, 2, 2.5, inf, inf])):
        assert stops.times[row].tolist() == times
    assert stops.jumps.tolist() == [
        [False, True, True, True, False, True, False],
        [False, False, True, True, True, False, False],
    ]
    assert stops.jumps_at(tensor(4.0, 1.0)).tolist() == [True, False]
    back = stops.reversed()
    assert [x.tolist() for x in back._following(tensor(3.5, 2.5), -1.0)] == [[3.0, 2.0], [False, True]]
    assert stops.take(torch.tensor([1])).times.tolist() == stops.times[1:].tolist()


def test_a_stepper_ends_its_steps_at_breakpoints() -> None:
    u = interpolate(PULSES, VOLTS, "step")
    stepper = Stepper(lambda t, y: u(t) - y, tensor(0.0), (0.0, 2.5), **TIGHT)
    times = [float(step.t) for step in stepper]
    assert {1.0, 1.5, 2.0} <= set(times)
    assert stepper.y.item() == pytest.approx(charged(2.5), abs=1e-10)


def test_the_torchdiffeq_interface_finds_breakpoints() -> None:
    u = interpolate(PULSES, VOLTS, "step")
    for call in (odeint, partial(odeint_adjoint, adjoint_params=())):
        ys = call(lambda t, y: u(t) - y, tensor(0.0), tensor(0.0, 2.5), rtol=1e-10, atol=1e-10)
        assert ys[-1].item() == pytest.approx(charged(2.5), abs=1e-10)


def test_rows_with_jumps_need_a_one_step_method() -> None:
    u = interpolate(PULSES, VOLTS, "step")
    with pytest.raises(ValueError, match="begins anew at a jump.*Wanted a one-step method, or per_sample=False"):
        solve(
            lambda t, y: u(t)[:, None] - y, torch.zeros(2, 1).double(), (0.0, 2.5), per_sample=True,
            method="explicit_adams", step_size=0.1,
        )  # fmt: skip


# ------------------------------------------------------------------------------------------------------------ gradients


DRIVEN = tensor(0.0, 0.4, 1.0, 1.7)
DRIVES = tensor([0.3, -0.8], [1.1, 0.2], [-0.6, 0.9], [0.4, -1.2])
FINE: dict[str, Any] = {"rtol": 1e-7, "atol": 1e-9}


def driven(values: Tensor, kind: Any, per_sample: bool, hold: str = "closure", **how: Any) -> Tensor:
    """Return a loss of the final state of two driven rows."""
    u = interpolate(DRIVEN, torch.tanh(values), kind)  # so that its coefficients are not a leaf

    def f(t: Tensor, y: Tensor, u: Interpolation = u) -> Tensor:
        drive = u(t) if kind == "step" else u(t) + u.derivative(t)
        return drive.expand_as(y) - y**3

    y0 = tensor([0.5, -0.5], [1.0, 0.2])
    knots = DRIVEN if kind == "cubic" else None  # a spline has no stops there, but the differences need accuracy
    args = (u,) if hold == "args" else ()
    sol = solve(f, y0, (0.0, 2.0), args=args, per_sample=per_sample, step_t=knots, **FINE, **how)
    return (sol.y1 * tensor([1.0, 2.0], [-0.5, 0.3])).sum()


@cache
def differences(kind: Any) -> Tensor:
    """Return the gradient of that loss by central differences."""
    found = []
    for place in range(DRIVES.numel()):
        shift = torch.zeros_like(DRIVES)
        shift.view(-1)[place] = 1e-4
        found.append((driven(DRIVES + shift, kind, False) - driven(DRIVES - shift, kind, False)) / 2e-4)
    return torch.stack(found).reshape(DRIVES.shape)


@KINDS
@GRADIENTS
@pytest.mark.parametrize(("hold", "per_sample"), [("closure", False), ("args", False), ("closure", True)])
def test_gradients_reach_the_values(gradient: Any, kind: Any, hold: str, per_sample: bool) -> None:
    leaf = DRIVES.clone().requires_grad_()
    (found,) = torch.autograd.grad(driven(leaf, kind, per_sample, hold, gradient=gradient), leaf)
    assert relative_error(found, differences(kind)) < 3e-5


@pytest.mark.parametrize("gradient", ["replay", "direct", "adjoint"])
def test_a_controlled_differential_equation_trains(gradient: str) -> None:
    """dz = g(z) dx for two series, each with its own times, against a solve of each piece."""
    times = torch.stack((tensor(0.0, 0.3, 1.0), tensor(0.0, 0.6, 1.0)))
    values = torch.randn(2, 3, 2, dtype=torch.float64)
    g = nn.Sequential(nn.Linear(3, 6), nn.Tanh()).double()
    x = interpolate(times, values)

    def f(t: Tensor, z: Tensor) -> Tensor:
        return (g(z).view(-1, 3, 2) @ x.derivative(t)[..., None])[..., 0]

    z0 = torch.zeros(2, 3, dtype=torch.float64)
    sol = solve(f, z0, (0.0, 1.0), per_sample=True, gradient=gradient, rtol=1e-9, atol=1e-11)
    found = torch.autograd.grad(sol.y1.square().sum(), list(g.parameters()))
    ends = []
    for row in range(2):
        z = z0[row]
        for piece in range(2):
            slope = (values[row, piece + 1] - values[row, piece]) / (times[row, piece + 1] - times[row, piece])
            span = (float(times[row, piece]), float(times[row, piece + 1]))
            z = solve(lambda t, z, s=slope: g(z).view(3, 2) @ s, z, span, rtol=1e-11, atol=1e-13, gradient="direct").y1
        ends.append(z)
    torch.testing.assert_close(sol.y1, torch.stack(ends), rtol=1e-8, atol=1e-9)
    wanted = torch.autograd.grad(torch.stack(ends).square().sum(), list(g.parameters()))
    for a, b in zip(found, wanted, strict=True):
        assert relative_error(a, b) < 1e-6


# --------------------------------------------------------------------------------------------------------------- errors


@pytest.mark.parametrize(
    ("times", "values", "options", "kind", "words"),
    [
        (
            [0.0, 1.0, 1.0],
            torch.zeros(3),
            {},
            ValueError,
            "times goes from 1.0 to 1.0 at index 1; wanted strictly increasing times",
        ),
        (tensor([0.0, 1.0], [3.0, 2.0]), torch.zeros(2, 2), {}, ValueError, "from 3.0 to 2.0 at index 0 of row 1"),
        ([0.0, math.nan], torch.zeros(2), {}, ValueError, "times holds nan; wanted finite times"),
        ([0.0], torch.zeros(1), {}, ValueError, "times has 1 entries; wanted at least two"),
        ([0, 1], torch.zeros(3), {}, ValueError, r"values has shape \[3\] for times \[2\]; wanted \[2, ...\]"),
        ([0, 1], torch.zeros(3, 2), {}, ValueError, "rows=True if each row has its own values"),
        ([0, 1], torch.zeros(2, 3), {"rows": True}, ValueError, r"wanted \[rows, 2, ...\]"),
        (torch.zeros(3, 2), torch.zeros(2, 2), {}, ValueError, r"wanted \[3, 2, ...\]"),
        (torch.zeros(3, 2, 1), torch.zeros(2), {}, ValueError, r"times has shape \[3, 2, 1\]; wanted \[T\], or"),
        ([0, 1, 2], tensor(0.0, math.nan, math.nan), {}, ValueError, "not finite at index 1, one of 2 such places"),
        ([0, 1], tensor([[0.0], [1.0]], [[1.0], [math.inf]]), {"rows": True}, ValueError, "at index 1 of row 1"),
        ([0, 1], torch.zeros(2, dtype=torch.int64), {}, TypeError, "values has dtype torch.int64"),
        ([0, 1], [0.0, 1.0], {}, TypeError, "values is a list; wanted a tensor"),
        (torch.arange(2), torch.zeros(2), {}, TypeError, "times has dtype torch.int64; wanted floating times"),
        (
            torch.arange(2.0, requires_grad=True),
            torch.zeros(2),
            {},
            ValueError,
            "no gradient flows to the times of an interpolation",
        ),
        ([0, 1], torch.zeros(2), {"kind": "cubik"}, ValueError, "kind='cubik' is unknown; did you mean 'cubic'"),
    ],
)
def test_bad_arguments_are_refused_with_a_sentence(
    times: Any, values: Any, options: dict, kind: type, words: str
) -> None:
    with pytest.raises(kind, match=words):
        interpolate(times, values, **options)


def test_bad_evaluations_are_refused() -> None:
    with pytest.raises(ValueError, match="kind 'step' has no derivative"):
        interpolate([0.0, 1.0], torch.zeros(2), "step").derivative(0.5)
    with pytest.raises(
        ValueError,
        match=r"an interpolation of 2 rows was evaluated at t of shape \[3\].*pass the interpolation in args",
    ):
        interpolate([0.0, 1.0], torch.zeros(2, 2), rows=True)(torch.zeros(3))


def test_evaluations_on_another_thread_are_not_recorded() -> None:
    """Two solves at once do not end their steps at each other's times."""
    u = interpolate(PULSES, VOLTS, "step")
    other = interpolate([0.11, 0.22, 0.33], tensor(1.0, 2.0, 3.0), "step")
    stop = threading.Event()

    def evaluate() -> None:
        while not stop.is_set():
            other(0.2)

    thread = threading.Thread(target=evaluate)
    thread.start()
    try:
        ends = ends_of(lambda t, y: u(t) - y)
    finally:
        stop.set()
        thread.join()
    assert ends.isdisjoint({0.11, 0.22, 0.33})
    assert {1.0, 1.5, 2.0} <= ends
