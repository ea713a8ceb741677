"""Where flows start, a standard normal distribution that moves with its module; and what all their maps return."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from numbers import Integral
from typing import Any, NamedTuple, Protocol

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.distributions import Distribution


class Base(Protocol):
    """What a flow may start from: whole samples, and their log-density."""

    @property
    def event_shape(self) -> torch.Size:
        """Of one sample."""
        ...

    def log_prob(self, x: Any, /) -> Tensor:
        """The log-density."""
        ...

    def sample(self, sample_shape: Any = ..., /) -> Tensor:
        """Draw."""
        ...


class Moved(NamedTuple):
    """Where samples arrived.

    Attributes
    ----------
    state : Tensor[*batch, *event]
        There.
    log_det : Tensor[*batch]
        log |det ∂(there)/∂(from where)|, or its estimate.
    """

    state: Tensor
    log_det: Tensor


class StandardNormal(nn.Module):
    """Independent normal numbers of mean 0 and one deviation.

    Parameters
    ----------
    shape : int or sequence of int
        Of one sample.
    deviation : float
        Of every number.

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
        # tells dtype and device; a model that is moved or cast takes its base along
        self.register_buffer("origin", torch.zeros(()), persistent=False)

    def log_prob(self, x: Float[Tensor, "*batch *event"]) -> Float[Tensor, "*batch"]:
        """The log-density."""
        numbers = self.event_shape.numel()
        square = (x / self.deviation).square().reshape(*x.shape[: x.dim() - len(self.event_shape)], numbers).sum(-1)
        return -square / 2 - numbers * (math.log(2 * math.pi) / 2 + math.log(self.deviation))

    def sample(self, sample_shape: Any = (), generator: torch.Generator | None = None) -> Tensor:
        """Draw; by ``generator`` if there is one."""
        return self.deviation * drawn(torch.randn, (*sample_shape, *self.event_shape), self.origin, generator)

    rsample = sample  # nothing that is learned stands behind it

    def extra_repr(self) -> str:
        """Say of which shape."""
        return f"{tuple(self.event_shape)}, deviation={self.deviation}"


def find_base(base: Any) -> Base:
    """A base distribution: a shape stands for the standard normal one.

    Raises
    ------
    TypeError, ValueError
        For what has no density, or has a batch of them.

    Examples
    --------
    >>> find_base((1, 8, 8))
    StandardNormal((1, 8, 8), deviation=1.0)
    """
    shape = (base,) if isinstance(base, Integral) else base
    if isinstance(shape, Sequence) and all(isinstance(n, Integral) for n in shape):
        if not shape or any(isinstance(n, bool) or n < 1 for n in shape):
            raise ValueError(f"base={base!r}; wanted the shape of one sample, of one number at least: 2 or (1, 8, 8).")
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
    found: Any = base
    return found


def draw(base: Base, shape: int | Sequence[int], generator: torch.Generator | None) -> Tensor:
    """Samples of a base, so many or of such a shape; differentiable by what it has learned, where it can be.

    Raises
    ------
    ValueError
        For a generator where the base, a distribution of torch, cannot use one.

    Examples
    --------
    >>> draw(StandardNormal(2), 5, torch.Generator()).shape
    torch.Size([5, 2])
    """
    wanted = (shape,) if isinstance(shape, int) else tuple(shape)
    if isinstance(base, StandardNormal):
        return base.sample(wanted, generator)
    if generator is not None:
        raise ValueError(
            f"{type(base).__name__} draws by torch's own random state, not by a generator; wanted a shape as the base "
            "(standard normal), or torch.manual_seed."
        )
    method = getattr(base, "rsample" if getattr(base, "has_rsample", False) else "sample")
    return method(torch.Size(wanted))


def drawn(draw: Callable[..., Tensor], shape: Sequence[int], like: Tensor, generator: torch.Generator | None) -> Tensor:
    """Random numbers like those of a tensor; by a generator where it lives, so that one on the host serves any device.

    Examples
    --------
    >>> drawn(torch.rand, (2, 3), torch.zeros(1), torch.Generator()).shape
    torch.Size([2, 3])
    """
    device = like.device if generator is None else generator.device
    return draw(tuple(shape), dtype=like.dtype, device=device, generator=generator).to(like.device)
