"""W1, the small neural ODE: forward, and the gradient of the sum of its outputs by the parameters.

Every row of the tables is taken in one run, in turns; "calls" counts evaluations of f, so that equal work is seen to be
equal, and "error" is the distance to a float64 solve at 1e-12, relative to its size.
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
    """One solver on one size."""

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
    """Outputs and gradient in float64 by an eighth-order pair of a peer, on the CPU."""
    f, y0 = SmallField(size).double(), start(size).double()
    t = torch.linspace(0, SPAN, OUTPUTS, dtype=torch.float64)
    ys = torchdiffeq.odeint(f, y0, t, method="dopri8", rtol=1e-12, atol=1e-12)
    assert isinstance(ys, Tensor)
    return ys.detach(), _flat(list(torch.autograd.grad(ys.sum(), list(f.parameters()))))


def run(device: torch.device, samples: int) -> tuple[list[Result], list[Table]]:
    """Measure every size; returns the results and the tables that show them."""
    results = []
    for size in SIZES:
        print(f"W1: {size}", file=sys.stderr, flush=True)
        results += measure(size, device, samples)
    return results, [table(results, "forward"), table(results, "forward + gradient"), targets(results)]


def measure(size: Size, device: torch.device, samples: int) -> list[Result]:
    f, y0 = SmallField(size).to(device), start(size).to(device)
    t = torch.linspace(0, SPAN, OUTPUTS, device=device)
    wanted_ys, wanted_gradient = reference(size)

    timings = interleaved({name: partial(forward_of, s, f, y0, t) for name, s in FORWARD.items()}, samples, device)
    results = []
    for name, solver in FORWARD.items():
        f.calls = 0
        error = _relative(forward_of(solver, f, y0, t), wanted_ys)
        results.append(Result(size, "forward", name, timings[name], f.calls, 0, error))

    timings = interleaved({name: partial(gradient_of, s, f, y0, t) for name, s in GRADIENT.items()}, samples, device)
    for name, solver in GRADIENT.items():
        f.calls = 0
        ys = solver(f, y0, t)
        forward_calls = f.calls
        found = _flat(list(torch.autograd.grad(ys.sum(), list(f.parameters()))))
        calls = forward_calls, f.calls - forward_calls
        error = _relative(found, wanted_gradient)
        results.append(Result(size, "forward + gradient", name, timings[name], *calls, error))
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
    """How many times faster we are."""
    median = {(r.size, r.what, r.solver): r.timing.median for r in results}
    rows = []
    for size in dict.fromkeys(r.size for r in results):
        both = partial(_ratio, median, size, "forward + gradient")
        rows.append(
            [
                str(size),
                _ratio(median, size, "forward", "torchdiffeq", "neuralode"),
                both("torchdiffeq adjoint", "neuralode replay"),
                both("torchdiffeq backprop", "neuralode replay"),
                both("torchdiffeq backprop", "neuralode direct"),
                both("torchdiffeq adjoint", "neuralode adjoint"),
            ]
        )
    columns = [
        "batch, dim, width",
        "forward",
        "replay vs adjoint",
        "replay vs backprop",
        "direct vs backprop",
        "adjoint vs adjoint",
    ]
    note = (
        "Times faster than torchdiffeq, gradients with their forward pass. Wanted: forward ≥ 3 at (1, 2, 64) and ≥ 1.5 "
        "at (128, 64, 256); replay vs adjoint ≥ 3 everywhere."
    )
    return Table("W1 against torchdiffeq", columns, rows, note)


def _ratio(median: dict, size: Size, what: str, theirs: str, mine: str) -> str:
    return f"{median[size, what, theirs] / median[size, what, mine]:.2f}×"


def _flat(tensors: list[Tensor]) -> Tensor:
    return torch.cat([x.reshape(-1) for x in tensors])


def _relative(found: Tensor, wanted: Tensor) -> float:
    return float((found.detach().cpu().double() - wanted).norm() / wanted.norm())
