"""The distribution of an observation, given the output of a decoder."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.distributions import Bernoulli, Normal

SCALE_MIN = 1e-3  # a smaller standard deviation (of standardised values) only fits rounding errors


class Likelihood(nn.Module):
    """A Gaussian distribution for each channel, or a Bernoulli distribution where values are 0 or 1.

    Parameters
    ----------
    channels : int
        The number of channels of an observation.
    binary : sequence of int, default=()
        The channels whose values are 0 or 1.
    scale : float, "channel" or "state", default="channel"
        The standard deviation of the Gaussian channels: a constant, one parameter for each channel, or decoded from
        the state.

    Raises
    ------
    ValueError
        If ``scale`` is not positive or unknown, or ``binary`` names a channel that does not exist.

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
        # without Gaussian channels the parameter would never receive a gradient
        self.log_scale = nn.Parameter(torch.zeros(channels)) if scale == "channel" and len(binary) < channels else None

    @property
    def outputs(self) -> int:
        """The size of the decoder's output."""
        return self.channels * (2 if self.scale == "state" else 1)

    def mean(self, decoded: Float[Tensor, "... outputs"]) -> Float[Tensor, "... channels"]:
        """Return the expected observation."""
        raw = decoded[..., : self.channels]
        return torch.where(self.binary, raw.sigmoid(), raw) if self.mixed else raw

    def spread(self, decoded: Float[Tensor, "... outputs"]) -> Float[Tensor, "... channels"]:
        """Return the standard deviation of an observation."""
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
        """Return the log-probability of each value, and 0 where ``seen`` is False."""
        raw = decoded[..., : self.channels]
        values = torch.where(seen, values, 0)  # so that NaN in a gap gives a gradient of 0, not NaN
        # not `spread`: its slope is infinite where a binary channel is certain, and 0 times that is NaN
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
        gaussian = mean + scale * noise
        if not self.mixed:
            return gaussian
        chance = torch.rand(mean.shape, generator=generator, dtype=mean.dtype, device=mean.device)
        return torch.where(self.binary, (chance < mean).to(mean.dtype), gaussian)

    def _scale(self, decoded: Float[Tensor, "... outputs"]) -> Float[Tensor, "... channels"]:
        """Return the standard deviation of the Gaussian channels; the entries of binary ones are not used."""
        raw = decoded[..., : self.channels]
        if isinstance(self.scale, float):
            return torch.full_like(raw, self.scale)
        if self.scale == "state":
            return nn.functional.softplus(decoded[..., self.channels :]) + SCALE_MIN
        if self.log_scale is not None:
            return (self.log_scale.exp() + SCALE_MIN).expand_as(raw)
        return torch.ones_like(raw)
