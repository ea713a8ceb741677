"""W6, the paper's ODE-Net on MNIST: a training step under every gradient, and under torchdiffeq's.

All ways begin with the same weights, take the same batches in the same order, one batch each in turn, and step the same
optimizer; tolerances are the paper's, 1e-3. torchdiffeq is given the field as the paper's authors write it, the time
laid out as a channel beside the others, and also as `ConvField` computes it, so that the share of the field in what is
gained is seen. Wanted is at most 0.6 of the time of torchdiffeq's adjoint, on two threads (``--threads 2``).
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
TRIED = (1e-3, 1e-2, 1e-1)  # tolerances whose error is measured
REFERENCE_IMAGES, REFERENCE_TOLERANCE = 32, 1e-7  # in float64

Batches = tuple[Tensor, Tensor]  # images and labels, [BATCHES, BATCH, ...]


@dataclass(frozen=True)
class Result:
    """One way to a training step; calls of the field going forward and back."""

    way: str
    timing: Timing
    forward_calls: int
    backward_calls: int
    peak: int
    bare: Timing | None  # the same number of evaluations and products, and no solver


@dataclass(frozen=True)
class Precision:
    """What a method makes of a tolerance: root mean square error of the feature maps, whose size is about 1."""

    method: str
    tolerance: float
    evaluations: int
    error: float


class ChannelField(ConvField):
    """The same field as the paper's authors write it: the time is a channel beside the others."""

    def forward(self, t: Tensor, y: Tensor) -> Tensor:
        y = self.conv1(self._with_time(t, torch.relu(self.norm1(y))))
        y = self.conv2(self._with_time(t, torch.relu(self.norm2(y))))
        return self.norm3(y)

    @staticmethod
    def _with_time(t: Tensor, y: Tensor) -> Tensor:
        return torch.cat([torch.ones_like(y[:, :1]) * t, y], dim=1)


class Theirs(nn.Module):
    """The net with torchdiffeq in the middle."""

    def __init__(self, net: Any, solver: Callable[..., Any], as_a_channel: bool, method: str) -> None:
        super().__init__()
        self.stem, self.head, self.solver, self.method = net.stem, net.head, solver, method
        self.field: Any = ChannelField(net.head[-1].in_features) if as_a_channel else net.ode.f
        self.field.load_state_dict(net.ode.f.state_dict())
        self.register_buffer("t", torch.tensor([0.0, 1.0]))

    def forward(self, images: Tensor) -> Tensor:
        ends = self.solver(self.field, self.stem(images), self.t, rtol=TOLERANCE, atol=TOLERANCE, method=self.method)
        return self.head(ends[1])


class Training:
    """A net on its way, and how often its field is called."""

    def __init__(self, net: Any, batches: Batches) -> None:
        self.net, self.batches, self.place = net, batches, 0
        self.field: Any = net.field if isinstance(net, Theirs) else net.ode.f
        self.optimizer = torch.optim.AdamW(net.parameters(), LEARNING_RATE)
        self.calls, self.forward_calls = 0, 0
        self.field.register_forward_pre_hook(self._called)

    def _called(self, *_: Any) -> None:
        self.calls += 1

    def batch(self) -> Iterator[Tensor]:
        self.place = (self.place + 1) % len(self.batches[0])
        return (part[self.place] for part in self.batches)

    def step(self) -> None:
        """One step of training."""
        images, labels = self.batch()
        self.optimizer.zero_grad()
        self.calls = 0
        loss = cross_entropy(self.net(images), labels)
        self.forward_calls = self.calls
        loss.backward()
        self.optimizer.step()

    def bare(self, forward_calls: int, products: int) -> None:
        """The same without a solver: so many evaluations of the field, and so many with their product."""
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
    """Measure; returns the results and the tables that show them."""
    batches, note = images(device)
    torch.manual_seed(0)
    start = ODENet().to(device)
    trainings = {way: Training(net.to(device), batches) for way, net in nets(start).items()}
    print("W6: training steps", file=sys.stderr, flush=True)
    results = measured(trainings, max(samples, BATCHES), device)
    print("W6: precision", file=sys.stderr, flush=True)
    precisions = precision(trainings["neuralode tsit5 replay"].net, batches[0][0, :REFERENCE_IMAGES])
    return [*results, *precisions], [table(results, note), targets(results), precision_table(precisions)]


def images(device: torch.device) -> tuple[Batches, str]:
    """Batches to learn from, and what they are."""
    try:
        tensors, note = mnist().train.tensors, "Batches of MNIST."
    except OSError as absent:
        tensors = (torch.rand(BATCH * BATCHES, 1, 28, 28), torch.randint(10, (BATCH * BATCHES,)))
        note = f"Batches of noise, as MNIST is not here: {absent}"
    return tuple(x[: BATCH * BATCHES].unflatten(0, (BATCHES, BATCH)).to(device) for x in tensors), note  # type: ignore[return-value]


def nets(start: Any) -> dict[str, Any]:
    """Every way, from the same weights."""
    ways: dict[str, Any] = {}
    for method in METHODS:
        for gradient in GRADIENTS:
            net = copy.deepcopy(start)
            net.ode.method, net.ode.gradient = method, gradient
            ways[f"neuralode {method} {gradient}"] = net
    adjoint, backprop = torchdiffeq.odeint_adjoint, torchdiffeq.odeint
    for way, solver, as_a_channel, method in (
        ("torchdiffeq dopri5 adjoint", adjoint, True, "dopri5"),
        ("torchdiffeq dopri5 adjoint, our field", adjoint, False, "dopri5"),
        ("torchdiffeq bosh3 adjoint", adjoint, True, "bosh3"),
        ("torchdiffeq dopri5 backprop", backprop, True, "dopri5"),
        ("torchdiffeq dopri5 backprop, our field", backprop, False, "dopri5"),
    ):
        ways[way] = Theirs(copy.deepcopy(start), solver, as_a_channel, method)
    return ways


def measured(trainings: dict[str, Training], samples: int, device: torch.device) -> list[Result]:
    counts: dict[str, tuple[int, int]] = {}
    runs: dict[str, Callable[[], None]] = {}
    for way, one in trainings.items():
        runs[way] = one.step
        one.step()
        counts[way] = one.forward_calls, one.calls - one.forward_calls
        if way.endswith("replay"):
            runs[f"{way}, bare"] = partial(Training(copy.deepcopy(one.net), one.batches).bare, *counts[way])
    timings = interleaved(runs, samples, device)
    return [
        Result(way, timings[way], *counts[way], peak_bytes(one.step, device), timings.get(f"{way}, bare"))
        for way, one in trainings.items()
    ]


def precision(net: Any, some: Tensor) -> list[Precision]:
    """Errors of the feature maps that the block gives, against a solve in float64."""
    found = []
    with torch.no_grad():
        maps, field = net.stem(some), net.ode.f
        reference = copy.deepcopy(field).double()
        true = solve(reference, maps.double(), (0.0, 1.0), rtol=REFERENCE_TOLERANCE, atol=REFERENCE_TOLERANCE).y1
        for method in METHODS:
            for tolerance in TRIED:
                solution = solve(field, maps, (0.0, 1.0), method=method, rtol=tolerance, atol=tolerance)
                error = float((solution.y1 - true).square().mean().sqrt())
                found.append(Precision(method, tolerance, int(solution.stats.evaluations.max()), error))
    return found


def table(results: list[Result], note: str) -> Table:
    [peer] = [r.timing.median for r in results if r.way == "torchdiffeq dopri5 adjoint"]
    rows = [
        [
            r.way,
            str(r.timing),
            f"{r.timing.median / peer:.2f}",
            f"{r.forward_calls} + {r.backward_calls}",
            f"{r.peak / 2**20:.0f}",
            f"{r.timing.median / r.bare.median:.2f}" if r.bare else "–",
        ]
        for r in results
    ]
    columns = ["way", "ms (range)", "of torchdiffeq's adjoint", "calls of f", "peak, MiB", "tax"]
    note = f"{note} Calls going forward + back, at the first batch. Tax: over as many bare evaluations and products."
    return Table(f"W6: ODE-Net, batch {BATCH}, tolerance {TOLERANCE:g}", columns, rows, note)


def targets(results: list[Result]) -> Table:
    """How far we are ahead, with the field as the paper has it and with ours in torchdiffeq too."""
    by = {r.way: r.timing.median for r in results}
    peers = [way for way in by if "torchdiffeq" in way and "adjoint" in way]
    rows = [[way, *(f"{ms / by[peer]:.2f}" for peer in peers)] for way, ms in by.items() if way.startswith("neuralode")]
    return Table("W6 over torchdiffeq", ["way", *peers], rows, "Wanted: at most 0.6.")


def precision_table(found: list[Precision]) -> Table:
    rows = [[p.method, f"{p.tolerance:g}", str(p.evaluations), f"{p.error:.1e}"] for p in found]
    note = f"Root mean square error of feature maps of size about 1, against float64 at {REFERENCE_TOLERANCE:g}."
    return Table("W6 precision of one solve", ["method", "tolerance", "evaluations", "error"], rows, note)
