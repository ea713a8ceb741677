"""Base distributions of flows: the standard normal distribution, or a distribution of torch."""

from __future__ import annotations

import math
from collections.abc import Sequence
from numbers import Integral
from typing import Any, Protocol

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.distributions import Distribution

from neuralode.nn.flows.random_numbers import random_like


class Base(Protocol):
    """A distribution of whole samples with a log-density, from which a flow starts."""

    @property
    def event_shape(self) -> torch.Size:
        """The shape of one sample."""
        ...

    def log_prob(self, x: Any, /) -> Tensor:
        """Return the log-density of samples."""
        ...

    def sample(self, sample_shape: Any = ..., /) -> Tensor:
        """Draw samples."""
        ...


class StandardNormal(nn.Module):
    """Independent normal numbers with mean 0 and one standard deviation for all.

    It follows the module that contains it: moving or casting a flow moves and casts its base.

    Parameters
    ----------
    shape : int or sequence of int
        The shape of one sample.
    deviation : float, default=1.0
        The standard deviation, above 0.

    Raises
    ------
    ValueError
        If ``deviation`` is not a finite positive number.

    Examples
    --------
    >>> base = StandardNormal(2)
    >>> round(base.log_prob(torch.zeros(2)).item(), 4)  # -log(2 π)
    -1.8379
    >>> base.sample((5,)).shape
    torch.Size([5, 2])
    """

    origin: Tensor

    def __init__(self, shape: int | Sequence[int], deviation: float = 1.0) -> None:
        super().__init__()
        if not (math.isfinite(deviation) and deviation > 0):
            raise ValueError(f"deviation={deviation!r}; wanted a number above 0.")
        self.event_shape = torch.Size([shape] if isinstance(shape, int) else shape)
        self.deviation = deviation
        # holds dtype and device, which follow those of the module
        self.register_buffer("origin", torch.zeros(()), persistent=False)

    def log_prob(self, x: Float[Tensor, "*batch *event"]) -> Float[Tensor, "*batch"]:
        """Return the log-density of samples, in nats."""
        numbers = self.event_shape.numel()
        square = (x / self.deviation).square().reshape(*x.shape[: x.dim() - len(self.event_shape)], numbers).sum(-1)
        return -square / 2 - numbers * (math.log(2 * math.pi) / 2 + math.log(self.deviation))

    def sample(self, sample_shape: Any = (), generator: torch.Generator | None = None) -> Tensor:
        """Draw samples [*sample_shape, *event]."""
        shape = (*sample_shape, *self.event_shape)
        return self.deviation * random_like(torch.randn, shape, like=self.origin, generator=generator)

    rsample = sample  # there are no parameters to differentiate

    def extra_repr(self) -> str:
        """Return the shape and the deviation, for printing."""
        return f"{tuple(self.event_shape)}, deviation={self.deviation}"


def find_base(base: Any) -> Base:
    """Return a base distribution; a shape stands for the standard normal one.

    Parameters
    ----------
    base : int, sequence of int, or distribution
        The shape of one sample, or an object with ``log_prob``, ``sample`` and ``event_shape``.

    Raises
    ------
    TypeError
        If ``base`` is neither a shape nor a distribution with a density.
    ValueError
        If the shape has an axis below 1, or the distribution has a batch of its own or samples without an axis.

    Examples
    --------
    >>> find_base((1, 8, 8))
    StandardNormal((1, 8, 8), deviation=1.0)
    """
    shape = (base,) if isinstance(base, Integral) else base
    if isinstance(shape, Sequence) and all(isinstance(n, Integral) for n in shape):
        if not shape or any(isinstance(n, bool) or n < 1 for n in shape):
            raise ValueError(f"base={base!r}; wanted the shape of one sample, with axes of at least 1: 2 or (1, 8, 8).")
        return StandardNormal([int(n) for n in shape])
    if isinstance(base, Integral) or not all(hasattr(base, name) for name in ("log_prob", "sample", "event_shape")):
        raise TypeError(f"base is a {type(base).__name__}; wanted a shape, or a distribution with log_prob and sample.")
    if isinstance(base, Distribution) and base.batch_shape:
        raise ValueError(
            f"base has batch_shape {tuple(base.batch_shape)}; wanted one distribution of whole samples: "
            "torch.distributions.Independent(base, n) makes the last n axes of the batch part of a sample."
        )
    if not base.event_shape:
        raise ValueError("base has samples without an axis; wanted whole samples, as Independent(base, n) makes them.")
    checked: Any = base
    return checked


def sample_base(base: Base, shape: int | Sequence[int], generator: torch.Generator | None) -> Tensor:
    """Draw samples of a base distribution, differentiable by its parameters where the distribution supports that.

    Parameters
    ----------
    base : Base
        The distribution.
    shape : int or sequence of int
        How many samples, or the shape of the batch.
    generator : torch.Generator or None
        The source of randomness; None is torch's own.

    Returns
    -------
    Tensor[*shape, *event]
        The samples.

    Raises
    ------
    ValueError
        If there is a generator but the base, a distribution of torch, cannot use one.

    Examples
    --------
    >>> sample_base(StandardNormal(2), 5, torch.Generator()).shape
    torch.Size([5, 2])
    """
    batch_shape = (shape,) if isinstance(shape, int) else tuple(shape)
    if isinstance(base, StandardNormal):
        return base.sample(batch_shape, generator)
    if generator is not None:
        raise ValueError(
            f"{type(base).__name__} draws by torch's own random state, not by a generator; wanted a shape as the base "
            "(standard normal), or torch.manual_seed."
        )
    method = getattr(base, "rsample" if getattr(base, "has_rsample", False) else "sample")
    return method(torch.Size(batch_shape))
