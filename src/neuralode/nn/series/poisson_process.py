"""Event times as an inhomogeneous Poisson process whose intensity depends on the latent state.

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
    r"""Several kinds of events, each with an intensity λ(z(t)) along a latent trajectory dz/dt = f(t, z).

    The log-likelihood of events at times t_i is :math:`\sum_i \log \lambda(z(t_i)) - \int \lambda(z(t)) dt`. The
    integral is an additional state of the same equation: `along` turns a field of z into one of (z, ∫λ).

    Parameters
    ----------
    features : int
        The size of z.
    kinds : int, default=1
        The number of kinds of events.
    width : int, default=20
        The size of the hidden layer between z and log λ.

    Examples
    --------
    >>> import neuralode as node
    >>> process = PoissonProcess(features=2, kinds=1)
    >>> field = process.along(lambda t, z: -z)
    >>> z, total = node.solve(field, process.begin(torch.ones(3, 2)), torch.linspace(0, 1, 5)).ys
    >>> z.shape, total.shape  # at each of 5 times: states, and the expected number of events so far
    (torch.Size([5, 3, 2]), torch.Size([5, 3, 1]))
    """

    def __init__(self, features: int, kinds: int = 1, width: int = 20) -> None:
        super().__init__()
        self.kinds = kinds
        self.log_intensity = mlp(features, width, kinds)

    def along(self, f: Callable[..., Tensor]) -> Callable[..., tuple[Tensor, Tensor]]:
        """Return the field of (z, expected number of events since the start)."""

        def field(t: Tensor, state: tuple[Tensor, Tensor], *args: Tensor) -> tuple[Tensor, Tensor]:
            z = state[0]
            return f(t, z, *args), self.log_intensity(z).exp()

        return field

    def begin(self, z: Float[Tensor, "rows features"]) -> tuple[Tensor, Tensor]:
        """Return the initial state: z, and an expected number of 0 events."""
        return z, z.new_zeros(*z.shape[:-1], self.kinds)

    def log_prob(
        self,
        z: Float[Tensor, "... steps features"],
        happened: Bool[Tensor, "... steps kinds"],
        expected: Float[Tensor, "... kinds"],
    ) -> Float[Tensor, "..."]:
        """Return the log-likelihood of events.

        Parameters
        ----------
        z : Tensor[..., steps, features]
            States of a trajectory.
        happened : BoolTensor[..., steps, kinds]
            Which kinds of events occurred at each state.
        expected : Tensor[..., kinds]
            The expected number of events up to the end of the trajectory.
        """
        log_intensities = torch.where(happened, self.log_intensity(z), 0).sum((-2, -1))
        return log_intensities - expected.sum(-1)
