"""W7, flow sampling: time of 50 Euler steps over the time of 50 bare calls of the field, both compiled or both eager.

"eager" and "compiled field" run the same Python code around the field. "compiled whole" compiles all 50 steps into one
graph, and is compared with 50 calls of the compiled field.
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.timing import Table, Timing, interleaved
from neuralode.nn.flows import sample

STEPS = 50
BATCHES = (256, 1)
FEATURES, WIDTH = 64, 256


@dataclass(frozen=True)
class Result:
    """One variant of sampling at one batch size."""

    batch: int
    variant: str
    sampling: Timing
    bare: Timing
    overhead: float


class TimedField(nn.Module):
    """MLP of (t, x) with two hidden layers and PyTorch's default initialization, seed 0."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.net = nn.Sequential(
            nn.Linear(FEATURES + 1, WIDTH),
            nn.SiLU(),
            nn.Linear(WIDTH, WIDTH),
            nn.SiLU(),
            nn.Linear(WIDTH, FEATURES),
        )

    def forward(self, t: Tensor, x: Tensor) -> Tensor:
        return self.net(torch.cat((x, t.expand(len(x), 1)), 1))


def bare(field: Callable[..., Tensor], t: Tensor, x: Tensor) -> None:
    """Evaluate the field as often as the sampler does."""
    with torch.no_grad():
        for _ in range(STEPS):
            field(t, x)


def sampled(field: Callable[..., Tensor], x: Tensor) -> Tensor:
    return sample(field, x, steps=STEPS).x


def run(device: torch.device, samples: int) -> tuple[list[Result], list[Table]]:
    """Measure both batch sizes; return the results and their table."""
    results = []
    for batch in BATCHES:
        print(f"W7: batch {batch}", file=sys.stderr, flush=True)
        results += measure(batch, device, samples)
    rows = [[str(r.batch), r.variant, str(r.sampling), str(r.bare), f"{r.overhead:.2f}"] for r in results]
    columns = ["batch", "field", "50 steps, ms (range)", "50 bare calls, ms (range)", "overhead"]
    return results, [Table(f"W7 flow sampling, {FEATURES} features, width {WIDTH}", columns, rows)]


def measure(batch: int, device: torch.device, samples: int) -> list[Result]:
    field = TimedField().to(device)
    x = torch.randn(batch, FEATURES, generator=torch.Generator().manual_seed(0)).to(device)
    t = torch.full((), 0.5, device=device)
    torch.compiler.reset()  # compile each batch size separately, without dynamic shapes
    compiled, whole = torch.compile(field), torch.compile(partial(sampled, field), fullgraph=True)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Dynamo detected a call to a `functools.lru_cache`")
        whole(x)
    runs: dict[str, Callable[[], Any]] = {
        "eager": partial(sampled, field, x),
        "eager bare": partial(bare, field, t, x),
        "compiled field": partial(sampled, compiled, x),
        "compiled bare": partial(bare, compiled, t, x),
        "compiled whole": partial(whole, x),
    }
    timings = interleaved(runs, samples, device)
    pairs = {"eager": "eager bare", "compiled field": "compiled bare", "compiled whole": "compiled bare"}
    return [
        Result(
            batch,
            variant,
            sampling=timings[variant],
            bare=timings[baseline],
            overhead=timings[variant].median / timings[baseline].median,
        )
        for variant, baseline in pairs.items()
    ]
