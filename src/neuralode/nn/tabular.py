"""A network for the rows of a table, with a neural ODE inside."""

from __future__ import annotations

from typing import Any

from jaxtyping import Float
from torch import Tensor, nn

from neuralode.nn.block import NeuralODE
from neuralode.nn.mlp import MLPField


class TabularODENet(nn.Module):
    """A network for rows: a linear lift, a neural ODE, and a linear head.

    The state may be larger than the row. Trajectories cannot cross in the space of the rows; extra dimensions let them
    pass each other (Dupont, Doucet & Teh, *Augmented Neural ODEs*, 2019).

    Parameters
    ----------
    features : int
        The size of a row.
    outputs : int
        The size of the output, such as logits or targets.
    hidden : int, default=32
        The size of the state.
    width : int, default=64
        The size of a hidden layer of the field, an MLP.
    layers : int, default=1
        The number of hidden layers of the field.
    **solver
        Keywords of `NeuralODE`, which solves from 0 to 1. Here rtol and atol are 1e-3 by default.

    Examples
    --------
    >>> import torch
    >>> net = TabularODENet(4, 3, hidden=8, width=16)
    >>> net(torch.zeros(5, 4)).shape
    torch.Size([5, 3])
    >>> net.ode.stats.calls > 0
    True
    """

    def __init__(
        self, features: int, outputs: int, *, hidden: int = 32, width: int = 64, layers: int = 1, **solver: Any
    ) -> None:
        super().__init__()
        tolerance: dict[str, Any] = {"rtol": 1e-3, "atol": 1e-3}
        self.lift = nn.Linear(features, hidden)
        self.ode = NeuralODE(MLPField(hidden, width, layers), **(tolerance | solver))
        self.head = nn.Linear(hidden, outputs)

    def forward(self, rows: Float[Tensor, "batch features"]) -> Float[Tensor, "batch outputs"]:
        """Return the output for each row."""
        return self.head(self.ode(self.lift(rows)))
