"""Two-dimensional toy densities with their exact log-density and entropy.

They measure how far a density model is from the truth: the mean of its −log p over samples, minus the entropy, is the
Kullback–Leibler divergence of the model from the density.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cache

import numpy as np
import torch
from jaxtyping import Float, Float32, Float64
from torch import Tensor

from neuralode.core.registry import pick

DrawSamples = Callable[[int, torch.Generator | None], Float64[Tensor, "points 2"]]
LogDensity = Callable[[Float64[Tensor, "points 2"]], Float64[Tensor, " points"]]


@dataclass(frozen=True)
class Density:
    """A density on the plane.

    Attributes
    ----------
    name : str
        Key in `DENSITIES`.
    entropy : float
        Differential entropy ∫ −p log p in nats: the lowest expected −log p of any model.
    window : tuple of float
        (left, right, bottom, top), a rectangle that holds all but 1e-6 of the probability, for integrals and plots.
    draw : callable
        From a number of points and a generator to samples.
    log_density : callable
        From points to their log-densities.

    Examples
    --------
    >>> moons = find_density("moons")
    >>> x = moons.sample(1000, torch.Generator().manual_seed(0))
    >>> x.shape, x.dtype
    (torch.Size([1000, 2]), torch.float32)
    >>> bool((-moons.log_prob(x).mean() - moons.entropy).abs() < 0.1)
    True
    """

    name: str
    entropy: float
    window: tuple[float, float, float, float]
    draw: DrawSamples = field(repr=False)
    log_density: LogDensity = field(repr=False)

    def sample(self, n: int, generator: torch.Generator | None = None) -> Float32[Tensor, "n 2"]:
        """Draw independent samples.

        Parameters
        ----------
        n : int
            Number of samples.
        generator : torch.Generator, optional
            Generator on the CPU; torch's global generator unless given.

        Returns
        -------
        Tensor[n, 2]
            The samples, in float32.

        Raises
        ------
        ValueError
            If ``n`` is not a whole number of at least 0.
        """
        if isinstance(n, bool) or not isinstance(n, int) or n < 0:
            raise ValueError(f"n={n!r}; wanted a whole number of points.")
        return self.draw(n, generator).float()

    def log_prob(self, x: Float[Tensor, "*batch 2"]) -> Float64[Tensor, "*batch"]:
        """Return the log-density in float64, −inf where the density is 0.

        Parameters
        ----------
        x : Tensor[..., 2]
            Points on the plane.

        Raises
        ------
        ValueError
            If the last axis does not have two entries.
        """
        if x.shape[-1:] != (2,):
            raise ValueError(f"x has shape {list(x.shape)}; wanted points of the plane, [..., 2].")
        points = x.double().reshape(-1, 2)
        # in chunks: a mixture of hundreds of components needs memory for points times components
        log_densities = [self.log_density(chunk) for chunk in points.split(CHUNK)]
        return torch.cat(log_densities).reshape(x.shape[:-1])


CHUNK = 4096  # points


def find_density(name: str | Density) -> Density:
    """Return the density of this name; a `Density` is returned as it is.

    Examples
    --------
    >>> find_density("checkerboard").entropy  # log 8: uniform on eight squares of area 1
    2.0794415416798357
    """
    return pick("density", name, table=DENSITIES, kind=Density)


# Moons: two interleaving half circles of equal weight with normal noise, as scikit-learn's `make_moons`.
MOONS_NOISE = 0.05


def _draw_moons(n: int, generator: torch.Generator | None) -> Tensor:
    angle = math.pi * _uniform(n, generator)
    lower = _integers(2, n, generator).bool()
    return _on_moons(angle, lower) + MOONS_NOISE * _normal(n, generator)


def _log_moons(x: Tensor) -> Tensor:
    centres, log_weights = _moons_mixture()
    return _log_mixture(x, centres, log_weights=log_weights, deviation=MOONS_NOISE)


def _on_moons(angle: Tensor, lower: Tensor) -> Tensor:
    upper = torch.stack((angle.cos(), angle.sin()), -1)
    return torch.where(lower[:, None], torch.tensor([1.0, 0.5], dtype=upper.dtype) - upper, upper)


@cache
def _moons_mixture(nodes: int = 256) -> tuple[Tensor, Tensor]:
    """Return the Gauss–Legendre quadrature of the integral over both curves, as a mixture of normal distributions.

    The nodes are at most π²/2/256 = 0.02 apart, or 0.4 of the noise; the quadrature error is far below rounding.
    """
    node, weight = (torch.from_numpy(part) for part in np.polynomial.legendre.leggauss(nodes))
    angle = math.pi / 2 * (node + 1)
    lower = torch.arange(2 * nodes) >= nodes
    return _on_moons(angle.repeat(2), lower), (weight / 4).log().repeat(2)


# Circles: two concentric circles of equal weight with normal noise, as scikit-learn's `make_circles`.
CIRCLES = (1.0, 0.5)  # radii
CIRCLES_NOISE = 0.06


def _draw_circles(n: int, generator: torch.Generator | None) -> Tensor:
    angle = 2 * math.pi * _uniform(n, generator)
    radius = torch.tensor(CIRCLES, dtype=torch.float64)[_integers(2, n, generator)]
    points = radius[:, None] * torch.stack((angle.cos(), angle.sin()), -1)
    return points + CIRCLES_NOISE * _normal(n, generator)


def _log_circles(x: Tensor) -> Tensor:
    # The mean of exp(r R cos(angle) / σ²) over angles is a modified Bessel function; i0e is scaled against overflow.
    r, radius, variance = x.norm(dim=-1)[:, None], x.new_tensor(CIRCLES), CIRCLES_NOISE**2
    logs = torch.special.i0e(r * radius / variance).log() - (r - radius).square() / (2 * variance)
    return logs.logsumexp(-1) - math.log(2 * math.pi * variance * len(CIRCLES))


# 8gaussians: isotropic normal distributions of equal weight, with centres on a circle.
GAUSSIANS, GAUSSIANS_RADIUS, GAUSSIANS_DEVIATION = 8, 2.0, 0.25


def _draw_gaussians(n: int, generator: torch.Generator | None) -> Tensor:
    return _gaussian_centres()[_integers(GAUSSIANS, n, generator)] + GAUSSIANS_DEVIATION * _normal(n, generator)


def _log_gaussians(x: Tensor) -> Tensor:
    log_weights = x.new_tensor(-math.log(GAUSSIANS))
    return _log_mixture(x, _gaussian_centres(), log_weights=log_weights, deviation=GAUSSIANS_DEVIATION)


def _gaussian_centres() -> Tensor:
    angle = torch.arange(GAUSSIANS, dtype=torch.float64) * (2 * math.pi / GAUSSIANS)
    return GAUSSIANS_RADIUS * torch.stack((angle.cos(), angle.sin()), -1)


# Pinwheel: five radial normal distributions, twisted by the angle 0.25 exp(r/2) at radius r. A rotation that depends on
# the radius alone preserves areas, so the density is that of the straight arms at the point rotated back. (The usual
# pinwheel rotates by a function of one coordinate, which does not preserve areas.)
ARMS, ARM_CENTRE, ARM_DEVIATION = 5, (2.0, 0.0), (0.6, 0.2)  # along the arm, and across


def _twist(r: Tensor) -> Tensor:
    return 0.25 * torch.exp(r / 2)


def _draw_pinwheel(n: int, generator: torch.Generator | None) -> Tensor:
    arm = 2 * math.pi / ARMS * _integers(ARMS, n, generator)
    centre, deviation = (torch.tensor(pair, dtype=torch.float64) for pair in (ARM_CENTRE, ARM_DEVIATION))
    straight = centre + deviation * _normal(n, generator)
    return _rotate(straight, arm + _twist(straight.norm(dim=-1)))


def _log_pinwheel(x: Tensor) -> Tensor:
    arms = 2 * math.pi / ARMS * torch.arange(ARMS, dtype=x.dtype)
    straight = _rotate(x[:, None], -arms - _twist(x.norm(dim=-1))[:, None])
    standardized = (straight - x.new_tensor(ARM_CENTRE)) / x.new_tensor(ARM_DEVIATION)
    return (-standardized.square().sum(-1) / 2).logsumexp(-1) - math.log(2 * math.pi * math.prod(ARM_DEVIATION) * ARMS)


def _rotate(x: Tensor, angle: Tensor) -> Tensor:
    cos, sin, (a, b) = angle.cos(), angle.sin(), x.unbind(-1)
    return torch.stack((cos * a - sin * b, sin * a + cos * b), -1)


# Checkerboard: uniform on the black squares of a 4 x 4 board of unit squares.
BOARD = 2  # squares on each side of the origin


def _draw_checkerboard(n: int, generator: torch.Generator | None) -> Tensor:
    column = _integers(2 * BOARD, n, generator) - BOARD
    row = 2 * _integers(BOARD, n, generator) - BOARD + column % 2
    # on a lattice that float32 represents exactly, so that rounding moves no point out of its square
    within = torch.stack((_integers(2**21, n, generator), _integers(2**21, n, generator)), -1).double() + 0.5
    return torch.stack((column, row), -1) + within / 2**21


def _log_checkerboard(x: Tensor) -> Tensor:
    square = x.floor()
    black = (square.sum(-1) % 2 == 0) & (square >= -BOARD).all(-1) & (square < BOARD).all(-1)
    return torch.where(black, x.new_tensor(-math.log(2 * BOARD**2)), -math.inf)


def _log_mixture(x: Tensor, centres: Tensor, *, log_weights: Tensor, deviation: float) -> Tensor:
    """Return the log-density of a mixture of isotropic normal distributions."""
    # The expansion |x|² − 2 x·c + |c|² would lose half of the digits.
    square = (x[:, None] - centres).square().sum(-1)
    return (log_weights - square / (2 * deviation**2)).logsumexp(-1) - math.log(2 * math.pi * deviation**2)


def _uniform(n: int, generator: torch.Generator | None) -> Tensor:
    return torch.rand(n, dtype=torch.float64, generator=generator)


def _normal(n: int, generator: torch.Generator | None) -> Tensor:
    return torch.randn(n, 2, dtype=torch.float64, generator=generator)


def _integers(below: int, n: int, generator: torch.Generator | None) -> Tensor:
    return torch.randint(below, (n,), generator=generator)


# Entropies are computed by the trapezoidal rule; halving the step of the grid changes none of the digits.
DENSITIES: Mapping[str, Density] = {
    density.name: density
    for density in (
        Density(
            "moons",
            entropy=0.2892337376,
            window=(-1.5, 2.5, -1.0, 1.5),
            draw=_draw_moons,
            log_density=_log_moons,
        ),
        Density(
            "circles",
            entropy=0.7876452934,
            window=(-1.5, 1.5, -1.5, 1.5),
            draw=_draw_circles,
            log_density=_log_circles,
        ),
        Density(
            "pinwheel",
            entropy=2.320588474,
            window=(-5.5, 5.5, -5.5, 5.5),
            draw=_draw_pinwheel,
            log_density=_log_pinwheel,
        ),
        Density(
            "8gaussians",
            entropy=2.13843118,
            window=(-4.0, 4.0, -4.0, 4.0),
            draw=_draw_gaussians,
            log_density=_log_gaussians,
        ),
        Density(
            "checkerboard",
            entropy=math.log(2 * BOARD**2),
            window=(-2.0, 2.0, -2.0, 2.0),
            draw=_draw_checkerboard,
            log_density=_log_checkerboard,
        ),
    )
}
