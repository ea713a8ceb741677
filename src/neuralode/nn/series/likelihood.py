"""What a decoder's numbers mean: a distribution for each channel of an observation."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.distributions import Bernoulli, Normal

SCALE_MIN = 1e-3  # a smaller standard deviation (of standardised values) only chases rounding


class Likelihood(nn.Module):
    """Gaussian channels, and Bernoulli ones where values are 0 or 1.

    Parameters
    ----------
    channels : int
        Of an observation.
    binary : sequence of int
        Which of them are 0 or 1.
    scale : float, "channel" or "state"
        Standard deviation of the Gaussian channels: stated, learned once for each channel, or decoded from the state.

    Examples
    --------
    >>> likelihood = Likelihood(2, scale=0.5)
    >>> likelihood.outputs
    2
    >>> seen = torch.tensor([[True, False]])
    >>> likelihood.log_prob(torch.zeros(1, 2), torch.zeros(1, 2), seen).shape
    torch.Size([1, 2])
    """

    binary: Tensor

    def __init__(self, channels: int, *, binary: Sequence[int] = (), scale: float | str = "channel") -> None:
        super().__init__()
        if isinstance(scale, str) and scale not in ("channel", "state"):
            raise ValueError(f"scale={scale!r}; wanted a positive number, 'channel' or 'state'.")
        if not isinstance(scale, str) and not (scale > 0 and math.isfinite(scale)):
            raise ValueError(f"scale={scale!r}; wanted a positive number, 'channel' or 'state'.")
        if any(not 0 <= channel < channels for channel in binary):
            raise ValueError(f"binary={tuple(binary)!r}; wanted channels from 0 to {channels - 1}.")
        self.channels, self.scale = channels, scale if isinstance(scale, str) else float(scale)
        self.mixed = len(binary) > 0
        flags = torch.zeros(channels, dtype=torch.bool)
        flags[list(binary)] = True
        self.register_buffer("binary", flags, persistent=False)
        # a parameter of binary channels alone would never be used
        self.log_scale = nn.Parameter(torch.zeros(channels)) if scale == "channel" and len(binary) < channels else None

    @property
    def outputs(self) -> int:
        """Numbers that it wants from a decoder."""
        return self.channels * (2 if self.scale == "state" else 1)

    def mean(self, decoded: Float[Tensor, "... outputs"]) -> Float[Tensor, "... channels"]:
        """The expected observation."""
        raw = decoded[..., : self.channels]
        return torch.where(self.binary, raw.sigmoid(), raw) if self.mixed else raw

    def spread(self, decoded: Float[Tensor, "... outputs"]) -> Float[Tensor, "... channels"]:
        """The standard deviation of an observation."""
        raw = decoded[..., : self.channels]
        scale = self._scale(decoded)
        if not self.mixed:
            return scale
        chance = raw.sigmoid()
        return torch.where(self.binary, (chance * (1 - chance)).sqrt(), scale)

    def log_prob(
        self,
        decoded: Float[Tensor, "... outputs"],
        values: Float[Tensor, "... channels"],
        seen: Bool[Tensor, "... channels"],
    ) -> Float[Tensor, "... channels"]:
        """Log-probability of each value; 0 where it was not seen."""
        raw = decoded[..., : self.channels]
        values = torch.where(seen, values, 0)  # whatever stands in a gap, its gradient is 0, not NaN
        # not `spread`: its slope is infinite where a binary channel is certain, and times 0 that is NaN
        log_prob = Normal(raw, self._scale(decoded), validate_args=False).log_prob(values)
        if self.mixed:
            log_prob = torch.where(self.binary, Bernoulli(logits=raw, validate_args=False).log_prob(values), log_prob)
        return torch.where(seen, log_prob, 0)

    def sample(
        self, decoded: Float[Tensor, "... outputs"], generator: torch.Generator | None = None
    ) -> Float[Tensor, "... channels"]:
        """Draw observations."""
        mean, scale = self.mean(decoded), self.spread(decoded)
        noise = torch.randn(mean.shape, generator=generator, dtype=mean.dtype, device=mean.device)
        drawn = mean + scale * noise
        if not self.mixed:
            return drawn
        chance = torch.rand(mean.shape, generator=generator, dtype=mean.dtype, device=mean.device)
        return torch.where(self.binary, (chance < mean).to(mean.dtype), drawn)

    def _scale(self, decoded: Float[Tensor, "... outputs"]) -> Float[Tensor, "... channels"]:
        """Of the Gaussian channels; of no meaning in binary ones."""
        raw = decoded[..., : self.channels]
        if isinstance(self.scale, float):
            return torch.full_like(raw, self.scale)
        if self.scale == "state":
            return nn.functional.softplus(decoded[..., self.channels :]) + SCALE_MIN
        if self.log_scale is not None:
            return (self.log_scale.exp() + SCALE_MIN).expand_as(raw)
        return torch.ones_like(raw)
