"""Linear combinations of stages."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import torch
from torch import Tensor


def combine(weights: tuple[float, ...], terms: Sequence[Tensor]) -> tuple[float, Tensor]:
    """Return Σ wᵢ xᵢ as a factor and a tensor: w₁ and x₁ + Σ (wᵢ / w₁) xᵢ, with one operation for each further term.

    Terms with a zero weight are skipped. A single term is returned itself: do not write into the result.
    """
    first, pivot, rest = _pivoted(weights)
    total = terms[first]
    for n, (i, weight) in enumerate(rest):
        total = total.add_(terms[i], alpha=weight) if n else torch.add(total, terms[i], alpha=weight)
    return pivot, total


@lru_cache(maxsize=1024)
def _pivoted(weights: tuple[float, ...]) -> tuple[int, float, list[tuple[int, float]]]:
    # all weights of the dense output are zero at θ = 0
    (first, pivot), *rest = [(i, weight) for i, weight in enumerate(weights) if weight] or [(0, 0.0)]
    return first, pivot, [(i, weight / pivot) for i, weight in rest]


def weighted_sum(weights: tuple[float, ...], terms: Sequence[Tensor]) -> Tensor:
    """Return Σ wᵢ xᵢ, zeros if all weights are zero."""
    if not any(weights):
        return torch.zeros_like(terms[0])
    pivot, total = combine(weights, terms)
    return total if pivot == 1 else total * pivot


def add_weighted(y: Tensor, weights: tuple[float, ...], terms: Sequence[Tensor]) -> Tensor:
    """Return y + Σ wᵢ xᵢ."""
    if not any(weights):
        return y
    pivot, total = combine(weights, terms)
    return torch.add(y, total, alpha=pivot)
