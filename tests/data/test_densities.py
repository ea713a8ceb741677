"""Samples, log-density and entropy of each toy density are consistent."""

from __future__ import annotations

import math

import pytest
import torch
from sklearn.datasets import make_circles, make_moons
from torch import Tensor

from neuralode.data.densities import DENSITIES, Density, _log_mixture, _moons_mixture, find_density

names = pytest.mark.parametrize("name", DENSITIES)


def grid(density: Density, steps: int) -> tuple[Tensor, float]:
    """Return the midpoints of equal cells of the window, and the area of a cell."""
    left, right, bottom, top = density.window
    place = (torch.arange(steps, dtype=torch.float64) + 0.5) / steps
    points = torch.cartesian_prod(left + (right - left) * place, bottom + (top - bottom) * place)
    return points, (right - left) * (top - bottom) / steps**2


@names
def test_a_density_integrates_to_one_and_to_its_entropy(name: str) -> None:
    density = DENSITIES[name]
    points, area = grid(density, 200)
    log = density.log_prob(points)
    assert log.dtype == torch.float64
    assert log.exp().sum().item() * area == pytest.approx(1, abs=1e-6)
    entropy = -torch.special.xlogy(log.exp(), log.exp()).sum().item() * area
    assert entropy == pytest.approx(density.entropy, abs=1e-5)


@names
def test_samples_have_the_entropy(name: str) -> None:
    density = DENSITIES[name]
    found = -density.log_prob(density.sample(20_000, torch.Generator().manual_seed(0)))
    assert found.isfinite().all()
    error = found.std().item() / math.sqrt(len(found))
    assert abs(found.mean().item() - density.entropy) < 4 * error + 1e-6


@names
def test_samples_are_distributed_by_the_density(name: str) -> None:
    """Compare cell probabilities: a wrong density with the right entropy would pass the test above."""
    density, n, cells = DENSITIES[name], 40_000, 10
    points, area = grid(density, 20 * cells)
    left, right, bottom, top = density.window

    def cell(x: Tensor) -> Tensor:
        column = ((x[:, 0] - left) / (right - left) * cells).floor().clamp(0, cells - 1)
        return (column * cells + ((x[:, 1] - bottom) / (top - bottom) * cells).floor().clamp(0, cells - 1)).long()

    expected = torch.zeros(cells**2, dtype=torch.float64)
    expected.index_add_(0, cell(points), density.log_prob(points).exp() * area)
    drawn = torch.bincount(cell(density.sample(n, torch.Generator().manual_seed(1))), minlength=cells**2) / n
    spread = (expected * (1 - expected) / n).sqrt() + 1e-4
    assert ((drawn - expected).abs() / spread).max() < 5


@pytest.mark.parametrize(("name", "make"), [("moons", make_moons), ("circles", make_circles)])
def test_samples_of_scikit_learn_are_as_likely(name: str, make: object) -> None:
    density = DENSITIES[name]
    options = {"noise": 0.05} if name == "moons" else {"noise": 0.06, "factor": 0.5}
    points, _ = make(20_000, random_state=0, **options)  # type: ignore[operator]
    found = -density.log_prob(torch.from_numpy(points))
    assert abs(found.mean().item() - density.entropy) < 4 * found.std().item() / math.sqrt(len(found))


def test_the_quadrature_of_the_moons_is_exact() -> None:
    x = torch.rand(500, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0)) * 6 - 3
    centres, log_weights = _moons_mixture(1000)
    torch.testing.assert_close(
        DENSITIES["moons"].log_prob(x), _log_mixture(x, centres, log_weights=log_weights, deviation=0.05)
    )


@names
def test_the_generator_decides_the_samples(name: str) -> None:
    density = DENSITIES[name]
    one, same, other = (density.sample(9, torch.Generator().manual_seed(seed)) for seed in (3, 3, 4))
    assert one.dtype == torch.float32
    assert torch.equal(one, same)
    assert not torch.equal(one, other)


@names
def test_points_may_lie_in_any_shape(name: str) -> None:
    density = DENSITIES[name]
    x = density.sample(6)
    torch.testing.assert_close(density.log_prob(x.reshape(2, 3, 2)).flatten(), density.log_prob(x))
    assert density.log_prob(x[0]).shape == ()
    assert density.log_prob(x[:0]).shape == (0,)


def test_the_density_is_0_off_the_board() -> None:
    x = torch.tensor([[0.5, 0.5], [0.5, -0.5], [2.5, 0.5], [2.5, 2.5]])
    assert find_density("checkerboard").log_prob(x).tolist() == [-math.log(8), -math.inf, -math.inf, -math.inf]


def test_rounding_moves_no_point_off_its_square() -> None:
    points = find_density("checkerboard").sample(400_000, torch.Generator().manual_seed(0))
    assert torch.equal(points.double() % 2**-22, torch.zeros_like(points.double()))  # float32 represents them exactly
    assert (points != points.round()).all()  # none on an edge


def test_invalid_names_shapes_and_counts_are_rejected() -> None:
    with pytest.raises(ValueError, match="density='moon' is unknown; did you mean 'moons'?"):
        find_density("moon")
    with pytest.raises(ValueError, match="x has shape \\[3\\]; wanted points of the plane"):
        find_density("moons").log_prob(torch.zeros(3))
    with pytest.raises(ValueError, match="n=-1; wanted a whole number"):
        find_density("moons").sample(-1)
