"""W8, solver overhead: time of a solve over the time of the same number of bare evaluations of f. The limit is 1."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from benchmarks.fields import SIZES, Size, SmallField, start
from benchmarks.timing import Table, Timing, interleaved
from benchmarks.w1 import FORWARD, OUTPUTS, SPAN, forward_of


@dataclass(frozen=True)
class Result:
    """One solver at one size."""

    size: Size
    solver: str
    calls: int
    solve: Timing
    bare: Timing
    overhead: float


def bare(f: SmallField, y0: Tensor, t: Tensor, calls: int) -> None:
    """Evaluate f ``calls`` times."""
    with torch.no_grad():
        for _ in range(calls):
            f(t, y0)


def run(device: torch.device, samples: int) -> tuple[list[Result], list[Table]]:
    """Measure every size; return the results and their table."""
    results = []
    for size in SIZES:
        print(f"W8: {size}", file=sys.stderr, flush=True)
        results += measure(size, device, samples)
    rows = [[str(r.size), r.solver, str(r.calls), str(r.solve), str(r.bare), f"{r.overhead:.2f}"] for r in results]
    columns = ["batch, dim, width", "solver", "calls", "solve, ms (range)", "bare calls, ms (range)", "overhead"]
    note = "Goal: at most 1.2 at (128, 64, 256)."
    return results, [Table("W8 solver overhead, eager", columns, rows, note=note)]


def measure(size: Size, device: torch.device, samples: int) -> list[Result]:
    f, y0 = SmallField(size).to(device), start(size).to(device)
    t = torch.linspace(0, SPAN, OUTPUTS, device=device)
    problem = f, y0, t
    runs, calls = {}, {}
    for name, solver in FORWARD.items():
        f.calls = 0
        forward_of(solver, *problem)
        calls[name] = f.calls
        runs[name] = partial(forward_of, solver, *problem)
        runs[f"{name} bare"] = partial(bare, f, y0, t=t[0], calls=calls[name])
    timings = interleaved(runs, samples, device)
    return [
        Result(
            size,
            name,
            calls[name],
            solve=timings[name],
            bare=timings[f"{name} bare"],
            overhead=timings[name].median / timings[f"{name} bare"].median,
        )
        for name in FORWARD
    ]
