"""The grid engine takes the steps of solve, in operations that compile, transform and never wait for the device."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import neuralode
from neuralode import Given, solve
from neuralode.core.field import Field
from neuralode.core.problem import make_problem
from neuralode.core.record import StepEdges
from neuralode.engines.grid import (
    GridStep,
    check_grid_method,
    equal_steps,
    integrate_grid,
    step_through,
    steps_between,
    take_step,
)
from neuralode.methods.runge_kutta.tableaus.carpenter_kennedy54 import CARPENTER_KENNEDY54
from neuralode.methods.runge_kutta.tableaus.vern6 import VERN6

DOUBLE = torch.float64
METHODS: dict[str, Any] = dict(neuralode.methods())
EXPLICIT = [
    name for name, method in METHODS.items() if method.memoryless and not (method.implicit or method.partitioned)
]
TIMES = (0.0, 0.3, 0.4, 1.1)
ROW_TIMES = torch.tensor([[0.0, 0.3, 0.4, 1.1], [0.5, 0.6, 1.0, 1.2], [0.2, 0.2, 0.2, 0.2]], dtype=DOUBLE)


class Swing(nn.Module):
    """A nonlinear field that depends on time; rows are independent."""

    def __init__(self, dtype: torch.dtype = DOUBLE) -> None:
        super().__init__()
        self.matrix = nn.Parameter(torch.tensor([[-0.3, 1.0], [-1.2, 0.1]], dtype=dtype))

    def forward(self, t: Tensor, y: Tensor) -> Tensor:
        return torch.tanh(y @ self.matrix) + torch.sin(t).unsqueeze(-1)


def initial(dtype: torch.dtype = DOUBLE) -> Tensor:
    return torch.randn(3, 2, dtype=dtype, generator=torch.Generator().manual_seed(0))


def test_the_supported_methods_include_the_low_storage_ones() -> None:
    assert {"euler", "rk4", "dopri5", "vern9", "carpenter_kennedy54"} <= set(EXPLICIT)


# --- the steps of solve


def value_and_gradients(run: Callable[[Swing, Tensor], Tensor]) -> list[Tensor]:
    field, y = Swing(), initial().requires_grad_()
    y1 = run(field, y)
    weights = torch.arange(1.0, 1 + y1.numel(), dtype=DOUBLE).reshape(y1.shape)
    return [y1.detach(), *torch.autograd.grad((weights * y1).sum(), [y, field.matrix])]


def assert_same(found: list[Tensor], wanted: list[Tensor]) -> None:
    for a, b in zip(found, wanted, strict=True):
        assert float(b.abs().max()) > 0
        torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("back", [False, True])
@pytest.mark.parametrize("name", EXPLICIT)
def test_steps_on_a_shared_clock_are_those_of_solve(name: str, back: bool) -> None:
    # as step_size=0.25 has it: the last step is shorter
    times = (1.1, 0.85, 0.6, 0.35, 0.1, 0.0) if back else (0.0, 0.25, 0.5, 0.75, 1.0, 1.1)
    adaptive = METHODS[name].adaptive
    how: dict[str, Any] = {"controller": Given(torch.tensor(times, dtype=DOUBLE))} if adaptive else {"step_size": 0.25}
    found = value_and_gradients(lambda f, y: integrate_grid(f, y, steps_between(times), method=METHODS[name]))
    wanted = value_and_gradients(lambda f, y: solve(f, y, (times[0], times[-1]), method=name, **how).y1)
    assert_same(found, wanted)


@pytest.mark.parametrize("back", [False, True])
@pytest.mark.parametrize("name", EXPLICIT)
def test_steps_on_a_clock_for_each_row_are_those_of_solve(name: str, back: bool) -> None:
    times = ROW_TIMES.flip(-1) if back else ROW_TIMES
    ends = times[:, [0, -1]]
    found = value_and_gradients(lambda f, y: integrate_grid(f, y, steps_between(times), method=METHODS[name]))
    wanted = value_and_gradients(
        lambda f, y: solve(f, y, ends, method=name, controller=Given(times), per_sample=True).y1
    )
    assert_same(found, wanted)
    assert torch.equal(found[0][2], initial()[2])  # its clock stands still


@pytest.mark.parametrize("name", [name for name in EXPLICIT if not METHODS[name].adaptive])
def test_a_step_size_on_a_clock_for_each_row_is_that_of_solve(name: str) -> None:
    t0 = torch.tensor([0.0, 0.5, -1.0], dtype=DOUBLE)
    steps = equal_steps(t0, t0 + 1, 4)
    found = value_and_gradients(lambda f, y: integrate_grid(f, y, steps, method=METHODS[name]))
    ends = torch.stack((t0, t0 + 1), 1)
    wanted = value_and_gradients(lambda f, y: solve(f, y, ends, method=name, step_size=0.25, per_sample=True).y1)
    assert_same(found, wanted)


@pytest.mark.parametrize("name", ["euler", "rk4", "dopri5", "carpenter_kennedy54"])
def test_floats_0d_tensors_and_equal_rows_are_the_same_times(name: str) -> None:
    shared = torch.tensor(TIMES, dtype=DOUBLE)
    found = [
        value_and_gradients(lambda f, y, times=times: integrate_grid(f, y, steps_between(times), method=METHODS[name]))
        for times in (TIMES, shared, shared.expand(3, -1))
    ]
    assert_same(found[1], found[0])
    assert_same(found[2], found[0])


@pytest.mark.parametrize("times", [torch.tensor(TIMES, dtype=DOUBLE), ROW_TIMES], ids=["shared", "rows"])
@pytest.mark.parametrize("name", ["euler", "rk4", "tsit5", "carpenter_kennedy54"])
def test_gradients_flow_to_the_times(name: str, times: Tensor) -> None:
    def end(times: Tensor) -> Tensor:
        return integrate_grid(Swing(), initial(), steps_between(times), method=METHODS[name])

    assert torch.autograd.gradcheck(end, (times.clone().requires_grad_(),))


def test_equal_steps_reach_the_end_in_either_direction() -> None:
    def decay(t: Tensor, y: Tensor) -> Tensor:
        return -y

    y1 = integrate_grid(decay, initial(), equal_steps(0.0, 2.0, 50), method=METHODS["rk4"])
    torch.testing.assert_close(y1, initial() * torch.exp(torch.tensor(-2.0, dtype=DOUBLE)), rtol=1e-6, atol=0)
    back = integrate_grid(decay, y1, equal_steps(2.0, 0.0, 50), method=METHODS["rk4"])
    torch.testing.assert_close(back, initial(), rtol=1e-5, atol=0)


def test_no_step_changes_nothing() -> None:
    y = initial()
    assert integrate_grid(Swing(), y, [], method=METHODS["rk4"]) is y


@pytest.mark.parametrize("name", EXPLICIT)
def test_a_complex_state_receives_real_times(name: str) -> None:
    def turn(t: Tensor, y: Tensor) -> Tensor:
        assert t.dtype == torch.float32
        return 1j * y

    y = torch.ones(2, 1, dtype=torch.complex64)
    y1 = integrate_grid(turn, y, equal_steps(0.0, 0.5, 400), method=METHODS[name])
    torch.testing.assert_close(y1, torch.exp(0.5j * y), rtol=0, atol=1e-3)


# --- compiled


SETTINGS: dict[str, Any] = {
    "floats": TIMES[:3],
    "0-d tensors": torch.tensor(TIMES[:3]),
    "a clock for each row": ROW_TIMES[:, :3],
    "a clock for each row, float32": ROW_TIMES[:, :3].float(),
}


@pytest.mark.filterwarnings("ignore:Dynamo detected a call to a `functools.lru_cache`")
@pytest.mark.parametrize("setting", SETTINGS)
@pytest.mark.parametrize("name", ["euler", "rk4", "dopri5", "carpenter_kennedy54"])
def test_compiled_whole_it_equals_eager(name: str, setting: str) -> None:
    torch.compiler.reset()
    field, times = Swing(torch.float32), SETTINGS[setting]

    def run(y: Tensor) -> Tensor:
        return integrate_grid(field, y, steps_between(times), method=METHODS[name])

    compiled = torch.compile(run, fullgraph=True, backend="aot_eager")
    found, wanted = [], []
    for function, into in ((compiled, found), (run, wanted)):
        y = initial(torch.float32).requires_grad_()
        y1 = function(y)
        into += [y1.detach(), *torch.autograd.grad(y1.square().sum(), [y, field.matrix])]
    for a, b in zip(found, wanted, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-6, atol=1e-6)
    assert torch.equal(found[0], wanted[0])


@pytest.mark.filterwarnings("ignore:Dynamo detected a call to a `functools.lru_cache`")
@pytest.mark.parametrize(
    "make",
    [
        lambda: neuralode.ExplicitRungeKutta(replace(VERN6, name="fresh")),
        lambda: type(METHODS["carpenter_kennedy54"])(replace(CARPENTER_KENNEDY54, name="fresh")),
    ],
    ids=["explicit", "low storage"],
)
def test_a_method_that_has_not_been_used_can_be_compiled(make: Callable[[], Any]) -> None:
    torch.compiler.reset()
    method, field = make(), Swing(torch.float32)
    compiled = torch.compile(
        lambda y: integrate_grid(field, y, steps_between(TIMES), method=method), fullgraph=True, backend="eager"
    )
    with torch.no_grad():
        found = compiled(initial(torch.float32))
        wanted = integrate_grid(field, initial(torch.float32), steps_between(TIMES), method=make())
    assert torch.equal(found, wanted)


# --- never waiting for the device: tensors on the meta device have no values to wait for


def meta_steps(kind: str) -> list[GridStep]:
    if kind == "floats":
        return steps_between(TIMES)
    return steps_between((torch.tensor(TIMES, dtype=DOUBLE) if kind == "0-d tensors" else ROW_TIMES).to("meta"))


@pytest.mark.parametrize("kind", ["floats", "0-d tensors", "rows"])
@pytest.mark.parametrize("name", EXPLICIT)
def test_no_step_reads_a_value(name: str, kind: str) -> None:
    field = Swing().to("meta")
    y = initial().to("meta").requires_grad_()
    accept = torch.ones(3, dtype=torch.bool, device="meta")
    steps = [step._replace(accept=accept, thetas=(0.25, 1.0), dense=True) for step in meta_steps(kind)]
    *_, last = step_through(field, y, steps, method=METHODS[name])
    assert last.states is not None
    assert last.states.shape == (2, 3, 2)
    assert last.coefficients is not None
    assert last.coefficients.shape[1:] == (3, 2)
    (last.y1.sum() + last.coefficients.sum()).backward()
    assert y.grad is not None


def test_a_step_that_reads_a_value_would_be_seen() -> None:
    steps = meta_steps("0-d tensors")
    with pytest.raises(RuntimeError, match="meta tensors"):
        list(step_through(Swing().to("meta"), initial().to("meta"), steps, method=METHODS["explicit_adams"]))


# --- transforms


@pytest.mark.parametrize("times", [TIMES, ROW_TIMES], ids=["shared", "rows"])
@pytest.mark.parametrize("name", ["rk4", "dopri5"])
def test_transforms_of_torch_func_go_through(name: str, times: Any) -> None:
    field, y = Swing(), initial()

    def run(y: Tensor) -> Tensor:
        return integrate_grid(field, y, steps_between(times), method=METHODS[name])

    direction = torch.ones_like(y)
    value, tangent, *_ = torch.func.jvp(run, (y,), (direction,))
    assert torch.equal(value, run(y))
    torch.testing.assert_close(tangent, torch.einsum("abcd,cd->ab", torch.func.jacrev(run)(y), direction))
    many = torch.stack((y, 2 * y))
    torch.testing.assert_close(torch.func.vmap(run)(many), torch.stack([run(x) for x in many]))


# --- outputs, masks, discontinuities, method state


@pytest.mark.parametrize("name", ["euler", "midpoint", "rk4", "dopri5", "vern7", "carpenter_kennedy54"])
def test_states_within_steps_are_the_outputs_of_solve(name: str) -> None:
    ts = (0.0, 0.1, 0.3, 0.35, 0.9, 1.1)
    steps = [
        step._replace(thetas=tuple((t - step.t) / step.h for t in ts if step.t < t <= step.t + step.h))
        for step in steps_between(TIMES)
    ]
    results = list(step_through(Swing(), initial(), steps, method=METHODS[name]))
    found = torch.cat([initial()[None], *(result.states for result in results if result.states is not None)])
    controller = Given(torch.tensor(TIMES, dtype=DOUBLE))
    wanted = solve(Swing(), initial(), torch.tensor(ts, dtype=DOUBLE), method=name, controller=controller).ys
    torch.testing.assert_close(found, wanted, rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("times", [TIMES, ROW_TIMES], ids=["shared", "rows"])
@pytest.mark.parametrize("name", ["euler", "rk4", "dopri5", "vern7", "carpenter_kennedy54"])
def test_coefficients_give_the_states_within_the_step(name: str, times: Any) -> None:
    step = steps_between(times)[0]._replace(thetas=(0.0, 0.3, 1.0), dense=True)
    result = take_step(Swing(), initial(), step, method=METHODS[name])
    assert result.states is not None
    assert result.coefficients is not None
    for theta, state in zip(step.thetas, result.states, strict=True):
        total = sum(c * theta**j for j, c in enumerate(result.coefficients))
        torch.testing.assert_close(total, state, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(result.coefficients[0], initial())
    assert torch.equal(result.states[0], initial())
    torch.testing.assert_close(result.states[-1], result.y1)


def test_nothing_within_a_step_is_computed_unless_it_is_requested() -> None:
    result = take_step(Swing(), initial(), GridStep(0.0, 0.1), method=METHODS["dopri5"])
    assert result.states is None
    assert result.coefficients is None
    assert result.method_state is None


def test_rows_that_do_not_accept_a_step_keep_their_state_and_its_gradient() -> None:
    y = initial().requires_grad_()
    accept = torch.tensor([True, False, True])
    step = GridStep(0.0, 0.1, accept=accept)
    result = take_step(Swing(), y, step, method=METHODS["rk4"])
    plain = take_step(Swing(), y, GridStep(0.0, 0.1), method=METHODS["rk4"])
    assert torch.equal(result.y1[1], y[1])
    assert torch.equal(result.y1[accept], plain.y1[accept])
    [grad] = torch.autograd.grad(result.y1.sum(), y)
    assert torch.equal(grad[1], torch.ones(2, dtype=DOUBLE))
    assert not torch.equal(grad[0], grad[1])


def stepping_up(t: Tensor, y: Tensor) -> Tensor:
    return torch.where(t < 0.5, 1.0, 3.0) * torch.ones_like(y)


def test_edges_keep_f_on_its_side_of_a_discontinuity() -> None:
    field: Field = make_problem(stepping_up, initial(), (0.0, 1.0)).field
    steps = [
        GridStep(t0, t1 - t0, edges=StepEdges(t1, t0 == 0.5, t1 == 0.5))
        for t0, t1 in pairwise((0.0, 0.25, 0.5, 0.75, 1.0))
    ]
    found = integrate_grid(field, initial(), steps, method=METHODS["rk4"])
    torch.testing.assert_close(found, initial() + 2.0, rtol=1e-14, atol=1e-14)
    wanted = solve(stepping_up, initial(), (0.0, 1.0), method="rk4", step_size=0.25, jump_t=[0.5]).y1
    assert torch.equal(found, wanted)
    careless = integrate_grid(field, initial(), [step._replace(edges=None) for step in steps], method=METHODS["rk4"])
    assert float((careless - found).abs().max()) > 0.05


def test_edges_need_a_field() -> None:
    step = GridStep(0.0, 0.5, edges=StepEdges(0.5, False, True))
    with pytest.raises(TypeError, match="A step with edges has a function as f; wanted a Field"):
        take_step(stepping_up, initial(), step, method=METHODS["rk4"])


@pytest.mark.parametrize("name", ["explicit_adams", "implicit_adams"])
def test_method_state_is_handed_from_step_to_step(name: str) -> None:
    steps = equal_steps(0.0, 2.0, 8)
    *_, last = step_through(Swing(), initial(), steps, method=METHODS[name])
    wanted = solve(Swing(), initial(), (0.0, 2.0), method=name, step_size=0.25).y1
    torch.testing.assert_close(last.y1, wanted, rtol=1e-13, atol=1e-13)
    *_, half = step_through(Swing(), initial(), steps[:5], method=METHODS[name])
    *_, resumed = step_through(Swing(), half.y1, steps[5:], method=METHODS[name], method_state=half.method_state)
    assert torch.equal(resumed.y1, last.y1)


def test_a_restart_drops_the_method_state() -> None:
    steps = equal_steps(0.0, 2.0, 8)
    method = METHODS["explicit_adams"]
    *_, half = step_through(Swing(), initial(), [*steps[:4], steps[4]._replace(restart=True)], method=method)
    assert half.method_state is None
    *_, anew = step_through(Swing(), half.y1, steps[5:], method=method)
    marked = [*steps[:4], steps[4]._replace(restart=True), *steps[5:]]
    *_, last = step_through(Swing(), initial(), marked, method=method)
    assert torch.equal(anew.y1, last.y1)


def test_an_implicit_method_can_be_stepped_through() -> None:
    field = make_problem(Swing(), initial(), (0.0, 1.0)).field
    *_, last = step_through(field, initial(), equal_steps(0.0, 1.0, 4), method=METHODS["sdirk2"], derivatives=2)
    wanted = solve(Swing(), initial(), (0.0, 1.0), method="sdirk2", step_size=0.25).y1
    torch.testing.assert_close(last.y1, wanted, rtol=1e-8, atol=1e-10)


# --- refusals


@pytest.mark.parametrize("name", sorted(set(METHODS) - set(EXPLICIT)))
def test_a_method_that_is_no_formula_of_one_step_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match=f"method '{name}' is not an explicit one-step method; wanted one such as"):
        integrate_grid(Swing(), initial(), steps_between(TIMES), method=METHODS[name])


def test_a_refusal_names_the_alternative_of_the_caller() -> None:
    with pytest.raises(ValueError, match=r"wanted one such as 'midpoint', or steps=None\.$"):
        check_grid_method(METHODS["gl4"], ", or steps=None")
