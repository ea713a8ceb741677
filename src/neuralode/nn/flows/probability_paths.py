r"""Paths from noise to data, :math:`x_t = \alpha_t x_1 + \sigma_t x_0`, on which flow matching trains a field.

The velocity of one path is :math:`\dot x_t = \dot\alpha_t x_1 + \dot\sigma_t x_0`. Its mean over all pairs (x0, x1)
whose path passes through x at t is a field that moves the noise to the data (Lipman, Chen, Ben-Hamu, Nickel & Le, *Flow
Matching for Generative Modeling*, 2023). Noise is at t = 0, data at t = 1.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from neuralode.core.registry import pick

Times = Float[Tensor, "#batch"] | Float[Tensor, ""]

MIN_DISTANCE = 1e-5  # to t = 1, at which the derivative of a path that ends with infinite slope is evaluated


class Passing(NamedTuple):
    """A point of a path, and its velocity.

    Attributes
    ----------
    x : Tensor[batch, *event]
        The point.
    velocity : Tensor[batch, *event]
        dx/dt at that point.
    """

    x: Tensor
    velocity: Tensor


class Path(ABC):
    """The shares of data and noise as functions of time."""

    @abstractmethod
    def alpha(self, t: Times) -> Times:
        """Return the share of the data."""

    @abstractmethod
    def sigma(self, t: Times) -> Times:
        """Return the share of the noise."""

    @abstractmethod
    def slopes(self, t: Times) -> tuple[Times, Times]:
        """Return the time derivatives of alpha and sigma."""

    def at(self, t: Times, x0: Float[Tensor, "batch *event"], x1: Float[Tensor, "batch *event"]) -> Passing:
        """Return the points at t of the paths from x0 to x1, and their velocities.

        Parameters
        ----------
        t : Tensor[] or Tensor[batch]
            Times between 0 and 1: one for all rows, or one for each.
        x0 : Tensor[batch, *event]
            Noise.
        x1 : Tensor[batch, *event]
            Data.

        Returns
        -------
        Passing
            Points and velocities.

        Raises
        ------
        ValueError
            If shapes do not match.
        """
        if x0.shape != x1.shape:
            raise ValueError(f"x0 has shape {list(x0.shape)}; wanted that of x1, {list(x1.shape)}.")
        if t.dim() > 1 or (t.dim() == 1 and t.shape != x1.shape[:1]):
            raise ValueError(f"t has shape {list(t.shape)}; wanted one time, or one for each row of x1.")
        each = t.reshape(*t.shape, *[1] * (x1.dim() - 1)) if t.dim() else t
        alpha_slope, sigma_slope = self.slopes(each)
        return Passing(self.alpha(each) * x1 + self.sigma(each) * x0, alpha_slope * x1 + sigma_slope * x0)


@dataclass(frozen=True)
class Linear(Path):
    """Straight lines at constant speed: the conditional optimal transport of Lipman et al. 2023.

    Parameters
    ----------
    sigma_min : float, default=0.0
        The share of the noise at t = 1, at least 0 and below 1.

    Raises
    ------
    ValueError
        If ``sigma_min`` is out of range.

    Examples
    --------
    >>> x, velocity = Linear().at(torch.tensor([0.25]), torch.zeros(1, 2), torch.ones(1, 2))
    >>> x.tolist(), velocity.tolist()
    ([[0.25, 0.25]], [[1.0, 1.0]])
    """

    sigma_min: float = 0.0

    def __post_init__(self) -> None:
        if not 0 <= self.sigma_min < 1:
            raise ValueError(f"sigma_min={self.sigma_min!r}; wanted at least 0 and less than 1.")

    def alpha(self, t: Times) -> Times:
        """Return t."""
        return t

    def sigma(self, t: Times) -> Times:
        """Return 1 − (1 − σ_min) t."""
        return 1 - (1 - self.sigma_min) * t

    def slopes(self, t: Times) -> tuple[Times, Times]:
        """Return 1 and −(1 − σ_min)."""
        return torch.ones_like(t), torch.full_like(t, self.sigma_min - 1)


@dataclass(frozen=True)
class VariancePreserving(Path):
    r"""The paths of diffusion in the opposite direction of time: :math:`\alpha_t^2 + \sigma_t^2 = 1`.

    :math:`\alpha_t = e^{-T(1 - t)/2}` with :math:`T(s) = \beta_\min s + (\beta_\max - \beta_\min) s^2 / 2` (Lipman et
    al. 2023, from Song et al., *Score-Based Generative Modeling through Stochastic Differential Equations*, 2021). The
    noise at t = 0 contains a share exp(−T(1)/2) of the data. At t = 1 the slope of σ is infinite, as that of √s at 0;
    it is evaluated `MIN_DISTANCE` before.

    Parameters
    ----------
    beta_min : float, default=0.1
        The rate at which noise is added, at the data; above 0.
    beta_max : float, default=20.0
        The rate at the noise, at least ``beta_min``.

    Raises
    ------
    ValueError
        If a rate is out of range.

    Examples
    --------
    >>> path = VariancePreserving()
    >>> round(path.alpha(torch.tensor(0.0)).item(), 4), path.alpha(torch.tensor(1.0)).item()
    (0.0066, 1.0)
    """

    beta_min: float = 0.1
    beta_max: float = 20.0

    def __post_init__(self) -> None:
        if not (0 < self.beta_min <= self.beta_max < math.inf):
            raise ValueError(
                f"beta_min={self.beta_min!r}, beta_max={self.beta_max!r}; wanted positive numbers, in that order."
            )

    def alpha(self, t: Times) -> Times:
        """Return exp(−T/2)."""
        return torch.exp(-self._decay(1 - t) / 2)

    def sigma(self, t: Times) -> Times:
        """Return √(1 − exp(−T)), without cancellation."""
        return torch.sqrt(-torch.expm1(-self._decay(1 - t)))

    def slopes(self, t: Times) -> tuple[Times, Times]:
        """Return β α / 2 and −β α² / (2 σ)."""
        s = (1 - t).clamp(min=MIN_DISTANCE)
        beta, decay = self.beta_min + s * (self.beta_max - self.beta_min), self._decay(s)
        alpha, sigma = torch.exp(-decay / 2), torch.sqrt(-torch.expm1(-decay))
        return beta * alpha / 2, -beta * alpha * alpha / (2 * sigma)

    def _decay(self, s: Times) -> Times:
        return self.beta_min * s + (self.beta_max - self.beta_min) / 2 * s * s


@dataclass(frozen=True)
class Cosine(Path):
    """Quarter circles: α = sin(πt/2), σ = cos(πt/2).

    The trigonometric interpolant of Albergo & Vanden-Eijnden, *Building Normalizing Flows with Stochastic
    Interpolants*, 2023. If noise and data have the same variance, so has every point in between.

    Examples
    --------
    >>> path, t = Cosine(), torch.tensor(0.3)
    >>> round((path.alpha(t) ** 2 + path.sigma(t) ** 2).item(), 6)
    1.0
    """

    def alpha(self, t: Times) -> Times:
        """Return sin(πt/2)."""
        return torch.sin(math.pi / 2 * t)

    def sigma(self, t: Times) -> Times:
        """Return cos(πt/2)."""
        return torch.cos(math.pi / 2 * t)

    def slopes(self, t: Times) -> tuple[Times, Times]:
        """Return (π/2) cos(πt/2) and −(π/2) sin(πt/2)."""
        angle = math.pi / 2 * t
        return math.pi / 2 * torch.cos(angle), -math.pi / 2 * torch.sin(angle)


PATHS: dict[str, Path] = {
    "linear": Linear(),
    "variance-preserving": VariancePreserving(),
    "cosine": Cosine(),
}


def find_path(path: Any) -> Path:
    """Return the path of a name, or the given path.

    Raises
    ------
    TypeError, ValueError
        If it is neither, or the name is unknown.

    Examples
    --------
    >>> find_path("linear")
    Linear(sigma_min=0.0)
    """
    return pick("path", path, PATHS, kind=Path)
