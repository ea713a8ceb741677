"""Event times as an inhomogeneous Poisson process whose intensity is read from the latent state.

References
----------
.. [1] R. T. Q. Chen, Y. Rubanova, J. Bettencourt, D. Duvenaud, "Neural Ordinary Differential Equations", NeurIPS 2018,
   section 5.1.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from neuralode.nn.mlp import mlp


class PoissonProcess(nn.Module):
    r"""Kinds of events, each at intensity λ(z(t)), along a latent trajectory dz/dt = f(t, z).

    The log-likelihood of events at times t_i is :math:`\sum_i \log \lambda(z(t_i)) - \int \lambda(z(t)) dt`. The
    integral is a further state of the same ODE: `along` turns a field of z into one of (z, ∫λ).

    Parameters
    ----------
    features : int
        Of z.
    kinds : int
        Kinds of events, each with an intensity of its own.
    width : int
        Of the one hidden layer between z and log λ.

    Examples
    --------
    >>> import neuralode as node
    >>> process = PoissonProcess(features=2, kinds=1)
    >>> field = process.along(lambda t, z: -z)
    >>> z, total = node.solve(field, process.begin(torch.ones(3, 2)), torch.linspace(0, 1, 5)).ys
    >>> z.shape, total.shape  # at each of 5 times: states, and events expected so far
    (torch.Size([5, 3, 2]), torch.Size([5, 3, 1]))
    """

    def __init__(self, features: int, kinds: int = 1, width: int = 20) -> None:
        super().__init__()
        self.kinds = kinds
        self.log_intensity = mlp(features, width, kinds)

    def along(self, f: Callable[..., Tensor]) -> Callable[..., tuple[Tensor, Tensor]]:
        """The field of (z, events expected since the start)."""

        def field(t: Tensor, state: tuple[Tensor, Tensor], *args: Tensor) -> tuple[Tensor, Tensor]:
            z = state[0]
            return f(t, z, *args), self.log_intensity(z).exp()

        return field

    def begin(self, z: Float[Tensor, "rows features"]) -> tuple[Tensor, Tensor]:
        """The state to start from: no event is expected before."""
        return z, z.new_zeros(*z.shape[:-1], self.kinds)

    def log_prob(
        self,
        z: Float[Tensor, "... steps features"],
        happened: Bool[Tensor, "... steps kinds"],
        expected: Float[Tensor, "... kinds"],
    ) -> Float[Tensor, "..."]:
        """Log-likelihood of what happened at some states of a trajectory, given the events expected up to its end."""
        gained = torch.where(happened, self.log_intensity(z), 0).sum((-2, -1))
        return gained - expected.sum(-1)
