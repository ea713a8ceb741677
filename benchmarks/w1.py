"""W1, small neural ODE: forward, and the gradient of the sum of its outputs with respect to the parameters.

All rows of a table are measured in turn in one run. "calls" counts evaluations of f, which shows whether libraries do
equal work. "error" is the relative distance to a float64 solve at tolerance 1e-12.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
import torchdiffeq
from torch import Tensor

from benchmarks.fields import SIZES, Size, SmallField, start
from benchmarks.timing import Table, Timing, interleaved
from neuralode import solve

TOLERANCE = 1e-6
OUTPUTS = 11
SPAN = 10.0

Solver = Callable[[SmallField, Tensor, Tensor], Tensor]


def ours(gradient: str, f: SmallField, y0: Tensor, t: Tensor) -> Tensor:
    return solve(f, y0, t, method="dopri5", rtol=TOLERANCE, atol=TOLERANCE, gradient=gradient).ys


def torchdiffeq_backprop(f: SmallField, y0: Tensor, t: Tensor) -> Tensor:
    return torchdiffeq.odeint(f, y0, t, method="dopri5", rtol=TOLERANCE, atol=TOLERANCE)  # type: ignore[return-value]


def torchdiffeq_adjoint(f: SmallField, y0: Tensor, t: Tensor) -> Tensor:
    return torchdiffeq.odeint_adjoint(f, y0, t, method="dopri5", rtol=TOLERANCE, atol=TOLERANCE)  # type: ignore[return-value]


FORWARD: dict[str, Solver] = {"neuralode": partial(ours, "replay"), "torchdiffeq": torchdiffeq_backprop}
GRADIENT: dict[str, Solver] = {
    "neuralode replay": partial(ours, "replay"),
    "neuralode direct": partial(ours, "direct"),
    "neuralode adjoint": partial(ours, "adjoint"),
    "torchdiffeq backprop": torchdiffeq_backprop,
    "torchdiffeq adjoint": torchdiffeq_adjoint,
}


@dataclass(frozen=True)
class Result:
    """One solver at one size."""

    size: Size
    what: str
    solver: str
    timing: Timing
    calls_forward: int
    calls_backward: int
    error: float


def gradient_of(solver: Solver, f: SmallField, y0: Tensor, t: Tensor) -> list[Tensor]:
    ys = solver(f, y0, t)
    return list(torch.autograd.grad(ys.sum(), list(f.parameters())))


def forward_of(solver: Solver, f: SmallField, y0: Tensor, t: Tensor) -> Tensor:
    with torch.no_grad():
        return solver(f, y0, t)


def reference(size: Size) -> tuple[Tensor, Tensor]:
    """Return outputs and gradient in float64, by torchdiffeq's dopri8 on the CPU."""
    f, y0 = SmallField(size).double(), start(size).double()
    t = torch.linspace(0, SPAN, OUTPUTS, dtype=torch.float64)
    ys = torchdiffeq.odeint(f, y0, t, method="dopri8", rtol=1e-12, atol=1e-12)
    assert isinstance(ys, Tensor)
    return ys.detach(), _flat(list(torch.autograd.grad(ys.sum(), list(f.parameters()))))


def run(device: torch.device, samples: int) -> tuple[list[Result], list[Table]]:
    """Measure every size; return the results and their tables."""
    results = []
    for size in SIZES:
        print(f"W1: {size}", file=sys.stderr, flush=True)
        results += measure(size, device, samples)
    return results, [table(results, "forward"), table(results, "forward + gradient"), targets(results)]


def measure(size: Size, device: torch.device, samples: int) -> list[Result]:
    f = SmallField(size).to(device)
    problem = f, start(size).to(device), torch.linspace(0, SPAN, OUTPUTS, device=device)
    expected_ys, expected_gradient = reference(size)

    timings = interleaved({name: partial(forward_of, s, *problem) for name, s in FORWARD.items()}, samples, device)
    results = []
    for name, solver in FORWARD.items():
        f.calls = 0
        error = _relative(forward_of(solver, *problem), expected_ys)
        calls = {"calls_forward": f.calls, "calls_backward": 0}
        results.append(Result(size, "forward", name, timing=timings[name], **calls, error=error))

    timings = interleaved({name: partial(gradient_of, s, *problem) for name, s in GRADIENT.items()}, samples, device)
    for name, solver in GRADIENT.items():
        f.calls = 0
        ys = solver(*problem)
        forward_calls = f.calls
        gradient = _flat(list(torch.autograd.grad(ys.sum(), list(f.parameters()))))
        calls = {"calls_forward": forward_calls, "calls_backward": f.calls - forward_calls}
        error = _relative(gradient, expected_gradient)
        results.append(Result(size, "forward + gradient", name, timing=timings[name], **calls, error=error))
    return results


def table(results: list[Result], what: str) -> Table:
    rows = [
        [str(r.size), r.solver, str(r.timing), str(r.calls_forward), str(r.calls_backward), f"{r.error:.1e}"]
        for r in results
        if r.what == what
    ]
    columns = ["batch, dim, width", "solver", "ms (range)", "calls forward", "calls backward", "error"]
    return Table(f"W1 {what}", columns, rows)


def targets(results: list[Result]) -> Table:
    """Tabulate the speedup over torchdiffeq."""
    median = {(r.size, r.what, r.solver): r.timing.median for r in results}
    compared = {
        "forward": ("forward", "torchdiffeq", "neuralode"),
        "replay vs adjoint": ("forward + gradient", "torchdiffeq adjoint", "neuralode replay"),
        "replay vs backprop": ("forward + gradient", "torchdiffeq backprop", "neuralode replay"),
        "direct vs backprop": ("forward + gradient", "torchdiffeq backprop", "neuralode direct"),
        "adjoint vs adjoint": ("forward + gradient", "torchdiffeq adjoint", "neuralode adjoint"),
    }
    rows = [
        [
            str(size),
            *(f"{median[size, what, t] / median[size, what, n]:.2f}×" for what, t, n in compared.values()),
        ]
        for size in dict.fromkeys(r.size for r in results)
    ]
    note = (
        "Speedup over torchdiffeq; gradients include their forward pass. Goal: forward ≥ 3 at (1, 2, 64) and ≥ 1.5 at "
        "(128, 64, 256); replay vs adjoint ≥ 3 at every size."
    )
    return Table("W1 against torchdiffeq", ["batch, dim, width", *compared], rows, note=note)


def _flat(tensors: list[Tensor]) -> Tensor:
    return torch.cat([x.reshape(-1) for x in tensors])


def _relative(result: Tensor, expected: Tensor) -> float:
    return float((result.detach().cpu().double() - expected).norm() / expected.norm())
