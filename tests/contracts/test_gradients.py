"""Every gradient differentiates the same discrete map; the adjoint differentiates the equation behind it."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import pytest
import torch
from fields import ADAPTIVE, FIXED, METHODS, ORDER, relative_error
from torch import Tensor, nn

import neuralode
from neuralode import Adjoint, Direct, Given, GradientError, Replay, solve

EXACT = 1e-10
ROWS, FEATURES = 3, 2
REPLAYS = {
    "replay": "replay",
    "every third": Replay(every=3),
    "by stage": Replay(memory="stage"),
    "every third by stage": Replay(every=3, memory="stage"),
}
CLOCKS = {"shared": False, "per sample": True}
DIRECTIONS = {"forward": False, "backward": True}

every_clock = pytest.mark.parametrize("per_sample", CLOCKS.values(), ids=CLOCKS)
every_direction = pytest.mark.parametrize("reverse", DIRECTIONS.values(), ids=DIRECTIONS)
every_replay = pytest.mark.parametrize("gradient", REPLAYS.values(), ids=REPLAYS)
# what replay keeps does not depend on the method, but for its kind: one of each goes through all ways
KINDS = ("euler", "rk4", "tsit5", "explicit_adams", "implicit_adams", "trbdf2", "radauIIA5")


def one_of_each(names: str, *choices: Any, methods: Any = METHODS, kinds: tuple[str, ...] = KINDS) -> Any:
    """Parameters: one method of each kind with every combination of choices, the others with the first of each.

    The clock, which is the first of the choices, they take by turns.
    """
    return pytest.mark.parametrize(
        ("method", *names.split()),
        [(method, *case) for place, method in enumerate(methods) for case in _cases(place, method in kinds, choices)],
        ids=str,
    )


def _cases(place: int, every: bool, choices: tuple) -> Any:
    if every:
        return itertools.product(*choices)
    clocks, *rest = choices
    return [(clocks[place % len(clocks)], *(choice[0] for choice in rest))]


every_kind_of_replay = one_of_each("per_sample gradient", (False, True), list(REPLAYS.values()))
PAIRS = [(m, name) for m in METHODS for name in REPLAYS if name == "replay" or m in KINDS]
every_method_and_replay = pytest.mark.parametrize(
    ("method", "gradient"), [(m, REPLAYS[name]) for m, name in PAIRS], ids=[f"{m}-{name}" for m, name in PAIRS]
)


class Drift(nn.Module):
    """A small network with a bound method, and itself a field."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Linear(FEATURES, 3, dtype=torch.float64)
        self.outer = nn.Linear(3, FEATURES, dtype=torch.float64)

    def forward(self, t: Tensor, y: Tensor) -> Tensor:
        return self.outer(torch.tanh(self.inner(y) + t[..., None]))

    def bent(self, t: Tensor, y: Tensor) -> Tensor:
        return torch.sin(self.forward(t, y))


class World:
    """A solve that uses every kind of differentiable input, and those inputs by name."""

    def __init__(self, per_sample: bool = False, reverse: bool = False) -> None:
        draw = torch.Generator().manual_seed(7)

        def leaf(*shape: int) -> Tensor:
            return torch.randn(*shape, generator=draw, dtype=torch.float64).requires_grad_()

        self.per_sample = per_sample
        torch.manual_seed(3)
        self.net = Drift()
        self.y0, self.theta, self.closure, self.encoder = leaf(ROWS, FEATURES), leaf(FEATURES), leaf(1), leaf(2, 2)
        times = torch.tensor([0.2, 0.55, 0.9, 1.1, 1.5], dtype=torch.float64)
        grid = torch.tensor([0.2, 0.4, 0.65, 0.95, 1.05, 1.3, 1.5], dtype=torch.float64)
        if reverse:
            times, grid = -times, -grid
        if per_sample:
            stretch = torch.tensor([[1.0], [1.3], [0.6]], dtype=torch.float64)
            times, grid = times * stretch, grid * stretch
        self.t = times.clone().requires_grad_()
        self.grid = grid
        self.weights = torch.randn(5, ROWS, FEATURES, generator=draw, dtype=torch.float64)

    def inputs(self) -> dict[str, Tensor]:
        named = {"y0": self.y0, "args": self.theta, "closure": self.closure, "encoder": self.encoder, "times": self.t}
        return named | dict(self.net.named_parameters())

    def field(self) -> Callable[[Tensor, Tensor, Tensor], Tensor]:
        code = torch.tanh(self.encoder).sum(0)  # a tensor of a graph that was made before the solve

        def f(t: Tensor, y: Tensor, theta: Tensor) -> Tensor:
            return self.net(t, y) * theta + self.closure * torch.cos(3 * t)[..., None] * y + code

        return f

    def solve(self, **options: Any) -> neuralode.Solution:
        t = options.pop("t", self.t)
        if options.get("controller") == "given":
            options["controller"] = Given(self.grid)
        return solve(self.field(), self.y0, t, args=(self.theta,), per_sample=self.per_sample, **options)

    def gradients(self, loss: Tensor, create_graph: bool = False) -> dict[str, Tensor]:
        names, leaves = zip(*self.inputs().items(), strict=True)
        found = torch.autograd.grad(loss, leaves, create_graph=create_graph, allow_unused=True)
        none = [name for name, g in zip(names, found, strict=True) if g is None]
        assert not none, f"no gradient reaches {none}"
        return dict(zip(names, found, strict=True))

    def loss(self, sol: neuralode.Solution) -> Tensor:
        return (sol.ys * self.weights).sum()


def stepping(method: str) -> dict[str, Any]:
    if method in FIXED:
        return {"method": method, "step_size": 0.17}
    if METHODS[method].implicit:  # on stated steps Newton's iteration goes on to rounding: there gradients are exact
        return {"method": method, "controller": "given"}
    return {"method": method, "rtol": 1e-4, "atol": 1e-5}


def assert_equal_gradients(found: dict[str, Tensor], wanted: dict[str, Tensor], bound: float = EXACT) -> None:
    errors = {name: relative_error(found[name], wanted[name]) for name in wanted}
    assert max(errors.values()) <= bound, errors


@every_method_and_replay
@every_clock
@every_direction
def test_replay_equals_direct_in_every_input(method: str, per_sample: bool, reverse: bool, gradient: Any) -> None:
    world = World(per_sample, reverse)
    direct = world.solve(gradient=Direct(), **stepping(method))
    replay = world.solve(gradient=gradient, **stepping(method))
    torch.testing.assert_close(direct.ys, replay.ys, rtol=1e-13, atol=1e-13)
    assert_equal_gradients(world.gradients(world.loss(replay)), world.gradients(world.loss(direct)))


@every_kind_of_replay
def test_replay_equals_direct_through_dense_readings(method: str, per_sample: bool, gradient: Any) -> None:
    def reading(world: World, gradient: Any) -> dict[str, Tensor]:
        sol = world.solve(gradient=gradient, dense=True, **stepping(method))
        at = torch.tensor([0.31, 0.5, 0.77], dtype=torch.float64)
        return world.gradients((sol(at) ** 2).sum())

    world = World(per_sample)
    found, wanted = reading(world, gradient), reading(world, "direct")
    assert_equal_gradients(found, wanted)


@every_clock
def test_the_time_of_a_dense_reading_has_a_gradient(per_sample: bool) -> None:
    world = World(per_sample)
    slopes = []
    for gradient in ("replay", "direct"):
        sol = world.solve(gradient=gradient, dense=True)
        at = torch.tensor([0.31, 0.5, 0.77], dtype=torch.float64, requires_grad=True)
        slopes.append(torch.autograd.grad(sol(at).sum(), at)[0])
    later, earlier = (sol(at.detach() + d).detach().flatten(1).sum(1) for d in (1e-6, -1e-6))
    assert relative_error(slopes[0], slopes[1]) <= EXACT
    assert relative_error(slopes[0], (later - earlier) / 2e-6) <= 1e-6


@every_kind_of_replay
def test_replay_equals_direct_through_a_saved_function(method: str, per_sample: bool, gradient: Any) -> None:
    world = World(per_sample)
    readout = torch.tensor([0.3, -1.2], dtype=torch.float64, requires_grad=True)

    def save(t: Tensor, y: Tensor, theta: Tensor) -> dict[str, Tensor]:
        return {"energy": (y * y * readout).sum(-1), "wave": torch.sin(y) * theta * t[..., None]}

    def reading(gradient: Any) -> dict[str, Tensor]:
        sol = world.solve(gradient=gradient, save=save, **stepping(method))
        loss = (sol.ys["energy"] ** 2).sum() + (sol.ys["wave"] * world.weights).sum()
        (by_readout,) = torch.autograd.grad(loss, readout, retain_graph=True)
        return world.gradients(loss) | {"readout": by_readout}

    assert_equal_gradients(reading(gradient), reading("direct"))


@every_kind_of_replay
def test_replay_equals_direct_through_the_accepted_steps(method: str, per_sample: bool, gradient: Any) -> None:
    world = World(per_sample)

    def reading(gradient: Any) -> dict[str, Tensor]:
        sol = world.solve(gradient=gradient, save="steps", **stepping(method))
        return world.gradients((sol.ys**3).sum())

    assert_equal_gradients(reading(gradient), reading("direct"))


@every_clock
@every_replay
def test_a_field_that_is_a_module_or_a_bound_method_reaches_its_parameters(per_sample: bool, gradient: Any) -> None:
    world = World(per_sample)
    parameters = list(world.net.parameters())
    for f in (world.net, world.net.bent, lambda t, y: world.net(t, y)):
        found, wanted = (
            torch.autograd.grad(
                world.loss(solve(f, world.y0, world.t, per_sample=per_sample, gradient=g)), [*parameters, world.y0]
            )
            for g in (gradient, "direct")
        )
        assert max(map(relative_error, found, wanted)) <= EXACT


@every_clock
def test_tuple_states_and_nested_args_have_gradients(per_sample: bool) -> None:
    leaves = [
        torch.full((2, 2), 0.7, dtype=torch.float64, requires_grad=True),
        torch.full((2, 1), -0.4, dtype=torch.float64, requires_grad=True),
        torch.tensor(1.3, dtype=torch.float64, requires_grad=True),
        torch.tensor([0.2, 0.9], dtype=torch.float64, requires_grad=True),
    ]

    def f(t: Tensor, y: dict[str, Tensor], p: dict[str, Any]) -> dict[str, Tensor]:
        return {"a": y["b"] * p["k"] - y["a"] * p["more"][0], "b": torch.sin(y["a"]).sum(-1, keepdim=True)}

    found, wanted = [], []
    for gradient, into in (("replay", found), ("direct", wanted)):
        a, b, k, r = leaves
        args = ({"k": k, "more": (r,)},)
        sol = solve(f, {"a": a, "b": b}, (0.0, 1.2), args=args, per_sample=per_sample, gradient=gradient)
        into += torch.autograd.grad(sol.ys["a"].square().sum() + sol.ys["b"].sum(), leaves)
    assert max(map(relative_error, found, wanted)) <= EXACT


@pytest.mark.parametrize("gradient", ["replay", "direct", "adjoint"])
def test_complex_states_have_gradients(gradient: str) -> None:
    z0 = torch.tensor([0.8 - 0.3j, 0.1 + 1.1j], dtype=torch.complex128, requires_grad=True)
    k = torch.tensor(-0.3 + 1.7j, dtype=torch.complex128, requires_grad=True)
    t1 = torch.tensor(0.9, dtype=torch.float64, requires_grad=True)
    adjoint = Adjoint(rtol=1e-10, atol=1e-12) if gradient == "adjoint" else gradient
    sol = solve(lambda t, z: k * z, z0, (0.0, t1), rtol=1e-10, atol=1e-12, gradient=adjoint)
    weights = torch.tensor([1.0 + 2.0j, -0.5j], dtype=torch.complex128)
    found = torch.autograd.grad((weights * sol.ys[-1]).real.sum(), [z0, k, t1])
    exact = torch.autograd.grad((weights * z0 * torch.exp(k * t1)).real.sum(), [z0, k, t1])
    assert max(map(relative_error, found, exact)) <= 1e-8


@one_of_each("per_sample reverse gradient", (False, True), (False, True), ("replay", "direct"))
def test_gradients_agree_with_finite_differences(method: str, per_sample: bool, reverse: bool, gradient: str) -> None:
    world = World(per_sample, reverse)
    options = {"method": method, "controller": Given(world.grid), "gradient": gradient}
    found = world.gradients(world.loss(world.solve(**options)))
    draw = torch.Generator().manual_seed(11)
    checks = [
        (name, torch.randn(leaf.shape, generator=draw, dtype=leaf.dtype)) for name, leaf in world.inputs().items()
    ]
    for entry in (0, 2, -1):  # both ends and an inner output, each by itself
        alone = torch.zeros_like(world.t)
        alone[..., entry] = 1
        checks.append(("times", alone))
    for name, direction in checks:
        leaf = world.inputs()[name]
        losses = []
        for amount in (1e-6, -2e-6):
            with torch.no_grad():
                leaf += amount * direction
                losses.append(world.loss(world.solve(**options)))
        with torch.no_grad():
            leaf += 1e-6 * direction
        quotient = (losses[0] - losses[1]) / 2e-6
        assert relative_error((found[name] * direction).sum(), quotient) <= 1e-5, name


def small_solve(method: str, per_sample: bool, gradient: Any) -> tuple[Callable[..., Tensor], list[Tensor]]:
    """A function of three small inputs, for the checks that build whole Jacobians."""
    y0 = torch.tensor([[0.4], [-0.9]], dtype=torch.float64, requires_grad=True)
    theta = torch.tensor([0.8], dtype=torch.float64, requires_grad=True)
    times = torch.tensor([0.0, 0.35, 0.9], dtype=torch.float64)
    grid = torch.tensor([0.0, 0.25, 0.6, 0.9], dtype=torch.float64)
    if per_sample:
        stretch = torch.tensor([[1.0], [1.4]], dtype=torch.float64)
        times, grid = times * stretch, grid * stretch
    times.requires_grad_()

    def f(t: Tensor, y: Tensor, theta: Tensor) -> Tensor:
        return torch.sin(theta * y) * torch.cos(t)[..., None] - y * y * 0.1  # implicit steps must have a solution

    def outputs(y0: Tensor, theta: Tensor, t: Tensor) -> Tensor:
        options = {"method": method, "controller": Given(grid), "gradient": gradient, "per_sample": per_sample}
        return solve(f, y0, t, args=(theta,), **options).ys

    return outputs, [y0, theta, times]


@one_of_each("per_sample gradient", (False, True), ("replay", Replay(every=2, memory="stage"), "direct"))
def test_gradcheck_passes(method: str, per_sample: bool, gradient: Any) -> None:
    outputs, inputs = small_solve(method, per_sample, gradient)
    assert torch.autograd.gradcheck(outputs, inputs)


TWICE = ["replay", Replay(every=2, memory="stage"), "direct"]


@every_clock
@pytest.mark.parametrize("gradient", TWICE, ids=str)
@pytest.mark.parametrize("method", ["euler", "rk4", "tsit5", "implicit_adams", "trbdf2"])
def test_gradgradcheck_passes(method: str, per_sample: bool, gradient: Any) -> None:
    outputs, inputs = small_solve(method, per_sample, gradient)
    assert torch.autograd.gradgradcheck(outputs, inputs)
    assert torch.autograd.gradcheck(
        lambda *x: torch.autograd.grad(outputs(*x).sin().sum(), x, create_graph=True), inputs
    )


@one_of_each("per_sample reverse", (False, True), (False, True))
def test_second_derivatives_of_replay_equal_those_of_direct(method: str, per_sample: bool, reverse: bool) -> None:
    world = World(per_sample, reverse)

    def second(gradient: Any) -> dict[str, Tensor]:
        first = world.gradients(world.loss(world.solve(gradient=gradient, **stepping(method))), create_graph=True)
        return world.gradients(sum((g * g).sum() for g in first.values()))

    assert_equal_gradients(second("replay"), second("direct"), bound=1e-9)


@one_of_each("per_sample", (False, True))
def test_create_graph_gives_the_same_first_derivatives(method: str, per_sample: bool) -> None:
    world = World(per_sample)
    sol = world.solve(**stepping(method))
    plain = world.gradients(world.loss(sol))
    assert_equal_gradients(world.gradients(world.loss(world.solve(**stepping(method))), create_graph=True), plain)


@every_clock
@every_replay
@pytest.mark.parametrize("create_graph", [False, True], ids=["first", "create_graph"])
def test_a_field_that_closes_over_y0_and_t_gives_each_its_share(
    per_sample: bool, gradient: Any, create_graph: bool
) -> None:
    world = World(per_sample)

    def f(t: Tensor, y: Tensor) -> Tensor:
        return torch.sin(y) - 0.5 * world.y0 * y + world.t.sum() * 0.1

    def first(gradient: Any) -> tuple[Tensor, ...]:
        sol = solve(f, world.y0, world.t, per_sample=per_sample, gradient=gradient)
        return torch.autograd.grad(world.loss(sol), [world.y0, world.t], create_graph=create_graph)

    assert max(map(relative_error, first(gradient), first("direct"))) <= EXACT


@every_clock
@pytest.mark.parametrize("gradient", ["replay", Replay(memory="stage"), "direct"], ids=str)
def test_a_tensor_may_be_an_argument_and_the_state_at_once(per_sample: bool, gradient: Any) -> None:
    y0 = torch.tensor([[0.5], [1.5]], dtype=torch.float64, requires_grad=True)
    options: dict[str, Any] = {"per_sample": per_sample, "rtol": 1e-9, "atol": 1e-11, "gradient": gradient}
    sol = solve(lambda t, y, start: -start * y, y0, (0.0, 1.0), args=(y0,), args_dims=0, **options)
    (found,) = torch.autograd.grad(sol.ys[-1].sum(), y0)
    (wanted,) = torch.autograd.grad((y0 * torch.exp(-y0)).sum(), y0)
    torch.testing.assert_close(found, wanted, rtol=1e-7, atol=0)


ADJOINTS = [("full", False), ("seminorm", False), ("seminorm", True)]


@pytest.fixture(scope="module")
def true_gradients() -> Callable[[bool, bool], dict[str, Tensor]]:
    """Gradients of the equation itself: a direct gradient over very small steps, once per clock and direction."""
    known: dict[tuple[bool, bool], dict[str, Tensor]] = {}

    def look_up(per_sample: bool, reverse: bool) -> dict[str, Tensor]:
        if (per_sample, reverse) not in known:
            world = World(per_sample, reverse)
            # steps that end on every output: there dense output and its slope are those of the solution itself
            t = world.t.detach()
            pieces = [t[..., :1]]
            for i in range(4):
                share = torch.arange(1, 61, dtype=torch.float64) / 60
                pieces.append(t[..., i : i + 1] + (t[..., i + 1 : i + 2] - t[..., i : i + 1]) * share)
            sol = world.solve(gradient="direct", method="dopri5", controller=Given(torch.cat(pieces, -1)))
            known[per_sample, reverse] = world.gradients(world.loss(sol))
        return known[per_sample, reverse]

    return look_up


def worst(found: dict[str, Tensor], wanted: dict[str, Tensor]) -> float:
    return max(relative_error(found[name], wanted[name]) for name in wanted)


@one_of_each("how reverse", ADJOINTS, (False, True), methods=ADAPTIVE, kinds=("tsit5", "kvaerno5"))
def test_the_adjoint_converges_as_its_tolerance_falls(
    method: str, how: tuple[str, bool], reverse: bool, true_gradients: Any
) -> None:
    norm, per_sample = how
    world = World(per_sample, reverse)
    tight = 1e-5 if ORDER[method] < 3 else 1e-6 if ORDER[method] < 5 else 1e-9
    # of Fehlberg's 2(1) the estimate is 1/512 of the difference of two slopes: it errs by as much more
    blind = 512 if method == "fehlberg2" else 1
    tight = tight / 100 if blind > 1 else tight
    errors = []
    for tolerance in (1e-2, tight):
        adjoint = Adjoint(rtol=tolerance, atol=tolerance / 10, norm=norm)
        sol = world.solve(gradient=adjoint, method=method, rtol=tight, atol=tight / 10)
        errors.append(worst(world.gradients(world.loss(sol)), true_gradients(per_sample, reverse)))
    # between two outputs one step of order 8 or 9 is exact to the tight tolerance at any other: nothing is left to fall
    assert errors[1] < errors[0] / 10 or max(errors) < tight, errors
    assert errors[1] <= 100 * tight * blind, errors


@one_of_each("per_sample reverse", (False, True), (False, True), methods=FIXED, kinds=("rk4", "trbdf2"))
def test_the_adjoint_of_a_fixed_method_converges_with_the_step(
    method: str, per_sample: bool, reverse: bool, true_gradients: Any
) -> None:
    world = World(per_sample, reverse)
    errors = []
    # between outputs a method with memory has first to leave the steps of another one behind
    for step_size in (0.1, 0.025) if METHODS[method].memoryless else (0.02, 0.005):
        sol = world.solve(gradient="adjoint", method=method, step_size=step_size)
        errors.append(worst(world.gradients(world.loss(sol)), true_gradients(per_sample, reverse)))
    order = min(ORDER[method], METHODS[method].interpolant_order + 1)  # inner outputs are dense output
    assert errors[1] <= 2 * errors[0] / 4**order, errors


@every_clock
def test_the_adjoint_may_use_its_own_method(per_sample: bool, true_gradients: Any) -> None:
    world = World(per_sample)
    fine = {"rtol": 1e-9, "atol": 1e-10}
    for adjoint in (Adjoint(method="dopri5"), Adjoint(method="rk4", step_size=0.02)):
        sol = world.solve(gradient=adjoint, **fine)
        assert worst(world.gradients(world.loss(sol)), true_gradients(per_sample, False)) <= 1e-6


@every_clock
def test_the_adjoint_reads_dense_output_at_no_more_than_the_tolerance(per_sample: bool) -> None:
    """Either the dense output of an adjoint solve is refused in words, or its gradient is right."""
    world = World(per_sample)
    at = torch.tensor([0.31, 0.5, 0.77], dtype=torch.float64)
    wanted = world.gradients((world.solve(gradient="direct", dense=True, rtol=1e-9, atol=1e-10)(at) ** 2).sum())
    try:
        sol = world.solve(gradient="adjoint", dense=True, rtol=1e-9, atol=1e-10)
        found = world.gradients((sol(at) ** 2).sum())
    except (GradientError, ValueError) as refusal:
        assert "adjoint" in str(refusal)  # noqa: PT017
        return
    assert worst(found, wanted) <= 1e-6


@every_clock
def test_the_second_derivative_of_the_adjoint_is_refused(per_sample: bool) -> None:
    world = World(per_sample)
    loss = world.loss(world.solve(gradient="adjoint"))

    def second() -> None:
        first = torch.autograd.grad(loss, world.y0, create_graph=True)[0]
        torch.autograd.grad(first.square().sum(), world.y0)

    with pytest.raises(GradientError, match=r"(?i)second|adjoint"):
        second()


@pytest.mark.parametrize("gradient", ["replay", "direct", "adjoint"])
@every_clock
def test_ragged_times_give_each_row_the_gradient_it_has_alone(gradient: str, per_sample: bool) -> None:
    """With per_sample the rows end at different times; on a shared clock the last time is repeated for all."""
    weights = torch.tensor([[0.5], [-1.0], [2.0]], dtype=torch.float64, requires_grad=True)
    rows = [[0.0, 0.4, 0.4, 0.4], [0.0, 0.2, 0.9, 0.9], [0.1, 0.5, 0.7, 1.3]] if per_sample else [0.0, 0.4, 0.9, 0.9]
    t = torch.tensor(rows, dtype=torch.float64)
    tight = {"rtol": 1e-9, "atol": 1e-10, "gradient": gradient}

    def f(t: Tensor, y: Tensor, k: Tensor) -> Tensor:
        return -k * y

    k = torch.tensor(0.7, dtype=torch.float64, requires_grad=True)
    sol = solve(f, weights, t, args=(k,), per_sample=per_sample, **tight)
    elapsed = ((t - t[:, :1]).T if per_sample else (t - t[0])[:, None].expand(4, 3))[..., None]
    exact = weights * torch.exp(-k * elapsed)
    found = torch.autograd.grad((sol.ys**2).sum(), [weights, k])
    wanted = torch.autograd.grad((exact**2).sum(), [weights, k])
    assert max(map(relative_error, found, wanted)) <= 1e-7


@pytest.mark.parametrize("gradient", ["replay", "direct", "adjoint"])
@every_clock
def test_no_time_passes_and_the_gradient_is_the_identity(gradient: str, per_sample: bool) -> None:
    world = World(per_sample)
    sol = world.solve(t=(0.5, 0.5), gradient=gradient)
    assert torch.equal(sol.ys[-1], world.y0)
    (g,) = torch.autograd.grad((sol.ys[-1] * world.weights[0]).sum(), world.y0)
    assert torch.equal(g, world.weights[0])


@pytest.mark.parametrize("gradient", ["replay", "direct", "adjoint"])
def test_output_zero_is_y0_itself(gradient: str) -> None:
    world = World()
    sol = world.solve(gradient=gradient)
    assert torch.equal(sol.ys[0], world.y0)
    (g,) = torch.autograd.grad(sol.ys[0].sum(), world.y0)
    assert torch.equal(g, torch.ones_like(world.y0))


@pytest.mark.parametrize("gradient", ["replay", "direct", "adjoint"])
def test_only_one_input_may_need_a_gradient(gradient: str) -> None:
    for alone in World().inputs():
        world = World()
        for name, leaf in world.inputs().items():
            leaf.requires_grad_(name == alone)
        world.loss(world.solve(gradient=gradient)).backward()
        assert world.inputs()[alone].grad.abs().sum() > 0
        assert all(leaf.grad is None for name, leaf in world.inputs().items() if name != alone)


@pytest.mark.parametrize("gradient", ["replay", "direct", "adjoint"])
def test_nothing_is_recorded_without_a_gradient(gradient: str) -> None:
    world = World()
    with torch.no_grad():
        assert not world.solve(gradient=gradient).ys.requires_grad
    for leaf in world.inputs().values():
        leaf.requires_grad_(False)
    assert not world.solve(gradient=gradient).ys.requires_grad


@pytest.mark.parametrize("gradient", ["replay", Replay(every=3, memory="stage"), "direct", "adjoint"], ids=str)
def test_backward_twice_over_a_retained_graph_gives_the_same(gradient: Any) -> None:
    world = World()
    loss = world.loss(world.solve(gradient=gradient))
    first = torch.autograd.grad(loss, list(world.inputs().values()), retain_graph=True)
    again = torch.autograd.grad(loss, list(world.inputs().values()))
    assert all(map(torch.equal, first, again))


@pytest.mark.parametrize("gradient", ["replay", Replay(memory="stage"), "adjoint"], ids=str)
def test_backward_runs_in_the_mode_of_the_forward_pass(gradient: Any) -> None:
    """A module that is put into another mode between forward and backward still gets the forward pass's gradient."""

    class Moody(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear = nn.Linear(2, 2, dtype=torch.float64)

        def forward(self, t: Tensor, y: Tensor) -> Tensor:
            return torch.tanh(self.linear(y)) * (1.0 if self.training else 0.25)

    net = Moody()
    y0 = torch.ones(3, 2, dtype=torch.float64)
    found = []
    for change_mode in (False, True):
        net.train()
        sol = solve(net, y0, (0.0, 1.0), gradient=gradient)
        if change_mode:
            net.eval()
        found.append(torch.autograd.grad(sol.ys[-1].sum(), list(net.parameters())))
        assert net.training is not change_mode
    assert all(map(torch.equal, *found))


@pytest.mark.parametrize("gradient", ["replay", Replay(memory="stage"), "adjoint"], ids=str)
def test_backward_leaves_the_buffers_of_the_field_alone(gradient: Any) -> None:
    class Counter(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear = nn.Linear(2, 2)
            self.register_buffer("calls", torch.zeros(()))

        def forward(self, t: Tensor, y: Tensor) -> Tensor:
            self.calls += 1
            return torch.tanh(self.linear(y))

    net = Counter()
    sol = solve(net, torch.ones(3, 2), (0.0, 1.0), gradient=gradient)
    before = net.calls.clone()
    assert before > 0
    sol.ys[-1].sum().backward()
    assert torch.equal(net.calls, before)


@pytest.mark.parametrize("gradient", ["replay", Replay(memory="stage"), "adjoint"], ids=str)
def test_backward_runs_under_the_autocast_of_the_forward_pass(gradient: Any) -> None:
    net = nn.Sequential(nn.Linear(2, 16), nn.Tanh(), nn.Linear(16, 2))
    y0 = torch.randn(8, 2)
    seen: list[bool] = []

    def f(t: Tensor, y: Tensor) -> Tensor:
        seen.append(torch.is_autocast_enabled("cpu"))
        return net(y)

    gradients = []
    for choice in (gradient, "direct"):
        with torch.autocast("cpu", dtype=torch.bfloat16):
            sol = solve(f, y0, (0.0, 1.0), method="rk4", step_size=0.1, gradient=choice)
        assert sol.ys.dtype == torch.float32
        gradients.append(torch.autograd.grad(sol.ys[-1].sum(), list(net.parameters())))
    assert all(seen)
    assert max(map(relative_error, *gradients)) <= 0.03


@every_clock
def test_the_gradient_does_not_depend_on_how_rows_are_batched(per_sample: bool) -> None:
    """Rows that each have their clock add up to the gradient of the batch."""
    k = torch.tensor([0.3, 1.1], dtype=torch.float64, requires_grad=True)
    y0 = torch.tensor([[1.0, 0.2], [0.1, -0.7], [2.0, 1.5]], dtype=torch.float64)

    def f(t: Tensor, y: Tensor, k: Tensor) -> Tensor:
        return torch.sin(k * y)

    options: dict[str, Any] = {"args": (k,), "per_sample": per_sample}
    if not per_sample:
        options |= {"method": "rk4", "step_size": 0.1}
    (together,) = torch.autograd.grad(solve(f, y0, (0.0, 2.0), **options).ys[-1].sum(), k)
    substitution = [
        torch.autograd.grad(solve(f, y0[i : i + 1], (0.0, 2.0), **options).ys[-1].sum(), k)[0] for i in range(3)
    ]
    assert relative_error(together, sum(substitution)) <= 1e-12


@pytest.mark.parametrize(("every", "memory"), [*itertools.product((1, 2, 7, 1000), ("step", "stage"))])
def test_any_stride_of_replay_gives_the_same_gradient(every: int, memory: Any) -> None:
    world = World()
    wanted = world.gradients(world.loss(world.solve(gradient="direct", rtol=1e-6)))
    found = world.gradients(world.loss(world.solve(gradient=Replay(every=every, memory=memory), rtol=1e-6)))
    assert_equal_gradients(found, wanted)
