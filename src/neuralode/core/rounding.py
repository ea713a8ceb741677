"""Equality of two evaluations of the same function, up to rounding."""

from __future__ import annotations

import torch
from torch import Tensor


def rounding_slack(dtype: torch.dtype) -> float:
    """Return the relative difference that two kernels for the same sum may show: half of the digits."""
    return torch.finfo(dtype).eps ** 0.5


def equal_up_to_rounding(a: Tensor, b: Tensor) -> bool:
    """Return whether two tensors of one shape agree, relative to the largest finite value, and are finite alike.

    Examples
    --------
    >>> equal_up_to_rounding(torch.tensor([1.0, 2.0]), torch.tensor([1.0, 2.0 + 1e-6]))
    True
    >>> equal_up_to_rounding(torch.tensor([1.0, torch.nan]), torch.tensor([1.0, 2.0]))
    False
    """
    if a.shape != b.shape:
        return False
    if not a.numel():
        return True
    finite = a.isfinite()
    if not torch.equal(finite, b.isfinite()):
        return False
    slack = rounding_slack(a.dtype) * torch.where(finite, a.abs(), 0).amax()
    return bool((torch.where(finite, (a - b).abs(), 0) <= slack).all())
