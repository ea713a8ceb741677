"""W5, a continuous normalizing flow on two moons: a training step under every gradient, and under our peers'.

The model is one that has been trained a little, so that its solves are those of a flow and not of a first guess. All
libraries take the same field, batch, method (dopri5) and tolerances; the divergence is exact. torchdiffeq is given it
twice: written as it usually is, with one `autograd.grad` a dimension as in its own example; and as we write it, so that
the share of the right-hand side in what is gained is seen. Errors of gradients are against plain
backpropagation in float64: of the same accepted steps for our own gradients at 40 stated steps, which is what "exact"
means; of a solve at 1e-10 for a whole training step, which is what the user gets.
"""

from __future__ import annotations

import copy
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
import torchdiffeq
from torch import Tensor, nn

from benchmarks import w5_diffrax
from benchmarks.memory import peak_bytes
from benchmarks.timing import Table, Timing, interleaved
from neuralode import Adjoint, Given, Replay
from neuralode.data.densities import find_density
from neuralode.nn import CNF
from neuralode.nn.flows import ConcatSquashField, Exact

BATCH, WIDTH, LAYERS = 512, 128, 3
TOLERANCE = 1e-5
STATED_STEPS = 40
PEAKS_AT = (10, 20, 40, 80)  # stated steps
TRAINED_STEPS = 400

GRADIENTS: dict[str, Any] = {
    "replay": Replay(),
    "replay, every 4th": Replay(every=4),
    "replay, by stage": Replay(memory="stage"),
    "adjoint": Adjoint(),
    "adjoint, full norm": Adjoint(norm="full"),
    "direct": "direct",
}

Loss = Callable[[nn.Module, Tensor], Tensor]  # of a field and a batch


@dataclass(frozen=True)
class Result:
    """One way to a training step."""

    what: str
    way: str
    timing: Timing | None
    calls: int
    peak: int
    error: float


@dataclass(frozen=True)
class Peak:
    """What one way holds at so many steps."""

    steps: int
    way: str
    bytes: int


class Counted(nn.Module):
    """The field, and how often it is called."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.net = ConcatSquashField(2, WIDTH, LAYERS)
        self.calls = 0

    def forward(self, t: Tensor, x: Tensor) -> Tensor:
        self.calls += 1
        return self.net(t, x)

    def jvp(self, t: Tensor, x: Tensor, vectors: Tensor) -> tuple[Tensor, Tensor]:
        self.calls += 1
        return self.net.jvp(t, x, vectors)


def ours(gradient: Any, field: nn.Module, x: Tensor) -> Tensor:
    flow = CNF(field, 2, method="dopri5", rtol=TOLERANCE, atol=TOLERANCE, gradient=gradient)
    return -flow.log_prob(x).mean()


class Plain(nn.Module):
    """The same field written as it usually is, layer by layer: the same parameters and the same numbers."""

    def __init__(self, field: Counted) -> None:
        super().__init__()
        self.field = field

    def forward(self, t: Tensor, x: Tensor) -> Tensor:
        self.field.calls += 1
        net, begin, time = self.field.net, 0, t.view(1, 1)
        for place, (linear, width) in enumerate(zip(net.linears, net.widths, strict=True), start=1):
            own = slice(begin, begin + width)
            gate = torch.sigmoid(F.linear(time, net.gate.weight[own], net.gate.bias[own]))
            x = linear(x) * gate + F.linear(time, net.shift.weight[own])
            x = x if place == len(net.widths) else torch.tanh(x)
            begin += width
        return x


class AsOurs(nn.Module):
    """The right-hand side with the divergence as we take it, for torchdiffeq."""

    def __init__(self, field: nn.Module) -> None:
        super().__init__()
        self.field = field

    def forward(self, t: Tensor, state: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        rates = Exact().rates(self.field, t, state[0], (), ())
        return rates.value, rates.divergence[:, None]


class AsTheirs(nn.Module):
    """The same with the divergence as torchdiffeq's example takes it: one pass back for each dimension."""

    def __init__(self, field: Counted) -> None:
        super().__init__()
        self.field = Plain(field)

    def forward(self, t: Tensor, state: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        with torch.enable_grad():
            x = state[0].requires_grad_(True)
            value = self.field(t, x)
            trace = torch.zeros((), dtype=x.dtype)
            for i in range(x.shape[1]):
                trace = trace + torch.autograd.grad(value[:, i].sum(), x, create_graph=True)[0][:, i]
        return value, trace[:, None]


def torchdiffeq_by(solve: Any, right_hand_side: Any, field: nn.Module, x: Tensor) -> Tensor:
    state = (x, x.new_zeros(len(x), 1))
    t = torch.tensor([1.0, 0.0], dtype=x.dtype, device=x.device)
    z, log_det = solve(right_hand_side(field), state, t, method="dopri5", rtol=TOLERANCE, atol=TOLERANCE)
    return -(torch.distributions.Normal(0.0, 1.0).log_prob(z[-1]).sum(1) + log_det[-1, :, 0]).mean()


PEERS: dict[str, Loss] = {
    "torchdiffeq adjoint": partial(torchdiffeq_by, torchdiffeq.odeint_adjoint, AsTheirs),
    "torchdiffeq backprop": partial(torchdiffeq_by, torchdiffeq.odeint, AsTheirs),
    "torchdiffeq adjoint, our right-hand side": partial(torchdiffeq_by, torchdiffeq.odeint_adjoint, AsOurs),
}


def run(device: torch.device, samples: int) -> tuple[list[Result | Peak], list[Table]]:
    """Measure; returns the results and the tables that show them."""
    print(f"W5: training for {TRAINED_STEPS} steps", file=sys.stderr, flush=True)
    field, x = trained(device)
    results = [*stated(field, x, device, samples), *training_step(field, x, device, samples)]
    held = peaks(field, x, device)
    tables = [table(results, what) for what in dict.fromkeys(r.what for r in results)]
    return [*results, *held], [*tables, growth(held), targets(results)]


def trained(device: torch.device) -> tuple[Counted, Tensor]:
    """A flow on its way, and the batch that all are given."""
    moons, generator = find_density("moons"), torch.Generator().manual_seed(0)
    field = Counted().to(device)
    flow = CNF(field, 2, method="midpoint", step_size=0.1).to(device)
    optimizer = torch.optim.Adam(flow.parameters(), 5e-3)
    for _ in range(TRAINED_STEPS):
        optimizer.zero_grad()
        (-flow.log_prob(moons.sample(BATCH, generator).to(device)).mean()).backward()
        optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    return field, moons.sample(BATCH, generator).to(device)


def loss_by_steps(gradient: Any, steps: int, field: nn.Module, x: Tensor) -> Tensor:
    """In so many equal steps, the same for all."""
    grid = Given(torch.linspace(1, 0, steps + 1, dtype=torch.float64))
    return -CNF(field, 2, method="dopri5", controller=grid, gradient=gradient).to(x).log_prob(x).mean()


def peaks(field: Counted, x: Tensor, device: torch.device) -> list[Peak]:
    """What each way holds at its peak, as steps grow in number."""
    print("W5: memory", file=sys.stderr, flush=True)
    return [
        Peak(steps, name, peak_bytes(partial(gradient_of, partial(loss_by_steps, gradient, steps), field, x), device))
        for steps in PEAKS_AT
        for name, gradient in GRADIENTS.items()
    ]


def stated(field: Counted, x: Tensor, device: torch.device, samples: int) -> list[Result]:
    """Forty steps, the same for all: time and memory in float32, error in float64."""
    ways = {name: partial(loss_by_steps, gradient, STATED_STEPS) for name, gradient in GRADIENTS.items()}
    double, x64 = copy.deepcopy(field).double(), x.double()
    exact = gradient_of(ways["direct"], double, x64)
    errors = {name: relative(gradient_of(way, double, x64), exact) for name, way in ways.items()}
    return measured(f"{STATED_STEPS} stated steps", ways, field, x, errors, device, samples)


def training_step(field: Counted, x: Tensor, device: torch.device, samples: int) -> list[Result]:
    """As one trains: adaptive steps at the tolerance."""
    ways: dict[str, Loss] = {f"neuralode {name}": partial(ours, gradient) for name, gradient in GRADIENTS.items()}
    ways |= PEERS
    flow = CNF(copy.deepcopy(field), 2, rtol=1e-10, atol=1e-10).double().to(device)
    exact = flat(torch.autograd.grad(-flow.log_prob(x.double()).mean(), list(flow.field.parameters())))  # type: ignore[union-attr]
    errors = {name: relative(gradient_of(way, field, x), exact) for name, way in ways.items()}
    results = measured("a training step", ways, field, x, errors, device, samples)
    if device.type == "cpu" and w5_diffrax.available():
        results += [
            Result("a training step", way, timing, 0, 0, relative(found, exact))
            for way, timing, found in w5_diffrax.measure(field.net, x, TOLERANCE, samples)
        ]
    return results


def measured(
    what: str,
    ways: dict[str, Loss],
    field: Counted,
    x: Tensor,
    errors: dict[str, float],
    device: torch.device,
    samples: int,
) -> list[Result]:
    print(f"W5: {what}", file=sys.stderr, flush=True)
    runs = {name: partial(gradient_of, way, field, x) for name, way in ways.items()}
    timings = interleaved(runs, samples, device)
    results = []
    for name, one in runs.items():
        field.calls = 0
        one()
        results.append(Result(what, name, timings[name], field.calls, peak_bytes(one, device), errors[name]))
    return results


def gradient_of(loss: Loss, field: nn.Module, x: Tensor) -> Tensor:
    return flat(torch.autograd.grad(loss(field, x), list(field.parameters())))


def flat(gradients: Any) -> Tensor:
    return torch.cat([g.reshape(-1) for g in gradients])


def relative(found: Tensor, exact: Tensor) -> float:
    return float((found.double().to(exact.device) - exact).norm() / exact.norm())


def table(results: list[Result], what: str) -> Table:
    rows = [
        [r.way, str(r.timing), str(r.calls or "–"), f"{r.peak / 2**20:.1f}" if r.peak else "–", f"{r.error:.1e}"]
        for r in results
        if r.what == what
    ]
    note = (
        "Errors in float64 against direct, for the same steps."
        if "stated" in what
        else "Errors in float32 against a float64 solve at 1e-10."
    )
    columns = ["way", "ms (range)", "calls of f", "peak, MiB", "gradient error"]
    return Table(f"W5 {what}: batch {BATCH}, width {WIDTH} × {LAYERS}", columns, rows, note)


def growth(held: list[Peak]) -> Table:
    by = {(p.way, p.steps): p.bytes / 2**20 for p in held}
    rows = [[way, *(f"{by[way, steps]:.1f}" for steps in PEAKS_AT)] for way in GRADIENTS]
    return Table("W5 peak memory against steps, MiB", ["way", *map(str, PEAKS_AT)], rows)


def targets(results: list[Result]) -> Table:
    """How far we are ahead."""
    by = {(r.what, r.way): r for r in results}
    step = {way: r.timing.median for (what, way), r in by.items() if what == "a training step" and r.timing}
    stated = {way: r for (what, way), r in by.items() if "stated" in what}
    rows = [[way, f"{ms / step['neuralode replay']:.2f} ×"] for way, ms in step.items() if "neuralode" not in way]
    rows.append(["memory of direct over replay, 40 steps", f"{stated['direct'].peak / stated['replay'].peak:.1f} ×"])
    note = "Times of a training step over that of replay. Wanted: torchdiffeq's adjoint ≥ 3 ×; memory ≥ 10 ×."
    return Table("W5 against others", ["", "over replay"], rows, note)
