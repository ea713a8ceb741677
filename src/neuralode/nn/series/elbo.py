"""The evidence lower bound of a latent ODE, and a penalty that keeps its trajectories consistent."""

from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.distributions import Normal

# The smallest width of a posterior in `inconsistency`, in units of the prior: closer states count as equal.
MIN_WIDTH = 0.1


class Elbo(NamedTuple):
    """The evidence lower bound of each series, in its parts.

    Attributes
    ----------
    loss : Tensor[]
        The loss: minus the mean over series of ``log_likelihood - kl_weight * kl``, plus the penalty.
    log_likelihood : Tensor[series]
        The log-probability of the observed values, averaged over samples of z0.
    kl : Tensor[series]
        The Kullback–Leibler divergence of q(z0 | x) from the prior.
    inconsistency : Tensor[series]
        The distance of trajectories from the states that later observations alone give; 0 without a penalty.
    """

    loss: Tensor
    log_likelihood: Float[Tensor, " series"]
    kl: Float[Tensor, " series"]
    inconsistency: Float[Tensor, " series"]


def inconsistency(
    z: Float[Tensor, "samples series steps latent"], posterior: Normal, within: Bool[Tensor, "series steps"]
) -> Float[Tensor, " series"]:
    """Return the mean squared distance of trajectories from the posterior at each observation, in its widths.

    The width is a constant unit of length, with a minimum. If it were differentiated, it would grow, or all states
    shrink, to reduce the loss; without the minimum, a posterior that becomes narrow early would dominate the loss.

    Parameters
    ----------
    z : Tensor[samples, series, steps, latent]
        States of trajectories at the observations.
    posterior : Normal
        q(z(t) | observations from t on), over [series, steps, latent].
    within : BoolTensor[series, steps]
        The observations that count.

    Examples
    --------
    >>> posterior = Normal(torch.zeros(1, 2, 1), torch.zeros(1, 2, 1) + 1e-9)
    >>> inconsistency(torch.full((3, 1, 2, 1), 0.1), posterior, torch.ones(1, 2, dtype=torch.bool)).round(decimals=4)
    tensor([1.])
    """
    width = (posterior.scale.detach() ** 2 + MIN_WIDTH**2).sqrt()
    square = ((z - posterior.mean) / width).square().sum(-1).mean(0)
    return torch.where(within, square, 0).sum(1) / within.sum(1).clamp(min=1)
