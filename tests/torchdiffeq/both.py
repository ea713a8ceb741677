"""Solve one problem with torchdiffeq and with neuralode.torchdiffeq, for values and gradients."""

from __future__ import annotations

from typing import Any

import torch
import torchdiffeq as theirs
from torch import Tensor, nn

import neuralode.torchdiffeq as ours

__all__ = ["Field", "Module", "agree", "answers", "ours", "state", "theirs"]

TIMES = torch.tensor([0.0, 0.3, 0.7, 1.2], dtype=torch.float64)


class Field(nn.Module):
    """A small time-dependent network of a tensor state, or of a tuple state with a 0-d part."""

    def __init__(self, tupled: bool) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(1)
        self.weight = nn.Parameter(torch.randn(3, 3, generator=generator, dtype=torch.float64) / 2)
        self.bias = nn.Parameter(torch.randn(3, generator=generator, dtype=torch.float64) / 2)
        self.tupled = tupled

    def forward(self, t: Tensor, y: Any) -> Any:
        if self.tupled:
            rows, level = y
            return torch.tanh(rows @ self.weight + self.bias) * torch.cos(t), t - 0.1 * level * rows.sum()
        return torch.tanh(y @ self.weight + self.bias) * torch.cos(t) - 0.1 * y


class Module(nn.Module):
    """A module that calls a function, with an optional parameter."""

    def __init__(self, function: Any, parameter: Tensor | None = None) -> None:
        super().__init__()
        self.function = function
        self.parameter = None if parameter is None else nn.Parameter(parameter)

    def forward(self, t: Tensor, y: Any) -> Any:
        return self.function(t, y) if self.parameter is None else self.function(t, y, self.parameter)


def state(tupled: bool) -> Any:
    """Return an initial state that requires gradients."""
    rows = torch.linspace(-1, 1, 12, dtype=torch.float64).reshape(4, 3).requires_grad_()
    return (rows, torch.tensor(0.5, dtype=torch.float64, requires_grad=True)) if tupled else rows


def flat(ys: Any) -> Tensor:
    """Return the outputs of any state as one tensor [times, numbers]."""
    parts = ys if isinstance(ys, tuple) else (ys,)
    return torch.cat([part.reshape(len(part), -1) for part in parts], 1)


def answers(
    library: Any, interface: str, tupled: bool, reverse: bool, learnable: bool = True, **arguments: Any
) -> dict[str, Tensor]:
    """Return the outputs of one library, and the gradients of a weighted sum of them."""
    field, y0 = Field(tupled), state(tupled)
    t = TIMES.flip(0) if reverse else TIMES
    t = t.clone().requires_grad_(learnable)
    ys = flat(getattr(library, interface)(field, y0, t, **arguments))
    weights = torch.sin(torch.arange(ys.numel(), dtype=ys.dtype).reshape(ys.shape))
    (weights * ys).sum().backward()
    leaves = {"y0": y0[0] if tupled else y0, "weight": field.weight, "bias": field.bias}
    leaves |= {"level": y0[1]} if tupled else {}
    leaves |= {"t": t} if learnable else {}
    gradients = {name: x.grad for name, x in leaves.items()}
    assert all(g is not None and g.isfinite().all() for g in gradients.values())
    return {"ys": ys.detach(), **{f"d/d{name}": g for name, g in gradients.items() if g is not None}}


def agree(a: dict[str, Tensor], b: dict[str, Tensor], tolerance: float) -> None:
    """Compare all tensors, relative to the largest element of each."""
    assert a.keys() == b.keys()
    for name, x in a.items():
        off, size = float((x - b[name]).abs().max()), float(x.abs().max())
        assert off <= tolerance * max(1.0, size), f"{name}: {off:.1e} apart, of {size:.1e}"
