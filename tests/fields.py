"""Fields, registered methods and small measuring tools that several test files share."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

import neuralode
from neuralode import Given

# what steps any state, and what steps pairs (q, p): the contracts of these are in contracts/test_partitioned.py
METHODS = {name: method for name, method in neuralode.methods().items() if not method.partitioned}
PARTITIONED = {name: method for name, method in neuralode.methods().items() if method.partitioned}
ADAPTIVE = [name for name, method in METHODS.items() if method.adaptive]
FIXED = [name for name, method in METHODS.items() if not method.adaptive]
ORDER = {name: method.order for name, method in METHODS.items()}

assert {"euler", "midpoint", "heun2", "rk4"} <= set(FIXED)
assert {"bosh3", "dopri5", "tsit5"} <= set(ADAPTIVE)
assert {"leapfrog", "yoshida4"} <= set(PARTITIONED)


def even_steps(method: str, t0: float, t1: float, steps: int) -> dict[str, Any]:
    """Keywords with which ``method`` takes this many equal steps."""
    if method in FIXED:
        return {"step_size": abs(t1 - t0) / steps}
    return {"controller": Given(torch.linspace(t0, t1, steps + 1, dtype=torch.float64))}


class Counting:
    """A field that counts its calls and remembers what it was called with."""

    def __init__(self, f: Callable[..., Any]) -> None:
        self.f = f
        self.calls = 0
        self.batches: list[int] = []
        self.times: list[Tensor] = []

    def __call__(self, t: Tensor, y: Any, *args: Any) -> Any:
        self.calls += 1
        if isinstance(y, Tensor) and y.ndim:
            self.batches.append(y.shape[0])
        self.times.append(t.detach().clone())
        return self.f(t, y, *args)


def relative_error(found: Tensor, wanted: Tensor) -> float:
    """Distance over size; the size must not be zero, so that nothing is compared with nothing."""
    size = torch.linalg.vector_norm(wanted.detach())
    assert size > 1e-6, "the reference is zero: the comparison would be empty"
    return float(torch.linalg.vector_norm(found.detach() - wanted.detach()) / size)


def slope(sizes: list[float], errors: list[float]) -> float:
    """Least-squares slope of log error against log step size."""
    x = torch.tensor(sizes, dtype=torch.float64).log()
    y = torch.tensor(errors, dtype=torch.float64).log()
    x = x - x.mean()
    return float((x * y).sum() / (x * x).sum())
