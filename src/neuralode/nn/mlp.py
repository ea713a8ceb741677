"""Multilayer perceptrons, for fields, encoders and decoders."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

from jaxtyping import Float
from torch import Tensor, nn


def mlp(*widths: int, activation: Callable[[], nn.Module] = nn.Tanh) -> nn.Sequential:
    """Return a multilayer perceptron.

    Parameters
    ----------
    *widths : int
        The sizes of input, hidden layers and output.
    activation : callable, default=nn.Tanh
        Makes the activation module between two layers.

    Examples
    --------
    >>> import torch
    >>> mlp(2, 16, 1)(torch.zeros(5, 2)).shape
    torch.Size([5, 1])
    """
    layers: list[nn.Module] = []
    for before, after in pairwise(widths):
        layers += [nn.Linear(before, after), activation()]
    return nn.Sequential(*layers[:-1])


class MLPField(nn.Module):
    """A field ``dy/dt = MLP(y)`` that does not depend on time.

    Parameters
    ----------
    features : int
        The size of the last axis of the state.
    width : int, default=32
        The size of a hidden layer.
    layers : int, default=1
        The number of hidden layers.
    activation : callable, default=nn.Tanh
        Makes the activation module between two layers.

    Examples
    --------
    >>> import torch
    >>> MLPField(4, width=20)(torch.tensor(0.0), torch.zeros(3, 4)).shape
    torch.Size([3, 4])
    """

    def __init__(
        self, features: int, width: int = 32, layers: int = 1, activation: Callable[[], nn.Module] = nn.Tanh
    ) -> None:
        super().__init__()
        self.net = mlp(features, *[width] * layers, features, activation=activation)

    def forward(self, t: Tensor, y: Float[Tensor, "... features"]) -> Float[Tensor, "... features"]:
        """Return the slope at y; t is ignored."""
        return self.net(y)
