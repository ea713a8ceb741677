"""Random numbers from a generator on any device."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor


def random_like(
    distribution: Callable[..., Tensor],
    shape: Sequence[int],
    *,
    like: Tensor,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Draw random numbers in the dtype and on the device of another tensor.

    They are drawn on the device of the generator and then moved, so that one generator on the host gives the same
    numbers on every device.

    Parameters
    ----------
    distribution : callable
        `torch.rand` or `torch.randn`.
    shape : sequence of int
        The shape of the result.
    like : Tensor
        A tensor with the dtype and device of the result.
    generator : torch.Generator, default=None
        The source of randomness; None is torch's own.

    Returns
    -------
    Tensor
        The random numbers.

    Examples
    --------
    >>> random_like(torch.rand, (2, 3), like=torch.zeros(1), generator=torch.Generator()).shape
    torch.Size([2, 3])
    """
    device = like.device if generator is None else generator.device
    return distribution(tuple(shape), dtype=like.dtype, device=device, generator=generator).to(like.device)
