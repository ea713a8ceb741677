"""A field for flow matching: residual layers, conditioned on the time and on a class."""

from __future__ import annotations

import math

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn

FREQUENCIES = 16
# The ratio of the longest to the shortest period of the time features. A larger one costs adaptive solves many steps.
PERIODS = 100.0


class ResidualField(nn.Module):
    """A field of samples of any shape: residual layers on the flattened sample, scaled and shifted by time and class.

    It is designed for flow matching and sampling on a grid. Its time features oscillate, and so do its slopes: for
    training by likelihood use a smoother field, such as `ConcatSquashField`.

    Parameters
    ----------
    shape : int or tuple of int
        The shape of one sample.
    width : int, default=256
        The size of a hidden layer.
    layers : int, default=3
        The number of residual layers.
    classes : int, default=0
        The number of classes: ``field(t, x, label)``, with ``label == classes`` for a row without a class. With 0 the
        field is ``field(t, x)``.

    Raises
    ------
    ValueError
        In `forward`, if there are classes but no label.

    Examples
    --------
    >>> field = ResidualField((1, 8, 8), width=32, classes=10)
    >>> field(torch.tensor(0.5), torch.zeros(3, 1, 8, 8), torch.tensor([0, 7, 10])).shape
    torch.Size([3, 1, 8, 8])
    """

    def __init__(self, shape: int | tuple[int, ...], width: int = 256, layers: int = 3, *, classes: int = 0) -> None:
        super().__init__()
        features = math.prod((shape,) if isinstance(shape, int) else shape)
        self.enter, self.leave = nn.Linear(features, width), nn.Linear(width, features)
        self.time = nn.Sequential(nn.Linear(2 * FREQUENCIES + 1, width), nn.SiLU(), nn.Linear(width, width))
        self.label = nn.Embedding(classes + 1, width) if classes else None
        self.layers = nn.ModuleList(Residual(width) for _ in range(layers))
        nn.init.zeros_(self.leave.weight)  # start at 0, near the mean velocity of all data
        nn.init.zeros_(self.leave.bias)

    def forward(
        self, t: Tensor, x: Float[Tensor, "batch *event"], label: Int64[Tensor, " batch"] | None = None
    ) -> Float[Tensor, "batch *event"]:
        """Return the slope; t is 0-d or one for each row."""
        condition = self.time(time_features(t).to(x.dtype))
        if self.label is not None:
            if label is None:
                raise ValueError(
                    f"label is missing; wanted field(t, x, label) of {self.label.num_embeddings - 1} classes."
                )
            condition = condition + self.label(label)
        h = self.enter(x.flatten(1))
        for layer in self.layers:
            h = layer(h, condition)
        return self.leave(nn.functional.silu(h)).reshape(x.shape)


class Residual(nn.Module):
    """``x + W₂ silu(W₁ (scale · norm(x) + shift))``, with scale and shift computed from a condition.

    Parameters
    ----------
    width : int
        The size of x and of the condition.

    Examples
    --------
    >>> Residual(8)(torch.zeros(5, 8), torch.zeros(1, 8)).shape
    torch.Size([5, 8])
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width, elementwise_affine=False)
        self.told = nn.Linear(width, 2 * width)  # scale and shift; saved weights hold this name
        self.net = nn.Sequential(nn.Linear(width, width), nn.SiLU(), nn.Linear(width, width))

    def forward(self, x: Float[Tensor, "batch width"], condition: Float[Tensor, "#batch width"]) -> Tensor:
        """Return the output of the layer [batch, width]."""
        scale, shift = self.told(nn.functional.silu(condition)).chunk(2, -1)
        return x + self.net(torch.addcmul(shift, self.norm(x), 1 + scale))


def time_features(t: Tensor) -> Float[Tensor, "times features"]:
    """Return times, 0-d or one for each row, with their sines and cosines at frequencies from low to high.

    Examples
    --------
    >>> time_features(torch.tensor(0.5)).shape, time_features(torch.zeros(7)).shape
    (torch.Size([1, 33]), torch.Size([7, 33]))
    """
    column = t.reshape(-1, 1)
    exponents = torch.arange(FREQUENCIES, dtype=t.dtype, device=t.device) / (FREQUENCIES - 1)
    angle = column * torch.exp(exponents * math.log(PERIODS))
    return torch.cat((column, torch.sin(angle), torch.cos(angle)), 1)
