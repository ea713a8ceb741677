"""W6, the paper's ODE-Net on MNIST: a training step with each of our gradients, and with torchdiffeq's.

All variants start from the same weights, see the same batches in the same order, in turn, and use the same optimizer;
tolerances are 1e-3, as in the paper. torchdiffeq runs with the field of the paper's authors, which concatenates time as
a channel, and also with `ConvField`, to separate the gain of the field from that of the solver. The goal is at most 0.6
of the time of torchdiffeq's adjoint, on two threads (``--threads 2``).
"""

from __future__ import annotations

import copy
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
import torchdiffeq
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from benchmarks.memory import peak_bytes
from benchmarks.timing import Table, Timing, interleaved
from neuralode import solve
from neuralode.data.mnist import mnist
from neuralode.nn import ConvField, ODENet

BATCH, BATCHES = 128, 20
TOLERANCE = 1e-3
METHODS = ("tsit5", "dopri5", "bosh3")
GRADIENTS = ("replay", "adjoint", "direct")
LEARNING_RATE = 1e-3
TOLERANCES = (1e-3, 1e-2, 1e-1)  # at which the error is measured
REFERENCE_IMAGES, REFERENCE_TOLERANCE = 32, 1e-7  # in float64

Batches = tuple[Tensor, Tensor]  # images and labels, [BATCHES, BATCH, ...]


@dataclass(frozen=True)
class Result:
    """One variant of a training step, with its calls of the field forward and backward."""

    variant: str
    timing: Timing
    forward_calls: int
    backward_calls: int
    peak: int
    bare: Timing | None  # the same number of evaluations and vector-Jacobian products without a solver


@dataclass(frozen=True)
class Precision:
    """Root mean square error of the feature maps, whose magnitude is about 1, at one tolerance."""

    method: str
    tolerance: float
    evaluations: int
    error: float


class ChannelField(ConvField):
    """The same field in the form of the paper's authors, with time as an additional channel."""

    def forward(self, t: Tensor, y: Tensor) -> Tensor:
        y = self.conv1(self._with_time(t, torch.relu(self.norm1(y))))
        y = self.conv2(self._with_time(t, torch.relu(self.norm2(y))))
        return self.norm3(y)

    @staticmethod
    def _with_time(t: Tensor, y: Tensor) -> Tensor:
        return torch.cat([torch.ones_like(y[:, :1]) * t, y], dim=1)


class TorchdiffeqNet(nn.Module):
    """The network with torchdiffeq as its solver."""

    def __init__(self, net: Any, solver: Callable[..., Any], *, time_channel: bool, method: str) -> None:
        super().__init__()
        self.stem, self.head, self.solver, self.method = net.stem, net.head, solver, method
        self.field: Any = ChannelField(net.head[-1].in_features) if time_channel else net.ode.f
        self.field.load_state_dict(net.ode.f.state_dict())
        self.register_buffer("t", torch.tensor([0.0, 1.0]))

    def forward(self, images: Tensor) -> Tensor:
        ends = self.solver(self.field, self.stem(images), self.t, rtol=TOLERANCE, atol=TOLERANCE, method=self.method)
        return self.head(ends[1])


class Training:
    """A network in training, and the number of calls of its field."""

    def __init__(self, net: Any, batches: Batches) -> None:
        self.net, self.batches, self.position = net, batches, 0
        self.field: Any = net.field if isinstance(net, TorchdiffeqNet) else net.ode.f
        self.optimizer = torch.optim.AdamW(net.parameters(), LEARNING_RATE)
        self.calls, self.forward_calls = 0, 0
        self.field.register_forward_pre_hook(self._called)

    def _called(self, *_: Any) -> None:
        self.calls += 1

    def batch(self) -> Iterator[Tensor]:
        self.position = (self.position + 1) % len(self.batches[0])
        return (part[self.position] for part in self.batches)

    def step(self) -> None:
        """Run one training step."""
        images, labels = self.batch()
        self.optimizer.zero_grad()
        self.calls = 0
        loss = cross_entropy(self.net(images), labels)
        self.forward_calls = self.calls
        loss.backward()
        self.optimizer.step()

    def bare(self, forward_calls: int, products: int) -> None:
        """Run the same number of evaluations and vector-Jacobian products without a solver."""
        images, labels = self.batch()
        self.optimizer.zero_grad()
        maps = self.net.stem(images)
        t = maps.new_tensor(0.5)
        with torch.no_grad():
            for _ in range(forward_calls):
                self.field(t, maps)
        for _ in range(products):
            y = maps.detach().requires_grad_()
            change = self.field(t, y)
            torch.autograd.grad(change, [y, *self.field.parameters()], change)
        cross_entropy(self.net.head(maps), labels).backward()
        self.optimizer.step()


def run(device: torch.device, samples: int) -> tuple[list[Result | Precision], list[Table]]:
    """Measure; return the results and their tables."""
    batches, note = images(device)
    torch.manual_seed(0)
    start = ODENet().to(device)
    trainings = {variant: Training(net.to(device), batches) for variant, net in nets(start).items()}
    print("W6: training steps", file=sys.stderr, flush=True)
    results = measured(trainings, max(samples, BATCHES), device)
    print("W6: precision", file=sys.stderr, flush=True)
    precisions = precision(trainings["neuralode tsit5 replay"].net, batches[0][0, :REFERENCE_IMAGES])
    return [*results, *precisions], [table(results, note), targets(results), precision_table(precisions)]


def images(device: torch.device) -> tuple[Batches, str]:
    """Return training batches and a sentence that describes them."""
    try:
        tensors, note = mnist().train.tensors, "Batches of MNIST."
    except OSError as error:
        tensors = (torch.rand((BATCH * BATCHES, 1, 28, 28)), torch.randint(10, (BATCH * BATCHES,)))
        note = f"Batches of noise, as MNIST is not available: {error}"
    return tuple(x[: BATCH * BATCHES].unflatten(0, (BATCHES, BATCH)).to(device) for x in tensors), note  # type: ignore[return-value]


def nets(start: Any) -> dict[str, Any]:
    """Return every variant, with the same weights."""
    variants: dict[str, Any] = {}
    for method in METHODS:
        for gradient in GRADIENTS:
            net = copy.deepcopy(start)
            net.ode.method, net.ode.gradient = method, gradient
            variants[f"neuralode {method} {gradient}"] = net
    adjoint, backprop = torchdiffeq.odeint_adjoint, torchdiffeq.odeint
    for variant, solver, time_channel, method in (
        ("torchdiffeq dopri5 adjoint", adjoint, True, "dopri5"),
        ("torchdiffeq dopri5 adjoint, our field", adjoint, False, "dopri5"),
        ("torchdiffeq bosh3 adjoint", adjoint, True, "bosh3"),
        ("torchdiffeq dopri5 backprop", backprop, True, "dopri5"),
        ("torchdiffeq dopri5 backprop, our field", backprop, False, "dopri5"),
    ):
        variants[variant] = TorchdiffeqNet(copy.deepcopy(start), solver, time_channel=time_channel, method=method)
    return variants


def measured(trainings: dict[str, Training], samples: int, device: torch.device) -> list[Result]:
    counts: dict[str, tuple[int, int]] = {}
    runs: dict[str, Callable[[], None]] = {}
    for variant, training in trainings.items():
        runs[variant] = training.step
        training.step()
        counts[variant] = training.forward_calls, training.calls - training.forward_calls
        if variant.endswith("replay"):
            bare = Training(copy.deepcopy(training.net), training.batches).bare
            runs[f"{variant}, bare"] = partial(bare, *counts[variant])
    timings = interleaved(runs, samples, device)
    return [
        Result(
            variant,
            timings[variant],
            *counts[variant],
            peak=peak_bytes(training.step, device),
            bare=timings.get(f"{variant}, bare"),
        )
        for variant, training in trainings.items()
    ]


def precision(net: Any, images: Tensor) -> list[Precision]:
    """Return errors of the feature maps after the ODE block, against a solve in float64."""
    results = []
    with torch.no_grad():
        maps, field = net.stem(images), net.ode.f
        reference = copy.deepcopy(field).double()
        exact = solve(reference, maps.double(), (0.0, 1.0), rtol=REFERENCE_TOLERANCE, atol=REFERENCE_TOLERANCE).y1
        for method in METHODS:
            for tolerance in TOLERANCES:
                solution = solve(field, maps, (0.0, 1.0), method=method, rtol=tolerance, atol=tolerance)
                error = float((solution.y1 - exact).square().mean().sqrt())
                evaluations = int(solution.stats.evaluations.max())
                results.append(Precision(method, tolerance, evaluations=evaluations, error=error))
    return results


def table(results: list[Result], note: str) -> Table:
    [reference] = [r.timing.median for r in results if r.variant == "torchdiffeq dopri5 adjoint"]
    rows = [
        [
            r.variant,
            str(r.timing),
            f"{r.timing.median / reference:.2f}",
            f"{r.forward_calls} + {r.backward_calls}",
            f"{r.peak / 2**20:.0f}",
            f"{r.timing.median / r.bare.median:.2f}" if r.bare else "–",
        ]
        for r in results
    ]
    columns = ["variant", "ms (range)", "of torchdiffeq's adjoint", "calls of f", "peak, MiB", "overhead"]
    note = (
        f"{note} Calls forward + backward, on the first batch. Overhead: over the same bare evaluations and products."
    )
    return Table(f"W6: ODE-Net, batch {BATCH}, tolerance {TOLERANCE:g}", columns, rows, note=note)


def targets(results: list[Result]) -> Table:
    """Tabulate times relative to torchdiffeq, with the paper's field and with ours."""
    by = {r.variant: r.timing.median for r in results}
    peers = [variant for variant in by if "torchdiffeq" in variant and "adjoint" in variant]
    rows = [
        [variant, *(f"{ms / by[peer]:.2f}" for peer in peers)]
        for variant, ms in by.items()
        if variant.startswith("neuralode")
    ]
    return Table("W6 over torchdiffeq", ["variant", *peers], rows, note="Goal: at most 0.6.")


def precision_table(results: list[Precision]) -> Table:
    rows = [[p.method, f"{p.tolerance:g}", str(p.evaluations), f"{p.error:.1e}"] for p in results]
    note = f"Root mean square error of feature maps of magnitude about 1, against float64 at {REFERENCE_TOLERANCE:g}."
    return Table("W6 precision of one solve", ["method", "tolerance", "evaluations", "error"], rows, note=note)
