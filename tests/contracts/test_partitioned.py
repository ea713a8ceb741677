"""What every registered method for pairs (q, p) must satisfy: the contracts of the others, on states that are pairs."""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from fields import PARTITIONED, Counting, relative_error, slope
from scipy.integrate import solve_ivp
from torch import Tensor, nn

import neuralode
from neuralode import Adjoint, Direct, Event, Given, Replay, Separable, Status, solve

EXACT = 1e-10
WINDOW = (1e-12, 1e-3)

every_method = pytest.mark.parametrize("method", PARTITIONED)
every_clock = pytest.mark.parametrize("per_sample", [False, True], ids=["shared", "per sample"])
every_direction = pytest.mark.parametrize("direction", [1, -1], ids=["forward", "backward"])
every_form = pytest.mark.parametrize("form", ["separable", "plain"])


def tensor(*numbers: Any) -> Tensor:
    return torch.tensor(numbers, dtype=torch.float64)


def plain(f: Separable) -> Callable[..., Any]:
    """The same f as one function of the pair, which methods have to take apart."""
    return lambda t, y, *args: (f.velocity(t, y[1], *args), f.force(t, y[0], *args))


# ------------------------------------------------------------------------------------------------------------- accuracy


def turned(t: float) -> np.ndarray:
    """Where q' = a(t) p, p' = -a(t) q with a = 1 + sin(2 t) / 2 leads from (1, 0)."""
    angle = t + (1 - math.cos(2 * t)) / 4
    return np.array([math.cos(angle), -math.sin(angle)])


def speed(t: Tensor) -> Tensor:
    return (1 + torch.sin(2 * t) / 2)[..., None]


PENDULUM = Separable(lambda t, p: p, lambda t, q: -torch.sin(q))
TURNING = Separable(lambda t, p: speed(t) * p, lambda t, q: -speed(t) * q)
# time in both halves, another function in each, and nothing linear
DRIVEN = Separable(
    lambda t, p: torch.sin(p) * (1 + 0.5 * torch.cos(3 * t))[..., None] + torch.sin(t)[..., None],
    lambda t, q: -torch.sin(q) * (1 + 0.3 * torch.sin(2 * t))[..., None] + 0.2 * torch.cos(t)[..., None],
)
PROBLEMS = {"pendulum": PENDULUM, "turning": TURNING, "driven": DRIVEN}


@functools.cache
def exact(name: str, t: float) -> np.ndarray:
    """(q, p) at t, from (1, 0) at 0."""
    if name == "turning":
        return turned(t)
    f = PROBLEMS[name]

    def field(t: float, y: np.ndarray) -> np.ndarray:
        at, (q, p) = torch.tensor(t, dtype=torch.float64), torch.as_tensor(y).split(1)
        return torch.cat((f.velocity(at, p), f.force(at, q))).numpy()

    if t == 0:
        return np.array([1.0, 0.0])
    found = solve_ivp(field, (0, t), [1.0, 0.0], method="DOP853", rtol=1e-13, atol=1e-13)
    return found.y[:, -1]


@pytest.mark.parametrize("name", PROBLEMS)
@every_method
def test_a_method_converges_at_its_order(method: str, name: str) -> None:
    order = PARTITIONED[method].order
    sizes, errors = [], []
    for steps in [int(16 * 1.5**n) for n in range(6 if order > 1 else 8)]:
        sol = solve(PROBLEMS[name], (tensor(1.0), tensor(0.0)), (0.0, 1.5), method=method, step_size=1.5 / steps)
        assert int(sol.stats.accepted) == steps
        error = float(np.abs(torch.cat(sol.y1).numpy() - exact(name, 1.5)).max())
        if error < WINDOW[0]:
            break
        sizes.append(1 / steps)
        errors.append(error)
    assert len(errors) >= 4
    assert slope(sizes[-5:], errors[-5:]) >= order - 0.2


@every_direction
@pytest.mark.parametrize("name", PROBLEMS)
@every_method
def test_dense_output_has_the_order_that_the_method_declares(method: str, name: str, direction: int) -> None:
    order = PARTITIONED[method].interpolant_order
    assert order >= PARTITIONED[method].order - 1
    start, theta = 0.3, tensor(0.15, 0.4, 0.65, 0.9)
    q, p = torch.as_tensor(exact(name, start)).split(1)
    sizes, errors = [], []
    for h in 0.1 * 0.7 ** np.arange(6):
        step = direction * float(h)
        grid = tensor(start, start + step)
        sol = solve(PROBLEMS[name], (q, p), grid, method=method, controller=Given(grid), dense=True)
        read = start + theta * step
        wanted = np.stack([exact(name, float(t)) for t in read])
        sizes.append(float(h))
        errors.append(float(np.abs(torch.cat(sol(read), 1).numpy() - wanted).max()))
    assert slope(sizes[-5:], errors[-5:]) >= order + 0.8


@every_form
@pytest.mark.parametrize("method", ["leapfrog", "ruth3"])  # with the last slope known, and not
def test_dense_output_meets_the_steps_at_both_ends(method: str, form: str) -> None:
    f = DRIVEN if form == "separable" else plain(DRIVEN)
    grid = tensor(0.0, 0.1, 0.25, 0.3)
    options: dict[str, Any] = {"method": method, "controller": Given(grid), "dense": True}
    sol = solve(f, (tensor(1.0), tensor(0.0)), (0.0, 0.3), save="steps", **options)
    read = solve(f, (tensor(1.0), tensor(0.0)), grid, **options)
    for found, step, output in zip(sol(grid), sol.ys, read.ys, strict=True):
        torch.testing.assert_close(found, step, rtol=1e-12, atol=1e-12)
        torch.testing.assert_close(output, step, rtol=1e-12, atol=1e-12)


@every_form
@every_method
def test_inner_outputs_are_the_dense_output_and_change_no_steps(method: str, form: str) -> None:
    f = DRIVEN if form == "separable" else plain(DRIVEN)
    times = tensor(0.0, 0.13, 0.2, 0.71, 1.0)
    options: dict[str, Any] = {"method": method, "step_size": 1 / 7}
    many = solve(f, (tensor(1.0), tensor(0.0)), times, dense=True, **options)
    few = solve(f, (tensor(1.0), tensor(0.0)), (0.0, 1.0), **options)
    for read, output, end in zip(many(times), many.ys, few.y1, strict=True):
        torch.testing.assert_close(read, output, rtol=1e-13, atol=1e-13)
        assert torch.equal(output[-1], end)


# ------------------------------------------------------------------------------------------------------------ structure


def two_angles(t: Tensor, q: Tensor) -> Tensor:
    """A force of a potential that depends on time: -∇(-cos a - cos b + cos(a - b) (1 + sin t) / 2)."""
    a, b = q.unbind(-1)
    pull = (1 + torch.sin(t)) / 2 * torch.sin(a - b)
    return torch.stack((-torch.sin(a) + pull, -torch.sin(b) - pull), -1)


SYMPLECTIC = Separable(lambda t, p: torch.sinh(p) * (2 + torch.cos(t)) / 3, two_angles)


def missed(method: str) -> float:
    """How far Mᵀ J M is from J, with M the Jacobian of one step."""

    def step(y: Tensor) -> Tensor:
        grid = tensor(0.4, 0.7)
        sol = solve(SYMPLECTIC, (y[:2], y[2:]), grid, method=method, controller=Given(grid), gradient="direct")
        return torch.cat(sol.y1)

    jacobian: Any = torch.autograd.functional.jacobian(step, tensor(0.7, -0.4, 0.5, 1.1))
    one = torch.eye(2, dtype=torch.float64)
    form = torch.cat((torch.cat((0 * one, one), 1), torch.cat((-one, 0 * one), 1)))
    return float((jacobian.mT @ form @ jacobian - form).abs().max())


@every_method
def test_a_step_is_symplectic(method: str) -> None:
    assert missed(method) <= 1e-12
    assert missed("rk4") > 1e-6  # the measure finds what is not


@every_form
@every_clock
@pytest.mark.parametrize("method", [name for name, method in PARTITIONED.items() if name.endswith(("frog", "4"))])
def test_a_symmetric_method_goes_back_where_it_came_from(method: str, per_sample: bool, form: str) -> None:
    f = DRIVEN if form == "separable" else plain(DRIVEN)
    y0 = (tensor([1.0], [0.3]), tensor([0.0], [-0.7]))
    options: dict[str, Any] = {"method": method, "step_size": 0.13, "per_sample": per_sample}
    there = solve(f, y0, (0.0, 3.9), **options)
    back = solve(f, there.y1, (3.9, 0.0), **options)
    for found, wanted, away in zip(back.y1, y0, there.y1, strict=True):
        torch.testing.assert_close(found, wanted, rtol=1e-12, atol=1e-12)
        assert (away - wanted).abs().max() > 0.1


# ---------------------------------------------------------------------------------------------------------------- rows


@every_direction
@every_method
def test_rows_with_times_of_their_own_are_what_they_are_alone(method: str, direction: int) -> None:
    t = direction * tensor([0.0, 0.2, 0.5], [0.0, 0.9, 1.0], [0.0, 1.7, 3.0])
    q, p = tensor([0.5], [-0.2], [1.0]), tensor([0.0], [0.4], [-0.3])
    together = solve(DRIVEN, (q, p), t, method=method, step_size=0.21, per_sample=True)
    assert together.status.tolist() == [Status.SUCCESS] * 3
    for i in range(3):
        alone = solve(DRIVEN, (q[i : i + 1], p[i : i + 1]), t[i], method=method, step_size=0.21)
        assert together.stats.evaluations[i] == alone.stats.evaluations + _reads(alone, together, i)
        for found, wanted in zip(together.ys, alone.ys, strict=True):
            torch.testing.assert_close(found[:, i], wanted[:, 0], rtol=1e-12, atol=1e-13)


def _reads(alone: Any, together: Any, i: int) -> int:
    """Per sample every step that is kept is interpolated, on a shared clock only those that are read."""
    read = 1  # each has one inner output
    return 2 * (int(together.stats.accepted[i]) - read)


@every_clock
@every_method
def test_every_evaluation_is_counted(method: str, per_sample: bool) -> None:
    f = Counting(plain(DRIVEN))
    y0 = (tensor([1.0], [0.3]), tensor([0.0], [-0.7]))
    sol = solve(f, y0, (0.0, 1.0), method=method, step_size=0.1, per_sample=per_sample)
    assert sol.stats.calls == f.calls
    first_known = 1  # f(t0, y0) is the first slope
    per_step = PARTITIONED[method].evaluations_per_step
    repeated = PARTITIONED[method].first_same_as_last
    assert sol.stats.evaluations.tolist() == [10 * per_step + (first_known if repeated else 0)] * 2


@every_method
def test_of_a_separable_f_only_the_function_that_is_needed_is_asked(method: str) -> None:
    asked: list[str] = []

    def noting(name: str, function: Callable[..., Tensor]) -> Callable[..., Tensor]:
        return lambda t, x: (asked.append(name), function(t, x))[1]

    f = Separable(noting("velocity", DRIVEN.velocity), noting("force", DRIVEN.force))
    solve(f, (tensor(1.0), tensor(0.0)), (0.0, 1.0), method=method, step_size=0.05)
    drifts, kicks = (sum(half == n for half, _ in PARTITIONED[method].moves) for n in (0, 1))
    assert asked.count("velocity") == 1 + 20 * drifts
    kept = PARTITIONED[method].first_same_as_last
    assert asked.count("force") == (1 + 20 * (kicks - 1) if kept else 20 * kicks)


@every_form
@every_method
def test_any_pair_of_trees_is_stepped(method: str, form: str) -> None:
    """Halves of several leaves, of several dtypes, one of them complex; the same numbers as in a plain pair."""
    f = Separable(
        lambda t, p: [{"a": p["x"].to(torch.float32), "b": p["y"][..., None]}],
        lambda t, q: {"x": -q[0]["a"].to(torch.float64), "y": -q[0]["b"][..., 0]},
    )
    a, b = torch.tensor([[1.0], [0.5]]), torch.tensor([[[1.0 + 1j]], [[0.5]]], dtype=torch.complex128)
    x, y = tensor([0.0], [0.1]), torch.tensor([[0.2j], [0.0]], dtype=torch.complex128)
    state = [[{"a": a, "b": b}], {"x": x, "y": y}]
    sol = solve(
        f if form == "separable" else lambda t, s: [f.velocity(t, s[1]), f.force(t, s[0])],
        state, (0.0, 1.0), method=method, step_size=0.1,
    )  # fmt: skip
    [q], p = sol.y1
    assert [leaf.dtype for leaf in (q["a"], q["b"], p["x"], p["y"])] == [leaf.dtype for leaf in (a, b, x, y)]
    flat = solve(PENDULUM_WITHOUT_SINE, (b[..., 0], y), (0.0, 1.0), method=method, step_size=0.1)
    torch.testing.assert_close(q["b"][..., 0], flat.y1[0], rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(p["y"], flat.y1[1], rtol=1e-12, atol=1e-12)
    bound = 10 * 0.1 ** PARTITIONED[method].order + 1e-6
    assert abs(q["a"][0, 0] - math.cos(1.0)) < bound
    assert abs(q["b"][0, 0, 0] - ((1 + 1j) * math.cos(1.0) + 0.2j * math.sin(1.0))) < bound


PENDULUM_WITHOUT_SINE = Separable(lambda t, p: p, lambda t, q: -q)


@every_clock
def test_half_precision_adds_up_in_float32(per_sample: bool) -> None:
    seen = []

    def force(t: Tensor, q: Tensor) -> Tensor:
        seen.append(q.dtype)
        return -q

    y0 = (torch.ones(2, 1, dtype=torch.bfloat16), torch.zeros(2, 1, dtype=torch.bfloat16))
    f = Separable(lambda t, p: p, force)
    q, _ = solve(f, y0, (0.0, 1.0), method="leapfrog", step_size=0.01, per_sample=per_sample).y1
    assert q.dtype == torch.bfloat16 == seen[-1]
    assert abs(float(q[0, 0]) - math.cos(1.0)) < 0.02


# ---------------------------------------------------------------------------------------------------- jumps and events


JUMP = 0.9


def stepped(t: Tensor) -> Tensor:
    """1 before the jump, -2 behind it, and nothing to go by at it."""
    return torch.where(t == JUMP, torch.nan, torch.where(t < JUMP, 1.0, -2.0))[..., None]


@pytest.mark.parametrize(
    ("span", "per_sample", "form"),
    [((0.0, 2.0), True, "separable"), ((2.0, 0.0), False, "separable"), ((0.0, 2.0), False, "plain")],
    ids=str,
)
@every_method
def test_a_jump_goes_with_every_method(method: str, span: tuple, per_sample: bool, form: str) -> None:
    f = Separable(lambda t, p: stepped(t) * p, lambda t, q: -stepped(t) * q)
    f = f if form == "separable" else plain(f)
    angle = (1.0 * JUMP - 2.0 * (2.0 - JUMP)) * (1 if span[0] < span[1] else -1)
    errors = []
    for steps in (24, 48):
        y0 = (tensor([1.0], [2.0]), tensor([0.0], [0.0]))
        how: dict[str, Any] = {"method": method, "step_size": 2.0 / steps, "per_sample": per_sample}
        q, p = solve(f, y0, span, jump_t=[JUMP], **how).y1
        errors.append(max(abs(q[0, 0].item() - math.cos(angle)), abs(p[1, 0].item() + 2 * math.sin(angle))))
    assert errors[1] < errors[0] / 2 ** (PARTITIONED[method].order - 0.6), errors


@every_method
def test_rows_that_meet_a_jump_at_steps_of_their_own_are_what_they_are_alone(method: str) -> None:
    f = Separable(lambda t, p: stepped(t) * p, lambda t, q: -stepped(t) * q)
    t, q, p = tensor([0.0, 2.0], [0.6, 1.0], [1.0, 1.5]), tensor([1.0], [0.5], [2.0]), tensor([0.0], [0.3], [0.1])
    how: dict[str, Any] = {"method": method, "step_size": 0.07, "jump_t": [JUMP]}
    together = solve(f, (q, p), t, per_sample=True, **how)
    for i in range(3):
        alone = solve(f, (q[i : i + 1], p[i : i + 1]), t[i : i + 1], per_sample=True, **how)
        assert together.stats.evaluations[i] == alone.stats.evaluations
        for found, wanted in zip(together.y1, alone.y1, strict=True):
            torch.testing.assert_close(found[i], wanted[0], rtol=1e-13, atol=1e-13)


@pytest.mark.parametrize(("per_sample", "form"), [(False, "separable"), (True, "separable"), (True, "plain")])
@every_method
def test_events_go_with_every_method(method: str, form: str, per_sample: bool) -> None:
    """Of its own discrete map: on the zero, exactly differentiable, and every evaluation counted."""
    separable = Separable(lambda t, p, k: p, lambda t, q, k: -k * torch.sin(q))
    f = Counting(plain(separable)) if form == "plain" else separable

    def level(height: float) -> Callable[..., Tensor]:
        return lambda t, y, k: y[0][:, 0] - height if per_sample else y[0][0, 0] - height

    events = [Event(level(0.3)), Event(level(0.8), terminal=False)]
    y0 = (tensor([1.0], [0.9]), tensor([0.0], [0.2]))

    def of(k: Tensor, gradient: Any) -> tuple[Any, Tensor]:
        options: dict[str, Any] = {"method": method, "step_size": 0.2, "gradient": gradient, "per_sample": per_sample}
        sol = solve(f, y0, (0.0, 4.0), args=(k,), events=events, **options)
        return sol, sum(found.t.sum() + sum(leaf.pow(3).sum() for leaf in found.y) for found in sol.events)

    k = torch.tensor(1.2, dtype=torch.float64, requires_grad=True)
    sol, loss = of(k, "replay")
    if isinstance(f, Counting):
        assert sol.stats.calls == f.calls
    rows = 2 if per_sample else 1
    assert [len(found) for found in sol.events] == [rows, rows]
    for found, height in zip(sol.events, (0.3, 0.8), strict=True):
        assert abs(found.y[0].flatten()[0].item() - height) < 1e-14
    by_k = torch.autograd.grad(loss, k)[0].item()
    assert by_k == pytest.approx(torch.autograd.grad(of(k, "direct")[1], k)[0].item(), rel=1e-9)


# ----------------------------------------------------------------------------------------------------------- gradients

ROWS, FEATURES = 3, 2
REPLAYS = {"replay": Replay(), "third": Replay(every=3), "stage": Replay(memory="stage"),
           "third by stage": Replay(every=3, memory="stage")}  # fmt: skip
# what replay keeps does not depend on the coefficients: one goes through all ways
PAIRS = [(m, name) for m in PARTITIONED for name in REPLAYS if name == "replay" or m == "yoshida4"]
every_method_and_replay = pytest.mark.parametrize(
    ("method", "gradient"), [(m, REPLAYS[name]) for m, name in PAIRS], ids=[f"{m}-{name}" for m, name in PAIRS]
)


class Bent(nn.Module):
    """A small network that reads the time."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Linear(FEATURES, 3, dtype=torch.float64)
        self.outer = nn.Linear(3, FEATURES, dtype=torch.float64)

    def forward(self, t: Tensor, x: Tensor, theta: Tensor) -> Tensor:
        return self.outer(torch.tanh(self.inner(x) + t[..., None])) * theta


class World:
    """A solve that uses every kind of differentiable input, and those inputs by name."""

    def __init__(self, per_sample: bool = False, direction: int = 1, form: str = "separable") -> None:
        draw = torch.Generator().manual_seed(7)

        def leaf(*shape: int) -> Tensor:
            return torch.randn(*shape, generator=draw, dtype=torch.float64).requires_grad_()

        self.per_sample, self.form = per_sample, form
        torch.manual_seed(3)
        self.net = Bent()
        self.q, self.p, self.theta = leaf(ROWS, FEATURES), leaf(ROWS, FEATURES), leaf(FEATURES)
        self.closure, self.encoder = leaf(1), leaf(2, 2)
        times = direction * tensor(0.2, 0.55, 0.9, 1.1, 1.5)
        stretch = tensor([1.0], [1.3], [0.6])
        self.t = (times * stretch if per_sample else times).clone().requires_grad_()
        self.weights = torch.randn(2, 5, ROWS, FEATURES, generator=draw, dtype=torch.float64)

    def inputs(self) -> dict[str, Tensor]:
        named = {"q": self.q, "p": self.p, "args": self.theta, "closure": self.closure, "encoder": self.encoder}
        return named | {"times": self.t} | dict(self.net.named_parameters())

    def field(self) -> Callable[..., Any]:
        code = torch.tanh(self.encoder).sum(0)  # a tensor of a graph that was made before the solve

        def force(t: Tensor, q: Tensor, theta: Tensor) -> Tensor:
            return -q * theta + self.closure * torch.cos(3 * t)[..., None] * torch.sin(q) + code

        f = Separable(self.net, force)
        return f if self.form == "separable" else plain(f)

    def solve(self, **options: Any) -> neuralode.Solution:
        return solve(self.field(), (self.q, self.p), self.t, args=(self.theta,), per_sample=self.per_sample, **options)

    def loss(self, sol: neuralode.Solution) -> Tensor:
        return (torch.stack(sol.ys) * self.weights).sum()

    def gradients(self, loss: Tensor, create_graph: bool = False) -> dict[str, Tensor]:
        names, leaves = zip(*self.inputs().items(), strict=True)
        found = torch.autograd.grad(loss, leaves, create_graph=create_graph, allow_unused=True)
        none = [name for name, g in zip(names, found, strict=True) if g is None]
        assert not none, f"no gradient reaches {none}"
        return dict(zip(names, found, strict=True))


def worst(found: dict[str, Tensor], wanted: dict[str, Tensor]) -> float:
    return max(relative_error(found[name], wanted[name]) for name in wanted)


WAYS = [(False, 1, "separable"), (True, 1, "separable"), (False, -1, "plain"), (True, -1, "plain")]
every_way = pytest.mark.parametrize(
    ("method", "gradient", "per_sample", "direction", "form"),
    [(m, REPLAYS[name], *way) for m, name in PAIRS for way in (WAYS if m == "yoshida4" else WAYS[1:3])],
    ids=str,
)


@every_way
def test_replay_equals_direct_in_every_input(
    method: str, gradient: Any, direction: int, per_sample: bool, form: str
) -> None:
    world = World(per_sample, direction, form)
    direct = world.solve(gradient=Direct(), method=method, step_size=0.17)
    replay = world.solve(gradient=gradient, method=method, step_size=0.17)
    for a, b in zip(direct.ys, replay.ys, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-13, atol=1e-13)
    assert worst(world.gradients(world.loss(replay)), world.gradients(world.loss(direct))) <= EXACT


@every_clock
@every_method_and_replay
def test_replay_equals_direct_through_dense_readings(method: str, gradient: Any, per_sample: bool) -> None:
    def reading(world: World, gradient: Any) -> dict[str, Tensor]:
        sol = world.solve(gradient=gradient, dense=True, method=method, step_size=0.17)
        return world.gradients(sum((leaf**2).sum() for leaf in sol(tensor(0.31, 0.5, 0.77))))

    world = World(per_sample)
    assert worst(reading(world, gradient), reading(world, "direct")) <= EXACT


@pytest.mark.parametrize(("per_sample", "direction"), [(True, 1), (False, -1)])
@every_method
def test_gradients_are_finite_differences(method: str, direction: int, per_sample: bool) -> None:
    """The ends of t move with the derivative that the discrete map has: step sizes are constants."""
    world = World(per_sample, direction)
    found = world.gradients(world.loss(world.solve(gradient="replay", method=method, step_size=0.17)))
    draw, near = torch.Generator().manual_seed(1), 1e-6
    for name, leaf in world.inputs().items():
        if name == "times":
            continue
        way = torch.randn(leaf.shape, generator=draw, dtype=torch.float64)
        losses = []
        for by in (near, -near):
            with torch.no_grad():
                leaf += by * way
                losses.append(float(world.loss(world.solve(method=method, step_size=0.17))))
                leaf -= by * way
        wanted = (losses[0] - losses[1]) / (2 * near)
        assert float((found[name] * way).sum()) == pytest.approx(wanted, rel=1e-6, abs=1e-8), name


@every_clock
@pytest.mark.parametrize("method", ["leapfrog", "ruth3"])
def test_gradients_by_inner_times_are_finite_differences(method: str, per_sample: bool) -> None:
    """Outputs between the ends are moved: the steps stay."""
    world = World(per_sample)
    found = world.gradients(world.loss(world.solve(method=method, step_size=0.17)))["times"]
    near = 1e-6
    for i in (1, 2, 3):
        losses = []
        for by in (near, -near):
            with torch.no_grad():
                world.t[..., i] += by
                losses.append(float(world.loss(world.solve(method=method, step_size=0.17))))
                world.t[..., i] -= by
        assert float(found[..., i].sum()) == pytest.approx((losses[0] - losses[1]) / (2 * near), rel=1e-5, abs=1e-7)


@every_clock
def test_replay_has_the_second_derivatives_of_direct(per_sample: bool) -> None:
    def second(gradient: str) -> dict[str, Tensor]:
        world = World(per_sample)
        sol = world.solve(gradient=gradient, method="yoshida4", step_size=0.3)
        first = world.gradients(world.loss(sol), create_graph=True)
        return world.gradients(sum((g * g.detach().cos()).sum() for g in first.values()))

    assert worst(second("replay"), second("direct")) <= EXACT


@functools.cache
def true_gradients(per_sample: bool = False, direction: int = 1) -> dict[str, Tensor]:
    world = World(per_sample, direction)
    return world.gradients(world.loss(world.solve(method="dopri8", rtol=1e-10, atol=1e-11)))


@pytest.mark.parametrize(
    ("method", "per_sample", "direction"),
    [("leapfrog", True, 1), ("yoshida4", False, -1),
     *((name, *case) for name in PARTITIONED for case in ((False, 1), (True, -1)))],
)  # fmt: skip
def test_the_adjoint_converges_with_the_step(method: str, direction: int, per_sample: bool) -> None:
    """Backwards by rk4: the equation for (y, λ) is no pair (q, p)."""
    world, order = World(per_sample, direction), PARTITIONED[method].order
    wanted = true_gradients(per_sample, direction)
    errors = []
    for step_size in (0.2, 0.05):
        sol = world.solve(gradient="adjoint", method=method, step_size=step_size)
        errors.append(worst(world.gradients(world.loss(sol)), wanted))
    order = min(order, PARTITIONED[method].interpolant_order + 1)
    assert errors[1] <= 2 * errors[0] / 4**order, errors


def test_the_adjoint_may_use_another_method() -> None:
    world = World()
    how = Adjoint(method="tsit5", rtol=1e-9, atol=1e-10)
    sol = world.solve(gradient=how, method="blanes_moan4", controller=Given(torch.linspace(0.2, 1.5, 60).double()))
    assert worst(world.gradients(world.loss(sol)), true_gradients()) <= 1e-5  # inner outputs are cubics


@every_clock
@pytest.mark.parametrize("gradient", ["replay", "direct", "adjoint"])
def test_gradients_through_jumps_are_those_of_fine_steps(gradient: str, per_sample: bool) -> None:
    k = torch.tensor(0.7, dtype=torch.float64, requires_grad=True)
    f = Separable(lambda t, p: stepped(t) * p, lambda t, q: -k * stepped(t) * q)
    y0 = (tensor([1.0], [2.0]), tensor([0.0], [0.5]))
    how: dict[str, Any] = {"method": "blanes_moan4", "step_size": 0.05, "jump_t": [JUMP], "per_sample": per_sample}
    q, p = solve(f, y0, (0.0, 2.0), gradient=gradient, **how).y1
    found = torch.autograd.grad((q * p).sum(), k)[0]
    root, angle = k.sqrt(), 1.0 * JUMP - 2.0 * (2.0 - JUMP)
    cos, sin = torch.cos(root * angle), torch.sin(root * angle)
    wanted = sum((a * cos + b * sin / root) * (b * cos - a * root * sin) for a, b in ((1.0, 0.0), (2.0, 0.5)))
    # the adjoint equation is solved by rk4
    assert relative_error(found, torch.autograd.grad(wanted, k)[0]) <= (1e-5 if gradient == "adjoint" else 1e-7)


def test_modules_of_both_halves_and_what_they_close_over_are_found() -> None:
    """Parameters that the first evaluation does not use have a gradient of zero, not none; modes are restored."""
    held, unused = nn.Linear(1, 1).double(), nn.Linear(1, 1).double()

    class Velocity(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.unused = unused

        def forward(self, t: Tensor, p: Tensor) -> Tensor:
            return p + 0 * self.unused(p) if t > 0.5 else p

    f = Separable(Velocity(), lambda t, q: held(q) if held.training else 2 * held(q))
    assert {id(x) for x in f.parameters()} == {id(x) for x in unused.parameters()}
    y0 = (tensor([1.0]), tensor([0.0]))

    def gradient(kind: str, mode_after: bool) -> Tensor:
        held.train()
        sol = solve(f, y0, (0.0, 1.0), method="leapfrog", step_size=0.1, gradient=kind)
        held.train(mode_after)
        return torch.autograd.grad(sol.y1[0].sum(), held.weight)[0]

    torch.testing.assert_close(gradient("replay", False), gradient("direct", True), rtol=1e-12, atol=1e-12)


# ------------------------------------------------------------------------------------------------------------ refusals


def refused(f: Any, y0: Any, words: str, **options: Any) -> None:
    options = {"method": "leapfrog", "step_size": 0.1} | options
    with pytest.raises(ValueError, match=words):
        solve(f, y0, (0.0, 1.0), **options)
    if not set(options) & {"gradient"}:
        with pytest.raises(ValueError, match=words):
            neuralode.Stepper(f, y0, (0.0, 1.0), **options)


def test_a_state_that_is_no_pair_is_refused() -> None:
    one = tensor(1.0)
    refused(lambda t, y: y, one, r"y0 is a tensor; method 'leapfrog' requires a tuple \(q, p\).*'tsit5'")
    refused(lambda t, y: y, (one, one, one), r"y0 is a tuple of 3")
    refused(lambda t, y: y, {"q": one, "p": one}, r"y0 is a dict of 2")
    refused(lambda t, y: (0 * y[0], 0 * y[1]), (one, tensor(1.0, 2.0)), r"has 1 numbers per row in q and 2 in p")


@pytest.mark.parametrize("scale", [1.0, 1e-6, 1e6])
@pytest.mark.parametrize("per_sample", [False, True])
def test_an_f_that_is_not_separable_is_refused(per_sample: bool, scale: float) -> None:
    y0 = (scale * tensor([1.0], [0.0]), scale * tensor([0.0], [0.0]))
    options = {"per_sample": per_sample}
    refused(
        lambda t, y: (y[1], -y[0] - 0.01 * y[1]), y0,
        r"dp/dt changes with p \(friction\?\).*a function of \(t, q\) alone.*'rk4' or 'tsit5'", **options,
    )  # fmt: skip
    refused(lambda t, y: (y[1] * (1 + y[0]), -y[0]), y0, r"dq/dt changes with q.*a function of \(t, p\)", **options)


def test_friction_that_was_learnt_is_refused_though_there_was_none_at_first() -> None:
    friction = torch.zeros((), dtype=torch.float64)

    def f(t: Tensor, y: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        return y[1], -y[0] - friction * y[1]

    y0 = (tensor(1.0), tensor(0.5))
    solve(f, y0, (0.0, 1.0), method="leapfrog", step_size=0.1)
    friction += 0.1
    refused(f, y0, "dp/dt changes with p")


def test_what_a_backward_solve_and_a_controller_cannot_be_is_said() -> None:
    f, y0 = PENDULUM, (tensor(1.0).requires_grad_(), tensor(0.0))
    refused(f, y0, r"Adjoint\(method='yoshida4'\).*is no pair.*'rk4'", gradient=Adjoint(method="yoshida4"))
    refused(f, y0, "takes fixed steps", step_size=None)
    refused(f, y0, "no error estimate", step_size=None, controller="pid")
    with pytest.raises(TypeError, match=r"Separable\(force\) is a Tensor"):
        Separable(PENDULUM.velocity, tensor(1.0))


def test_an_f_that_writes_into_its_arguments_is_refused() -> None:
    f = Separable(lambda t, p: p, lambda t, q: q.neg_())
    refused(f, (tensor([1.0]), tensor([0.0])), "writes into its arguments")


@every_method
def test_a_slip_in_any_coefficient_is_noticed(method: str) -> None:
    known = PARTITIONED[method]
    for part, place in itertools.product(("kicks", "drifts"), range(len(known.kicks))):
        changed = [x + 1e-8 * (i == place) for i, x in enumerate(getattr(known, part))]
        kept = {"kicks": known.kicks, "drifts": known.drifts} | {part: changed}
        with pytest.raises(ValueError, match=f"'{method}' declares order {known.order}"):
            neuralode.Partitioned(method, known.order, **kept)


@every_method
def test_a_method_has_no_higher_order_than_it_declares_and_says_where_it_is_from(method: str) -> None:
    known = PARTITIONED[method]
    with pytest.raises(ValueError, match=f"miss the conditions of order {known.order + 1}"):
        neuralode.Partitioned(method, known.order + 1, known.kicks, known.drifts)
    assert any(character.isdigit() for character in known.source), "no year in the source"
