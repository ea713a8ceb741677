"""Cost of an f that uses a tensor computed before the solve, such as the output of an encoder in a conditional flow.

A training step of an MLP of 2 × 64 units over (y, code), batch 64, tsit5 at 1e-4. "computed": the code is the output of
an encoder; "given": the same code, detached. ``python -m benchmarks condition``.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.timing import Table, Timing, interleaved
from neuralode import solve

ROWS, INPUTS, CODE, STATE, WIDTH = 64, 8, 16, 2, 64
CLOCKS = {"shared": False, "per sample": True}
GRADIENTS = ("replay", "adjoint", "direct")


@dataclass(frozen=True)
class Step:
    """One training step: gradient, clock, source of the code, and time."""

    gradient: str
    clock: str
    code: str
    milliseconds: Timing


class Conditional(nn.Module):
    """A field of (y, code) and the encoder of the code."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.Linear(INPUTS, CODE)
        self.field = nn.Sequential(
            nn.Linear(STATE + CODE, WIDTH), nn.Tanh(), nn.Linear(WIDTH, WIDTH), nn.Tanh(), nn.Linear(WIDTH, STATE)
        )

    def f(self, code: Tensor) -> Callable[[Tensor, Tensor], Tensor]:
        """Return the field with a given code."""
        return lambda t, y: self.field(torch.cat((y, code), 1))


def run(device: torch.device, samples: int) -> tuple[list[Step], list[Table]]:
    """Measure every gradient on both clocks, with both codes."""
    torch.manual_seed(0)
    model = Conditional().to(device)
    inputs, y0 = torch.randn(ROWS, INPUTS, device=device), torch.randn(ROWS, STATE, device=device)

    def step(gradient: str, per_sample: bool, computed: bool) -> Callable[[], Any]:
        def run_once() -> None:
            code = model.encoder(inputs)
            f = model.f(code if computed else code.detach())
            sol = solve(f, y0, (0.0, 3.0), gradient=gradient, per_sample=per_sample, rtol=1e-4, atol=1e-4)
            sol.y1.square().sum().backward()

        return run_once

    runs = {
        (gradient, clock, code): step(gradient, CLOCKS[clock], code == "computed")
        for gradient in GRADIENTS
        for clock in CLOCKS
        for code in ("computed", "given")
    }
    times = interleaved({" ".join(name): run_once for name, run_once in runs.items()}, samples, device)
    steps = [Step(*name, times[" ".join(name)]) for name in runs]
    rows = [
        (
            computed.gradient,
            computed.clock,
            str(computed.milliseconds),
            str(given.milliseconds),
            f"{computed.milliseconds.median / given.milliseconds.median:.2f}",
        )
        for computed, given in zip(steps[::2], steps[1::2], strict=True)
    ]
    columns = ("gradient", "clock", "computed, ms", "given, ms", "ratio")
    return steps, [Table("Training step of an f that uses the output of an encoder", columns, rows)]
