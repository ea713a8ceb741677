"""Field of W1 and W8, which counts its calls."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class Size:
    """Batch, dimension and width of a small neural ODE."""

    batch: int
    dim: int
    width: int

    def __str__(self) -> str:
        return f"{self.batch}, {self.dim}, {self.width}"


SIZES = (Size(1, 2, 64), Size(128, 2, 64), Size(1024, 2, 64), Size(128, 64, 256))


class SmallField(nn.Module):
    """f = 3·MLP(y) with two hidden tanh layers and PyTorch's default initialization, seed 0."""

    def __init__(self, size: Size) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.net = nn.Sequential(
            nn.Linear(size.dim, size.width),
            nn.Tanh(),
            nn.Linear(size.width, size.width),
            nn.Tanh(),
            nn.Linear(size.width, size.dim),
        )
        self.calls = 0

    def forward(self, t: Tensor, y: Tensor) -> Tensor:
        self.calls += 1
        return 3 * self.net(y)


def start(size: Size) -> Tensor:
    """Return the initial states, equal for all libraries."""
    return torch.randn(size.batch, size.dim, generator=torch.Generator().manual_seed(0))
