"""A network for rows of a table, whose depth is a differential equation."""

from __future__ import annotations

from typing import Any

from jaxtyping import Float
from torch import Tensor, nn

from neuralode.nn.block import NeuralODE
from neuralode.nn.mlp import MLPField


class TabularODENet(nn.Module):
    """From a row of numbers to one or several: lift them linearly, follow a field, read the end off linearly.

    The state may have more numbers than the row: trajectories of an equation in the space of the rows cannot cross,
    and what must cross there needs the room (Dupont, Doucet & Teh, *Augmented Neural ODEs*, 2019).

    Parameters
    ----------
    features, outputs : int
        Numbers of a row, and of the answer: logits, say, or targets.
    hidden : int
        Numbers in the state.
    width, layers : int
        Of the hidden layers of the field, an MLP.
    **solver
        As in `NeuralODE`, which goes from 0 to 1; by default ``rtol = atol = 1e-3``.

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
        """Answer for each row."""
        return self.head(self.ode(self.lift(rows)))
