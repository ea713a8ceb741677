"""Densities of the plane that are easy to see and hard to fit, with their true log-density and entropy.

What a model of them loses to the truth can be stated in nats: the mean of its −log p over points that were drawn here,
less the entropy, is the Kullback–Leibler divergence between the two.
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

Draw = Callable[[int, torch.Generator | None], Float64[Tensor, "points 2"]]
LogDensity = Callable[[Float64[Tensor, "points 2"]], Float64[Tensor, " points"]]


@dataclass(frozen=True)
class Density:
    """A density of the plane.

    Attributes
    ----------
    name : str
        Under which `DENSITIES` has it.
    entropy : float
        ∫ −p log p, in nats. No model can have a lower mean −log p over points that it has not seen.
    window : tuple of float
        (left, right, bottom, top): a rectangle with all but 1e-6 of the probability, to integrate over or to draw.

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
    draw: Draw = field(repr=False)
    log_density: LogDensity = field(repr=False)

    def sample(self, n: int, generator: torch.Generator | None = None) -> Float32[Tensor, "n 2"]:
        """Draw n points, each on its own.

        Parameters
        ----------
        n : int
            How many.
        generator : torch.Generator, optional
            A generator of the CPU; torch's own random state unless given.
        """
        if isinstance(n, bool) or not isinstance(n, int) or n < 0:
            raise ValueError(f"n={n!r}; wanted a whole number of points.")
        return self.draw(n, generator).float()

    def log_prob(self, x: Float[Tensor, "*batch 2"]) -> Float64[Tensor, "*batch"]:
        """The logarithm of the density at x, in double precision; −inf where it is 0."""
        if x.shape[-1:] != (2,):
            raise ValueError(f"x has shape {list(x.shape)}; wanted points of the plane, [..., 2].")
        points = x.double().reshape(-1, 2)
        # in pieces: a density that is a sum of hundreds of bumps would take them all for every point at once
        found = [self.log_density(piece) for piece in points.split(PIECE)]
        return torch.cat(found).reshape(x.shape[:-1])


PIECE = 4096  # points


def find_density(name: str | Density) -> Density:
    """A density by its name, or the one that was given.

    Examples
    --------
    >>> find_density("checkerboard").entropy  # log 8: uniform on eight squares of area 1
    2.0794415416798357
    """
    return pick("density", name, DENSITIES, Density)


# Two half circles that interlock, each with half of the points, and normal noise: as in scikit-learn's `make_moons`.
MOONS_NOISE = 0.05


def _draw_moons(n: int, generator: torch.Generator | None) -> Tensor:
    angle = math.pi * _uniform(n, generator)
    lower = _integers(2, n, generator).bool()
    return _on_moons(angle, lower) + MOONS_NOISE * _normal(n, generator)


def _log_moons(x: Tensor) -> Tensor:
    centres, log_weights = _moons_mixture()
    return _log_mixture(x, centres, log_weights, MOONS_NOISE)


def _on_moons(angle: Tensor, lower: Tensor) -> Tensor:
    upper = torch.stack((angle.cos(), angle.sin()), -1)
    return torch.where(lower[:, None], torch.tensor([1.0, 0.5], dtype=upper.dtype) - upper, upper)


@cache
def _moons_mixture(nodes: int = 256) -> tuple[Tensor, Tensor]:
    """The integral over both curves as a sum over nodes of Gauss and Legendre.

    They lie at most π²/2/256 = 0.02 apart, 0.4 of the noise, where the error of the sum is far below rounding.
    """
    place, weight = (torch.from_numpy(part) for part in np.polynomial.legendre.leggauss(nodes))
    angle = math.pi / 2 * (place + 1)
    lower = torch.arange(2 * nodes) >= nodes
    return _on_moons(angle.repeat(2), lower), (weight / 4).log().repeat(2)


# Two circles about the origin, each with half of the points, and normal noise: scikit-learn's `make_circles`.
CIRCLES = (1.0, 0.5)  # radii
CIRCLES_NOISE = 0.06


def _draw_circles(n: int, generator: torch.Generator | None) -> Tensor:
    angle = 2 * math.pi * _uniform(n, generator)
    radius = torch.tensor(CIRCLES, dtype=torch.float64)[_integers(2, n, generator)]
    on = radius[:, None] * torch.stack((angle.cos(), angle.sin()), -1)
    return on + CIRCLES_NOISE * _normal(n, generator)


def _log_circles(x: Tensor) -> Tensor:
    # the mean over angles of exp(r R cos(angle) / σ²) is a Bessel function, scaled here so that it cannot overflow
    r, radius, variance = x.norm(dim=-1)[:, None], x.new_tensor(CIRCLES), CIRCLES_NOISE**2
    logs = torch.special.i0e(r * radius / variance).log() - (r - radius).square() / (2 * variance)
    return logs.logsumexp(-1) - math.log(2 * math.pi * variance * len(CIRCLES))


# Eight round bumps on a circle.
BUMPS, BUMPS_RADIUS, BUMPS_SPREAD = 8, 2.0, 0.25


def _draw_gaussians(n: int, generator: torch.Generator | None) -> Tensor:
    return _bumps()[_integers(BUMPS, n, generator)] + BUMPS_SPREAD * _normal(n, generator)


def _log_gaussians(x: Tensor) -> Tensor:
    return _log_mixture(x, _bumps(), x.new_tensor(-math.log(BUMPS)), BUMPS_SPREAD)


def _bumps() -> Tensor:
    angle = torch.arange(BUMPS, dtype=torch.float64) * (2 * math.pi / BUMPS)
    return BUMPS_RADIUS * torch.stack((angle.cos(), angle.sin()), -1)


# Five long bumps pointing outwards, twisted: what lies at radius r is turned by 0.25 exp(r/2). To turn circles about
# the origin, each by its own angle, keeps areas: the twisted density is the straight one at the point turned back. (The
# usual pinwheel turns by a function of a coordinate, which does not keep areas.)
ARMS, ARM_PLACE, ARM_SPREAD = 5, (2.0, 0.0), (0.6, 0.2)  # along the arm and across


def _twist(r: Tensor) -> Tensor:
    return 0.25 * torch.exp(r / 2)


def _draw_pinwheel(n: int, generator: torch.Generator | None) -> Tensor:
    arm = 2 * math.pi / ARMS * _integers(ARMS, n, generator)
    place, spread = (torch.tensor(pair, dtype=torch.float64) for pair in (ARM_PLACE, ARM_SPREAD))
    straight = place + spread * _normal(n, generator)
    return _turn(straight, arm + _twist(straight.norm(dim=-1)))


def _log_pinwheel(x: Tensor) -> Tensor:
    arms = 2 * math.pi / ARMS * torch.arange(ARMS, dtype=x.dtype)
    straight = _turn(x[:, None], -arms - _twist(x.norm(dim=-1))[:, None])
    off = (straight - x.new_tensor(ARM_PLACE)) / x.new_tensor(ARM_SPREAD)
    return (-off.square().sum(-1) / 2).logsumexp(-1) - math.log(2 * math.pi * math.prod(ARM_SPREAD) * ARMS)


def _turn(x: Tensor, angle: Tensor) -> Tensor:
    cos, sin, (a, b) = angle.cos(), angle.sin(), x.unbind(-1)
    return torch.stack((cos * a - sin * b, sin * a + cos * b), -1)


# The black squares of a board with four by four of area 1.
BOARD = 2  # squares to each side of the origin


def _draw_checkerboard(n: int, generator: torch.Generator | None) -> Tensor:
    column = _integers(2 * BOARD, n, generator) - BOARD
    row = 2 * _integers(BOARD, n, generator) - BOARD + column % 2
    # on a fine lattice that float32 holds exactly: a point that is rounded must not leave its square
    within = torch.stack((_integers(2**21, n, generator), _integers(2**21, n, generator)), -1).double() + 0.5
    return torch.stack((column, row), -1) + within / 2**21


def _log_checkerboard(x: Tensor) -> Tensor:
    square = x.floor()
    black = (square.sum(-1) % 2 == 0) & (square >= -BOARD).all(-1) & (square < BOARD).all(-1)
    return torch.where(black, x.new_tensor(-math.log(2 * BOARD**2)), -math.inf)


def _log_mixture(x: Tensor, centres: Tensor, log_weights: Tensor, spread: float) -> Tensor:
    """The log-density of round bumps."""
    # the difference itself, squared: by way of |x|² − 2 x·c + |c|² it would lose half of its digits
    square = (x[:, None] - centres).square().sum(-1)
    return (log_weights - square / (2 * spread**2)).logsumexp(-1) - math.log(2 * math.pi * spread**2)


def _uniform(n: int, generator: torch.Generator | None) -> Tensor:
    return torch.rand(n, dtype=torch.float64, generator=generator)


def _normal(n: int, generator: torch.Generator | None) -> Tensor:
    return torch.randn(n, 2, dtype=torch.float64, generator=generator)


def _integers(below: int, n: int, generator: torch.Generator | None) -> Tensor:
    return torch.randint(below, (n,), generator=generator)


# Entropies by the trapezoidal rule on grids so fine that halving the step changes none of the digits.
DENSITIES: Mapping[str, Density] = {
    density.name: density
    for density in (
        Density("moons", 0.2892337376, (-1.5, 2.5, -1.0, 1.5), _draw_moons, _log_moons),
        Density("circles", 0.7876452934, (-1.5, 1.5, -1.5, 1.5), _draw_circles, _log_circles),
        Density("pinwheel", 2.320588474, (-5.5, 5.5, -5.5, 5.5), _draw_pinwheel, _log_pinwheel),
        Density("8gaussians", 2.13843118, (-4.0, 4.0, -4.0, 4.0), _draw_gaussians, _log_gaussians),
        Density("checkerboard", math.log(2 * BOARD**2), (-2.0, 2.0, -2.0, 2.0), _draw_checkerboard, _log_checkerboard),
    )
}
