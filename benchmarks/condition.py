"""What it costs that f uses a tensor computed before the solve: an encoder's answer, as a conditional flow has.

A training step of an MLP of 2 × 64 units over (y, code), batch 64, tsit5 at 1e-4: "computed" has its code from an
encoder, "given" the same code as constants, and nothing else to do. ``python -m benchmarks condition``.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.timing import Table, Timing, interleaved
from neuralode import solve

ROWS, SEEN, CODE, STATE, WIDTH = 64, 8, 16, 2, 64
CLOCKS = {"shared": False, "per sample": True}
GRADIENTS = ("replay", "adjoint", "direct")


@dataclass(frozen=True)
class Step:
    """A training step: the gradient, the clock, where the code is from, and how long it takes."""

    gradient: str
    clock: str
    code: str
    milliseconds: Timing


class Conditional(nn.Module):
    """A field of (y, code), and the encoder of the code."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.Linear(SEEN, CODE)
        self.field = nn.Sequential(
            nn.Linear(STATE + CODE, WIDTH), nn.Tanh(), nn.Linear(WIDTH, WIDTH), nn.Tanh(), nn.Linear(WIDTH, STATE)
        )

    def f(self, code: Tensor) -> Callable[[Tensor, Tensor], Tensor]:
        """The field where the code is this one."""
        return lambda t, y: self.field(torch.cat((y, code), 1))


def run(device: torch.device, samples: int) -> tuple[list[Step], list[Table]]:
    """Every gradient on both clocks, both codes in turn."""
    torch.manual_seed(0)
    model = Conditional().to(device)
    seen, y0 = torch.randn(ROWS, SEEN, device=device), torch.randn(ROWS, STATE, device=device)

    def step(gradient: str, per_sample: bool, computed: bool) -> Callable[[], Any]:
        def once() -> None:
            code = model.encoder(seen)
            f = model.f(code if computed else code.detach())
            sol = solve(f, y0, (0.0, 3.0), gradient=gradient, per_sample=per_sample, rtol=1e-4, atol=1e-4)
            sol.y1.square().sum().backward()

        return once

    runs = {
        (gradient, clock, code): step(gradient, CLOCKS[clock], code == "computed")
        for gradient in GRADIENTS
        for clock in CLOCKS
        for code in ("computed", "given")
    }
    times = interleaved({" ".join(name): once for name, once in runs.items()}, samples, device)
    steps = [Step(*name, times[" ".join(name)]) for name in runs]
    rows = [
        (one.gradient, one.clock, str(one.milliseconds), str(other.milliseconds),
         f"{one.milliseconds.median / other.milliseconds.median:.2f}")
        for one, other in zip(steps[::2], steps[1::2], strict=True)
    ]  # fmt: skip
    columns = ("gradient", "clock", "computed, ms", "given, ms", "ratio")
    return steps, [Table("A training step whose f uses what an encoder computed", columns, rows)]
