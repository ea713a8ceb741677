"""W5, continuous normalizing flow on two moons: a training step with each of our gradients, and with other libraries.

The model is trained for a few steps first, so that its solves are typical of a flow. All libraries use the same field,
batch, method (dopri5) and tolerances; the divergence is exact. torchdiffeq runs with two right-hand sides: that of its
own example, with one `autograd.grad` per dimension, and ours, to separate the gain of the right-hand side from that of
the solver. Gradient errors are relative to backpropagation in float64: through the same steps for 40 fixed steps, which
tests whether a gradient is exact, and through a solve at 1e-10 for a training step.
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
FIXED_STEPS = 40
PEAK_STEPS = (10, 20, 40, 80)  # fixed steps for the memory table
TRAINING_STEPS = 400  # before measuring

GRADIENTS: dict[str, Any] = {
    "replay": Replay(),
    "replay, every 4th": Replay(every=4),
    "replay, by stage": Replay(memory="stage"),
    "adjoint": Adjoint(),
    "adjoint, full norm": Adjoint(norm="full"),
    "direct": "direct",
}

Loss = Callable[[nn.Module, Tensor], Tensor]  # (field, batch) -> loss


@dataclass(frozen=True)
class Result:
    """One variant of a training step."""

    what: str
    variant: str
    timing: Timing | None
    calls: int
    peak: int
    error: float


@dataclass(frozen=True)
class Peak:
    """Peak memory of one variant at a number of steps."""

    steps: int
    variant: str
    bytes: int


class CountingField(nn.Module):
    """The field, with a count of its calls."""

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


class LayerwiseField(nn.Module):
    """The same field written layer by layer, as is usual: same parameters, same values."""

    def __init__(self, field: CountingField) -> None:
        super().__init__()
        self.field = field

    def forward(self, t: Tensor, x: Tensor) -> Tensor:
        self.field.calls += 1
        net, begin, time = self.field.net, 0, t.view(1, 1)
        for layer, (linear, width) in enumerate(zip(net.linears, net.widths, strict=True), start=1):
            units = slice(begin, begin + width)
            gate = torch.sigmoid(F.linear(time, net.gate.weight[units], net.gate.bias[units]))
            x = linear(x) * gate + F.linear(time, net.shift.weight[units])
            x = x if layer == len(net.widths) else torch.tanh(x)
            begin += width
        return x


class OurRightHandSide(nn.Module):
    """Right-hand side for torchdiffeq with our divergence."""

    def __init__(self, field: nn.Module) -> None:
        super().__init__()
        self.field = field

    def forward(self, t: Tensor, state: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        rates = Exact().rates(self.field, t, state[0], (), ())
        return rates.value, rates.divergence[:, None]


class TheirRightHandSide(nn.Module):
    """Right-hand side as in the example of torchdiffeq: one backward pass per dimension."""

    def __init__(self, field: CountingField) -> None:
        super().__init__()
        self.field = LayerwiseField(field)

    def forward(self, t: Tensor, state: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        with torch.enable_grad():
            x = state[0].requires_grad_(True)
            value = self.field(t, x)
            trace = torch.zeros((), dtype=x.dtype)
            for i in range(x.shape[1]):
                trace = trace + torch.autograd.grad(value[:, i].sum(), x, create_graph=True)[0][:, i]
        return value, trace[:, None]


def torchdiffeq_loss(solve: Any, right_hand_side: Any, field: nn.Module, x: Tensor) -> Tensor:
    state = (x, x.new_zeros(len(x), 1))
    t = torch.tensor([1.0, 0.0], dtype=x.dtype, device=x.device)
    z, log_det = solve(right_hand_side(field), state, t, method="dopri5", rtol=TOLERANCE, atol=TOLERANCE)
    return -(torch.distributions.Normal(0.0, 1.0).log_prob(z[-1]).sum(1) + log_det[-1, :, 0]).mean()


PEERS: dict[str, Loss] = {
    "torchdiffeq adjoint": partial(torchdiffeq_loss, torchdiffeq.odeint_adjoint, TheirRightHandSide),
    "torchdiffeq backprop": partial(torchdiffeq_loss, torchdiffeq.odeint, TheirRightHandSide),
    "torchdiffeq adjoint, our right-hand side": partial(torchdiffeq_loss, torchdiffeq.odeint_adjoint, OurRightHandSide),
}


def run(device: torch.device, samples: int) -> tuple[list[Result | Peak], list[Table]]:
    """Measure; return the results and their tables."""
    print(f"W5: training for {TRAINING_STEPS} steps", file=sys.stderr, flush=True)
    field, x = trained(device)
    timed = {"device": device, "samples": samples}
    results = [*fixed_steps(field, x, **timed), *training_step(field, x, **timed)]
    memory = peaks(field, x, device)
    tables = [table(results, what) for what in dict.fromkeys(r.what for r in results)]
    return [*results, *memory], [*tables, growth(memory), targets(results)]


def trained(device: torch.device) -> tuple[CountingField, Tensor]:
    """Return a partly trained field, and the batch for all measurements."""
    moons, generator = find_density("moons"), torch.Generator().manual_seed(0)
    field = CountingField().to(device)
    flow = CNF(field, 2, method="midpoint", step_size=0.1).to(device)
    optimizer = torch.optim.Adam(flow.parameters(), 5e-3)
    for _ in range(TRAINING_STEPS):
        optimizer.zero_grad()
        (-flow.log_prob(moons.sample(BATCH, generator).to(device)).mean()).backward()
        optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    return field, moons.sample(BATCH, generator).to(device)


def fixed_step_loss(gradient: Any, steps: int, field: nn.Module, x: Tensor) -> Tensor:
    """Return the loss of a solve with equal steps."""
    grid = Given(torch.linspace(1, 0, steps + 1, dtype=torch.float64))
    return -CNF(field, 2, method="dopri5", controller=grid, gradient=gradient).to(x).log_prob(x).mean()


def peaks(field: CountingField, x: Tensor, device: torch.device) -> list[Peak]:
    """Measure peak memory of each gradient against the number of steps."""
    print("W5: memory", file=sys.stderr, flush=True)
    results = []
    for steps in PEAK_STEPS:
        for name, gradient in GRADIENTS.items():
            run_once = partial(gradient_of, partial(fixed_step_loss, gradient, steps), field, x)
            results.append(Peak(steps, name, peak_bytes(run_once, device)))
    return results


def fixed_steps(field: CountingField, x: Tensor, *, device: torch.device, samples: int) -> list[Result]:
    """Measure 40 fixed steps: time and memory in float32, gradient error in float64."""
    losses = {name: partial(fixed_step_loss, gradient, FIXED_STEPS) for name, gradient in GRADIENTS.items()}
    double, x64 = copy.deepcopy(field).double(), x.double()
    exact = gradient_of(losses["direct"], double, x64)
    errors = {name: relative(gradient_of(loss, double, x64), exact) for name, loss in losses.items()}
    return measure(f"{FIXED_STEPS} fixed steps", losses, errors, field=field, x=x, device=device, samples=samples)


def training_step(field: CountingField, x: Tensor, *, device: torch.device, samples: int) -> list[Result]:
    """Measure a training step with adaptive steps."""
    losses: dict[str, Loss] = {f"neuralode {name}": partial(ours, gradient) for name, gradient in GRADIENTS.items()}
    losses |= PEERS
    flow = CNF(copy.deepcopy(field), 2, rtol=1e-10, atol=1e-10).double().to(device)
    exact = flat(torch.autograd.grad(-flow.log_prob(x.double()).mean(), list(flow.field.parameters())))  # type: ignore[union-attr]
    errors = {name: relative(gradient_of(loss, field, x), exact) for name, loss in losses.items()}
    results = measure("a training step", losses, errors, field=field, x=x, device=device, samples=samples)
    if device.type == "cpu" and w5_diffrax.available():
        results += [
            Result("a training step", name, timing, calls=0, peak=0, error=relative(gradient, exact))
            for name, timing, gradient in w5_diffrax.measure(field.net, x, tolerance=TOLERANCE, samples=samples)
        ]
    return results


def measure(
    what: str,
    losses: dict[str, Loss],
    errors: dict[str, float],
    *,
    field: CountingField,
    x: Tensor,
    device: torch.device,
    samples: int,
) -> list[Result]:
    print(f"W5: {what}", file=sys.stderr, flush=True)
    runs = {name: partial(gradient_of, loss, field, x) for name, loss in losses.items()}
    timings = interleaved(runs, samples, device)
    results = []
    for name, run_once in runs.items():
        field.calls = 0
        run_once()
        calls, peak = field.calls, peak_bytes(run_once, device)
        results.append(Result(what, name, timings[name], calls=calls, peak=peak, error=errors[name]))
    return results


def gradient_of(loss: Loss, field: nn.Module, x: Tensor) -> Tensor:
    return flat(torch.autograd.grad(loss(field, x), list(field.parameters())))


def flat(gradients: Any) -> Tensor:
    return torch.cat([g.reshape(-1) for g in gradients])


def relative(gradient: Tensor, exact: Tensor) -> float:
    return float((gradient.double().to(exact.device) - exact).norm() / exact.norm())


def table(results: list[Result], what: str) -> Table:
    rows = [
        [r.variant, str(r.timing), str(r.calls or "–"), f"{r.peak / 2**20:.1f}" if r.peak else "–", f"{r.error:.1e}"]
        for r in results
        if r.what == what
    ]
    note = (
        "Errors in float64 against direct, for the same steps."
        if "fixed" in what
        else "Errors in float32 against a float64 solve at 1e-10."
    )
    columns = ["variant", "ms (range)", "calls of f", "peak, MiB", "gradient error"]
    return Table(f"W5 {what}: batch {BATCH}, width {WIDTH} × {LAYERS}", columns, rows, note=note)


def growth(results: list[Peak]) -> Table:
    peak = {(p.variant, p.steps): p.bytes / 2**20 for p in results}
    rows = [[name, *(f"{peak[name, steps]:.1f}" for steps in PEAK_STEPS)] for name in GRADIENTS]
    return Table("W5 peak memory against steps, MiB", ["variant", *map(str, PEAK_STEPS)], rows)


def targets(results: list[Result]) -> Table:
    """Tabulate times relative to replay, and the ratio of memory."""
    step = {r.variant: r.timing.median for r in results if r.what == "a training step" and r.timing}
    fixed = {r.variant: r for r in results if "fixed" in r.what}
    rows = [[name, f"{ms / step['neuralode replay']:.2f} ×"] for name, ms in step.items() if "neuralode" not in name]
    rows.append(["memory of direct over replay, 40 steps", f"{fixed['direct'].peak / fixed['replay'].peak:.1f} ×"])
    note = "Times of a training step over that of replay. Goal: torchdiffeq's adjoint ≥ 3 ×; memory ≥ 10 ×."
    return Table("W5 against other libraries", ["", "over replay"], rows, note=note)
