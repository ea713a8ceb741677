"""Sampling on a known grid: samples, counts of evaluations, and no synchronisation with the host."""

from itertools import pairwise

import numpy as np
import pytest
import torch
from flow_matching.path import AffineProbPath
from flow_matching.path.scheduler import CondOTScheduler, CosineScheduler, VPScheduler
from flow_matching.solver import ODESolver
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

import neuralode
from neuralode.nn import CNF
from neuralode.nn.flows import Cosine, Linear, StandardNormal, VariancePreserving, grid_times, sample

METHODS = neuralode.methods()


class Net(nn.Module):
    """A field of rows that counts its calls."""

    def __init__(self, features: int = 3, width: int = 16) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.last, self.calls = nn.Linear(features + 1, width), nn.Linear(width, features), 0

    def forward(self, t: Tensor, x: Tensor, shift: Tensor | None = None) -> Tensor:
        self.calls += 1
        slope = self.last(torch.tanh(self.first(torch.cat((x, t.expand(len(x), 1)), 1))))
        return slope if shift is None else slope + shift


def start(rows: int = 5, features: int = 3) -> Tensor:
    return torch.randn(rows, features, generator=torch.Generator().manual_seed(1))


# --- grids


def test_an_even_grid_has_equal_steps():
    assert grid_times("uniform", 50) == tuple(n / 50 for n in range(51))


@pytest.mark.parametrize("steps", [1, 2, 18, 50])
def test_the_edm_grid_has_the_noise_levels_of_karras(steps):
    times = grid_times("edm", steps)
    assert len(times) == steps + 1
    assert (times[0], times[-1]) == (0.0, 1.0)
    assert all(before < after for before, after in pairwise(times))
    place = np.arange(steps) / max(steps - 1, 1)
    levels = (80 ** (1 / 7) + place * (0.002 ** (1 / 7) - 80 ** (1 / 7))) ** 7
    np.testing.assert_allclose([(1 - t) / t for t in times[1:-1]], levels[1:], rtol=1e-9)


def test_given_times_may_increase_or_decrease():
    net = Net().double()
    there = sample(net, start().double(), grid=np.linspace(0, 1, 201), method="rk4")
    assert there.evaluations == 800
    back = sample(net, there.x, grid=np.linspace(1, 0, 201), method="rk4")
    torch.testing.assert_close(back.x, start().double(), rtol=0, atol=1e-9)


@pytest.mark.parametrize("name", ["euler", "rk4", "dopri5"])
def test_a_tensor_of_times_is_the_same_grid_and_receives_gradients(name):
    times = (0.0, 0.1, 0.7, 1.0)
    grid = torch.tensor(times, dtype=torch.float64, requires_grad=True)
    net, x0 = Net().double(), start().double()
    found = sample(net, x0, grid=grid, method=name, differentiable=True)
    torch.testing.assert_close(found.x, sample(net, x0, grid=times, method=name).x, rtol=1e-13, atol=1e-13)
    [slope] = torch.autograd.grad(found.x.sum(), grid)
    near = 1e-6
    moved = [sample(net, x0, grid=(0.0, 0.1 + by, 0.7, 1.0), method=name).x.sum() for by in (near, -near)]
    assert float(slope[1]) == pytest.approx(float(moved[0] - moved[1]) / (2 * near), rel=1e-3, abs=1e-8)


# --- steps

EXPLICIT = [
    name for name, method in METHODS.items() if method.memoryless and not (method.implicit or method.partitioned)
]


@pytest.mark.parametrize("name", sorted(set(METHODS) - set(EXPLICIT)))
def test_methods_other_than_explicit_one_step_methods_are_refused(name):
    with pytest.raises(ValueError, match=f"method '{name}' is not an explicit one-step method"):
        sample(Net(), start(), steps=3, method=name)


@pytest.mark.parametrize("name", EXPLICIT)
def test_steps_equal_those_of_solve_and_are_counted(name):
    net, x0 = Net().double(), start().double()
    found = sample(net, x0, steps=10, method=name)
    assert net.calls == found.calls == found.evaluations == 10 * METHODS[name].evaluations_per_step
    with torch.no_grad():
        tenths = neuralode.Given(torch.linspace(0, 1, 11, dtype=torch.float64))
        wanted = neuralode.solve(net, x0, (0.0, 1.0), method=name, controller=tenths).y1
    torch.testing.assert_close(found.x, wanted, rtol=1e-12, atol=1e-12)


def test_states_of_any_shape_are_stepped_row_by_row():
    x0 = torch.randn(4, 2, 3, 3)
    found = sample(lambda t, x: -x, x0, steps=10).x
    torch.testing.assert_close(found, x0 * 0.9**10)
    assert torch.equal(sample(lambda t, x: -x, x0[1:2], steps=10).x, found[1:2])
    assert sample(lambda t, x: -x, x0[:0], steps=10).x.shape == (0, 2, 3, 3)


def test_adaptive_sampling_equals_solve():
    net, x0 = Net().double(), start().double()
    found = sample(net, x0, grid="adaptive", rtol=1e-8, atol=1e-8)
    solved = neuralode.solve(net, x0, (0.0, 1.0), rtol=1e-8, atol=1e-8)
    torch.testing.assert_close(found.x, solved.y1)
    assert found.evaluations == int(solved.stats.evaluations.max())
    many = sample(net, x0, steps=50, method="rk4").x
    torch.testing.assert_close(found.x, many, rtol=1e-6, atol=1e-7)


def test_the_input_is_not_modified():
    x0 = start()
    kept = x0.clone()
    for name in EXPLICIT:
        sample(Net(), x0, steps=3, method=name)
    assert torch.equal(x0, kept)


# --- gradients


def test_no_graph_is_kept_unless_differentiable():
    net = Net()
    assert not sample(net, start(), steps=3).x.requires_grad
    assert not sample(net, start(), grid="adaptive").x.requires_grad
    with torch.no_grad():
        assert not sample(net, start(), steps=3, differentiable=True).x.requires_grad


@pytest.mark.parametrize("name", ["euler", "heun2", "tsit5"])
def test_gradients_flow_through_the_steps(name):
    net, x0 = Net().double(), start(2).double().requires_grad_()
    shift = torch.full((2, 3), 0.1, dtype=torch.float64, requires_grad=True)

    def end(x0, shift, *_):
        return sample(net, x0, args=(shift,), steps=3, method=name, differentiable=True).x

    assert torch.autograd.gradcheck(end, (x0, shift, *net.parameters()))


def test_gradients_flow_through_adaptive_steps():
    net, x0 = Net().double(), start().double().requires_grad_()
    wanted = [x0, *net.parameters()]
    settings = [{"grid": "adaptive", "rtol": 1e-9, "atol": 1e-9}, {"steps": 100, "method": "rk4"}]
    adapted, stated = (
        torch.autograd.grad(sample(net, x0, **some, differentiable=True).x.square().sum(), wanted) for some in settings
    )
    for one, other in zip(adapted, stated, strict=True):
        assert float(other.abs().max()) > 0
        torch.testing.assert_close(one, other, rtol=1e-6, atol=1e-7)


# --- precision


def test_a_field_in_half_precision_is_accumulated_in_float32():
    net = Net().bfloat16()
    seen = []

    def field(t, x, shift):
        seen.append((t.dtype, x.dtype, shift.dtype))
        return net(t, x, shift)

    shift = torch.zeros(5, 3)
    found = sample(field, start(), args=(shift,), steps=20, dtype=torch.bfloat16).x
    assert set(seen) == {(torch.bfloat16,) * 3}
    assert found.dtype == torch.float32
    exact = sample(Net(), start(), steps=20).x
    torch.testing.assert_close(found, exact, rtol=0.02, atol=0.02)
    assert float((found - exact).abs().max()) > 0


def test_steps_below_the_resolution_of_half_precision_accumulate():
    # 1 + 1/1000 is 1 in bfloat16
    slow = sample(lambda t, x: torch.ones_like(x), torch.ones(1, 1, dtype=torch.bfloat16), steps=1000)
    assert slow.x.dtype == torch.bfloat16
    assert slow.x.item() == 2.0


def test_integer_conditions_are_not_cast():
    labels = torch.tensor([0, 1])

    def field(t, x, label):
        assert label.dtype == torch.int64
        return label[:, None].to(x.dtype).expand_as(x)

    assert sample(field, torch.zeros(2, 1), args=(labels,), dtype=torch.bfloat16).x.round(
        decimals=4
    ).flatten().tolist() == [0.0, 1.0]


# --- no synchronisation with the host


class Seen(TorchDispatchMode):
    """Records the names of all operations."""

    def __init__(self) -> None:
        super().__init__()
        self.names: set[str] = set()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.names.add(func.overloadpacket.__name__)
        return func(*args, **(kwargs or {}))


WAITS = {"_local_scalar_dense", "item", "nonzero", "equal", "is_nonzero", "_to_cpu", "masked_select", "unique"}
SETTINGS = [
    {},
    {"grid": "edm", "method": "heun2"},
    {"grid": torch.linspace(0, 1, 6), "method": "dopri5"},
    {"steps": 4, "method": "rk4", "dtype": torch.bfloat16},
    {"steps": 3, "method": "tsit5", "differentiable": True},
]


@pytest.mark.parametrize("settings", SETTINGS, ids=str)
def test_no_operation_reads_a_value_from_the_device(settings):
    net = Net().to(settings.get("dtype"))
    with Seen() as seen:
        sample(net, start(), **settings)
    assert "add" in seen.names
    assert not seen.names & WAITS


def test_reading_a_value_would_be_detected():
    with Seen() as seen:
        sample(Net(), start(), grid="adaptive")
    assert seen.names & WAITS


@pytest.mark.filterwarnings("ignore:Dynamo detected a call to a `functools.lru_cache`")
@pytest.mark.parametrize("settings", SETTINGS, ids=str)
def test_sampling_can_be_compiled_whole(settings):
    torch.compiler.reset()
    net = Net().to(settings.get("dtype"))
    settings = {"steps": 5, **settings}
    compiled = torch.compile(lambda x: sample(net, x, **settings), fullgraph=True, backend="eager")
    found, wanted = compiled(start()), sample(net, start(), **settings)
    assert torch.equal(found.x, wanted.x)
    assert (found.evaluations, found.calls) == (wanted.evaluations, wanted.calls)


# --- refusals


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"grid": "edn"}, "grid='edn' is unknown; did you mean 'edm'"),
        ({"steps": 0}, "steps=0; wanted a whole number"),
        ({"steps": 2.0}, "steps=2.0; wanted a whole number"),
        ({"grid": (0.0, 0.5, 0.5, 1.0)}, "wanted two or more finite times that rise, or fall"),
        ({"grid": (0.0,)}, "wanted two or more finite times"),
        ({"grid": (0.0, float("nan"))}, "wanted two or more finite times"),
        ({"grid": torch.zeros(2, 3)}, r"grid has shape \[2, 3\]"),
        ({"grid": torch.arange(3)}, r"torch.int64; wanted two or more times"),
        ({"method": "eulr"}, "did you mean 'euler'"),
        ({"grid": "adaptive", "method": "euler"}, "euler"),
    ],
)
def test_invalid_arguments_are_refused_with_a_message(settings, words):
    with pytest.raises(ValueError, match=words):
        sample(Net(), start(), **settings)


def test_a_field_that_changes_the_shape_is_refused():
    with pytest.raises(ValueError, match=r"field gave shape \[5, 1\]; wanted that of x, \[5, 3\]"):
        sample(lambda t, x: x[:, :1], start())


def test_an_integer_state_is_refused():
    with pytest.raises(TypeError, match=r"x0 is a torch.int64; wanted a floating point tensor"):
        sample(lambda t, x: x, torch.ones(2, 2, dtype=torch.int64))


# --- compared with flow_matching 1.0.10, whose fields take (x, t)


@pytest.fixture
def net() -> Net:
    return Net()


def peer(net: Net) -> ODESolver:
    return ODESolver(velocity_model=lambda x, t: net(t, x))


@pytest.mark.parametrize(
    ("path", "scheduler"),
    [(Linear(), CondOTScheduler()), (VariancePreserving(), VPScheduler()), (Cosine(), CosineScheduler())],
    ids=["linear", "variance-preserving", "cosine"],
)
def test_flow_matching_has_the_same_paths(path, scheduler):
    x0, x1, t = start(9), start(10)[1:], torch.linspace(0, 0.99, 9)
    theirs = AffineProbPath(scheduler).sample(x_0=x0, x_1=x1, t=t)
    ours = path.at(t, x0, x1)
    torch.testing.assert_close(ours.x, theirs.x_t, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(ours.velocity, theirs.dx_t, rtol=1e-3, atol=1e-4)  # 1 - exp(-T) rounds in theirs


@pytest.mark.parametrize("method", ["euler", "midpoint", "rk4"])
def test_flow_matching_takes_the_same_equal_steps(net, method):
    # their rk4 is the 3/8 rule, another method of order 4 with a similar error
    tolerance = 1e-5 if method == "rk4" else 1e-6
    theirs = peer(net).sample(x_init=start(), step_size=1 / 32, method=method)
    ours = sample(net, start(), steps=32, method=method)
    torch.testing.assert_close(ours.x, theirs, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("method", ["euler", "midpoint"])
def test_flow_matching_takes_the_same_steps_on_a_grid(net, method):
    grid = torch.tensor(grid_times("edm", 50))
    theirs = peer(net).sample(x_init=start(), step_size=None, method=method, time_grid=grid)
    ours = sample(net, start(), grid="edm", steps=50, method=method)
    torch.testing.assert_close(ours.x, theirs, rtol=2e-6, atol=2e-6)
    torch.testing.assert_close(sample(net, start(), grid=grid, method=method).x, theirs, rtol=2e-6, atol=2e-6)


def test_flow_matching_agrees_with_adaptive_steps(net):
    theirs = peer(net).sample(x_init=start(), step_size=None, method="dopri5", rtol=2e-6, atol=2e-6)
    ours = sample(net, start(), grid="adaptive", method="dopri5", rtol=2e-6, atol=2e-6)
    torch.testing.assert_close(ours.x, theirs, rtol=1e-5, atol=1e-5)


def test_flow_matching_gives_the_same_likelihood(net):
    base, x1 = StandardNormal(3), start(8)
    there, theirs = peer(net).compute_likelihood(
        x_1=x1, log_p0=base.log_prob, step_size=None, method="dopri5", rtol=2e-6, atol=2e-6, exact_divergence=True
    )
    flow = CNF(net, base, method="dopri5", rtol=2e-6, atol=2e-6)
    torch.testing.assert_close(flow.inverse(x1), there, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(flow.log_prob(x1), theirs, rtol=1e-5, atol=1e-5)
