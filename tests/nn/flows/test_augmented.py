"""Augmented flows: a lower bound on the density of the data."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.distributions import MultivariateNormal

from neuralode.nn import CNF
from neuralode.nn.flows import Augmented, ConvFlowField

MATRIX = torch.tensor([[0.3, 0.2, 0.5], [-0.4, 0.1, 0.6], [0.3, -0.5, 0.2]], dtype=torch.float64)


def linear() -> tuple[Augmented, MultivariateNormal]:
    """Return a linear flow of three dimensions, and the exact distribution of the first two."""
    flow = CNF(lambda t, x: x @ MATRIX.T, 3, rtol=1e-8, atol=1e-8).double()
    carried = torch.matrix_exp(MATRIX)
    seen = (carried @ carried.T)[:2, :2]
    return Augmented(flow, extra=1).double(), MultivariateNormal(torch.zeros(2, dtype=torch.float64), seen)


def points(rows: int) -> Tensor:
    return torch.randn(rows, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


def test_the_bound_tightens_with_more_samples() -> None:
    model, wanted = linear()
    x = points(8)
    gaps = []
    for samples in (1, 10, 2000):
        drawn = torch.stack(
            [model.log_prob(x, samples=samples, generator=torch.Generator().manual_seed(k)) for k in range(20)]
        )
        gaps.append(float((wanted.log_prob(x) - drawn.mean(0)).mean()))
    assert gaps[0] > gaps[1] > gaps[2] > -0.005, "the mean is a lower bound"
    assert gaps[2] < 0.01


def test_samples_have_the_covariance_of_the_data() -> None:
    model, wanted = linear()
    x = model.sample(20_000, generator=torch.Generator().manual_seed(0))
    assert x.shape == (20_000, 2)
    torch.testing.assert_close(x.T.cov(), wanted.covariance_matrix, rtol=0.05, atol=0.05)


def test_noise_may_be_channels_of_images() -> None:
    torch.manual_seed(0)
    model = Augmented(CNF(ConvFlowField(3, 4, 1), (3, 4, 4), divergence="hutchinson"), extra=2)
    x = model.sample((2, 3))
    assert x.shape == (2, 3, 1, 4, 4)
    loss = -model.log_prob(x, samples=2).mean()
    loss.backward()
    assert all(p.grad is not None for p in model.parameters())


@pytest.mark.parametrize("extra", [0, 3, True])
def test_noise_that_leaves_no_data_is_refused(extra: int) -> None:
    with pytest.raises(ValueError, match="wanted 1 to 2 of the 3 along the flow's first axis"):
        Augmented(CNF(lambda t, x: x, 3), extra)
