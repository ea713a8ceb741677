"""A field for flow matching: residual layers that are told the time finely, and a class if there are any."""

from __future__ import annotations

import math

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn

PERIODS = 100.0  # of the longest period of the features of time to the shortest; more cost adaptive solves many steps


class ResidualField(nn.Module):
    """A field of any event: residual layers on its numbers side by side, scaled and shifted by time and class.

    It is made for being taught velocities and sampled on a grid. Its time features oscillate, and so do its slopes: for
    training by likelihood take a smoother one, such as `ConcatSquashField`.

    Parameters
    ----------
    shape : int or tuple of int
        Of one sample.
    width, layers : int
        Numbers in a hidden layer, and how many residual layers.
    classes : int
        Of which a row is one: ``field(t, x, label)``, with ``label == classes`` for a row of which none is known. With
        0 it is ``field(t, x)``.

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
        nn.init.zeros_(self.leave.weight)  # begins as the mean velocity of all, which is near 0
        nn.init.zeros_(self.leave.bias)

    def forward(
        self, t: Tensor, x: Float[Tensor, "batch *event"], label: Int64[Tensor, " batch"] | None = None
    ) -> Float[Tensor, "batch *event"]:
        """The slope at (t, x)."""
        known = self.time(time_features(t).to(x.dtype))
        if self.label is not None:
            if label is None:
                raise ValueError(
                    f"label is missing; wanted field(t, x, label) of {self.label.num_embeddings - 1} classes."
                )
            known = known + self.label(label)
        h = self.enter(x.flatten(1))
        for layer in self.layers:
            h = layer(h, known)
        return self.leave(nn.functional.silu(h)).reshape(x.shape)


class Residual(nn.Module):
    """x + W₂ silu(W₁ (scale · norm(x) + shift)), scale and shift made of what is known.

    Examples
    --------
    >>> Residual(8)(torch.zeros(5, 8), torch.zeros(1, 8)).shape
    torch.Size([5, 8])
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width, elementwise_affine=False)
        self.told = nn.Linear(width, 2 * width)
        self.net = nn.Sequential(nn.Linear(width, width), nn.SiLU(), nn.Linear(width, width))

    def forward(self, x: Float[Tensor, "batch width"], known: Float[Tensor, "#batch width"]) -> Tensor:
        """The layer at x."""
        scale, shift = self.told(nn.functional.silu(known)).chunk(2, -1)
        return x + self.net(torch.addcmul(shift, self.norm(x), 1 + scale))


FREQUENCIES = 16


def time_features(t: Tensor) -> Float[Tensor, "times features"]:
    """Times, 0-d or one a row, as themselves and as sines and cosines from slow to fast.

    Examples
    --------
    >>> time_features(torch.tensor(0.5)).shape, time_features(torch.zeros(7)).shape
    (torch.Size([1, 33]), torch.Size([7, 33]))
    """
    column = t.reshape(-1, 1)
    place = torch.arange(FREQUENCIES, dtype=t.dtype, device=t.device) / (FREQUENCIES - 1)
    angle = column * torch.exp(place * math.log(PERIODS))
    return torch.cat((column, torch.sin(angle), torch.cos(angle)), 1)
