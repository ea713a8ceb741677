"""Integrals of Lagrange polynomials: the weights of linear multistep methods on any grid."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import TypeAlias

import numpy as np
import torch
from torch import Tensor

from neuralode.core.clock import Number, host

ROUNDING = 1e-9  # nodes this close to an integer are rounded to it

# the coefficients of θ, θ², … for each slope: rows of floats, or a tensor [*clocks, slopes, degree]
Polynomials: TypeAlias = tuple[tuple[float, ...], ...] | Tensor


def lagrange_integrals(h: Number, sizes: Sequence[Number], *, implicit: bool) -> Polynomials:
    """Return ∫₀^θ Lⱼ for the new point (if ``implicit``), the present one, and those before it.

    ``sizes`` are the sizes of the steps between the earlier points, the latest first.
    """
    if isinstance(h, Tensor):
        return _lagrange_integrals_by_row(h, sizes, implicit)
    nodes, at = [1.0] if implicit else [], 0.0
    for size in (0.0, *sizes):
        at -= host(size) / h
        nodes.append(float(round(at)) if abs(at - round(at)) < ROUNDING else at)
    return _integrals_at(tuple(nodes))


def _lagrange_integrals_by_row(h: Tensor, sizes: Sequence[Number], implicit: bool) -> Tensor:
    nonzero = torch.where(h == 0, 1, h)  # rows with h = 0 take no step
    at, nodes = torch.zeros_like(nonzero), [torch.ones_like(nonzero)] if implicit else []
    nodes.append(at)
    for size in sizes:
        at = at - torch.where(h == 0, 1, torch.as_tensor(size, dtype=h.dtype, device=h.device) / nonzero)
        nodes.append(at)
    c = torch.stack(nodes, -1)
    powers = torch.arange(len(nodes), dtype=h.dtype, device=h.device)
    vandermonde = torch.stack([c**n for n in range(len(nodes))], -2)  # [*clocks, power, node]
    return torch.linalg.inv(vandermonde) / (powers + 1)


@lru_cache(maxsize=256)
def _integrals_at(nodes: tuple[float, ...]) -> tuple[tuple[float, ...], ...]:
    count = len(nodes)
    inverse = np.linalg.inv(np.vander(nodes, count, increasing=True).T)
    return tuple(map(tuple, (inverse / np.arange(1, count + 1)).tolist()))
