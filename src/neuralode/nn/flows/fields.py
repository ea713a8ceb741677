"""Fields for flows: networks of (t, x) that compute their own derivative along any direction.

Each declares ``jvp(t, x, vectors, *args)``, which returns the slope and the products of its Jacobian, layer by layer in
plain operations. It takes half the time of `torch.func` in `neuralode.nn.flows.products`.
"""

from __future__ import annotations

from itertools import pairwise
from typing import cast

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from neuralode.core.registry import pick
from neuralode.nn.flows.activations import ACTIVATIONS, Activation, tanh
from neuralode.nn.mlp import mlp


class ConcatSquashField(nn.Module):
    """A field of rows: linear layers whose outputs are gated and shifted by the time and a context.

    A layer is ``(W x + b) · sigmoid(G s + g) + S s``, where s is the time, followed by the context if there is one
    (Grathwohl et al., *FFJORD*, 2019). If s is the same for all rows, the gate multiplies W and b instead of the
    output, which saves passes over the batch, and sums over it in the backward pass.

    Parameters
    ----------
    features : int
        The size of the state.
    width : int, default=64
        The size of a hidden layer.
    layers : int, default=2
        The number of hidden layers.
    context : int, default=0
        The size of the context of each row: ``field(t, x, context)`` with a context [batch, context]. With 0 the field
        is ``field(t, x)``.
    activation : {"tanh", "softplus", "silu", "sin"}, default="tanh"
        The function between layers.

    Raises
    ------
    ValueError
        If the activation is unknown; in `forward`, if the context has another size.

    Examples
    --------
    >>> field = ConcatSquashField(2, width=16, context=3)
    >>> field(torch.tensor(0.5), torch.zeros(5, 2), torch.zeros(5, 3)).shape
    torch.Size([5, 2])
    """

    def __init__(
        self, features: int, width: int = 64, layers: int = 2, *, context: int = 0, activation: str = "tanh"
    ) -> None:
        super().__init__()
        self.activation = pick("activation", activation, ACTIVATIONS, kind=Activation)
        self.widths = [*[width] * layers, features]
        self.linears = nn.ModuleList(nn.Linear(*pair) for pair in pairwise([features, *self.widths]))
        # one operation for all layers: the cost of small operations is that of launching them
        self.gate = nn.Linear(1 + context, sum(self.widths))
        self.shift = nn.Linear(1 + context, sum(self.widths), bias=False)

    def forward(self, t: Tensor, x: Float[Tensor, "batch features"], *context: Tensor) -> Tensor:
        """Return the slope [batch, features]; t is 0-d or one for each row."""
        return self._through_layers(t, x, context)[0]

    def jvp(self, t: Tensor, x: Tensor, vectors: Tensor, *context: Tensor) -> tuple[Tensor, Tensor]:
        """Return the slope, and its derivative along vectors [vectors, batch, features]."""
        slope, along = self._through_layers(t, x, context, vectors=vectors)
        return slope, cast(Tensor, along)

    def _through_layers(
        self, t: Tensor, x: Tensor, context: tuple[Tensor, ...], *, vectors: Tensor | None = None
    ) -> tuple[Tensor, Tensor | None]:
        s = time_and_context(t, x, context, size=self.gate.in_features)
        gates = torch.sigmoid(self.gate(s)).split(self.widths, 1)
        shifts = self.shift(s).split(self.widths, 1)
        for place, (linear, gate, shift) in enumerate(zip(self.linears, gates, shifts, strict=True), start=1):
            weight, bias = cast(nn.Linear, linear).weight, cast(nn.Linear, linear).bias
            if len(s) == 1:
                weight = weight * gate.mT
                h = F.linear(x, weight, torch.addcmul(shift, bias, gate)[0])
            else:
                h = torch.addcmul(shift, F.linear(x, weight, bias), gate)
            if vectors is not None:
                vectors = F.linear(vectors, weight)
                vectors = vectors if len(s) == 1 else vectors * gate
            if place == len(self.widths):
                return h, vectors
            x = self.activation.value(h)
            if vectors is not None:
                vectors = vectors * self.activation.slope(h, x)
        raise AssertionError("there is a last layer")


class HyperPlanarField(nn.Module):
    r"""The field of the paper: a gated sum of planar units whose weights a small network computes from the time.

    :math:`f(t, x) = \frac1M \sum_m \sigma_m(t)\, u_m(t) \tanh(w_m(t)^\top x + b_m(t))` (Chen et al. 2018, section 4.1).

    Parameters
    ----------
    features : int
        The size of the state.
    units : int, default=64
        M, the number of units.
    width : int, default=32
        The size of the two hidden layers of the network of t.
    context : int, default=0
        The size of the context of each row, a further input of that network.

    Raises
    ------
    ValueError
        In `forward`, if the context has another size.

    Examples
    --------
    >>> HyperPlanarField(2, units=8)(torch.tensor(0.5), torch.zeros(5, 2)).shape
    torch.Size([5, 2])
    """

    def __init__(self, features: int, units: int = 64, width: int = 32, *, context: int = 0) -> None:
        super().__init__()
        self.features, self.units, self.context = features, units, context
        self.net = mlp(*[1 + context, width, width, units * (3 * features + 1)])

    def weights(self, t: Tensor, x: Tensor, context: tuple[Tensor, ...]) -> tuple[Tensor, Tensor, Tensor]:
        """Return W and the gated u, [#batch, units, features] each, and b, [#batch, units]."""
        s = time_and_context(t, x, context, size=1 + self.context)
        made = self.net(s).unflatten(-1, (self.units, 3 * self.features + 1))
        w, u, gate, b = made.split([self.features, self.features, self.features, 1], -1)
        return w, u * torch.sigmoid(gate) / self.units, b.squeeze(-1)

    def forward(self, t: Tensor, x: Float[Tensor, "batch features"], *context: Tensor) -> Tensor:
        """Return the slope [batch, features]; t is 0-d or one for each row."""
        w, u, b = self.weights(t, x, context)
        return _sum_over_units(tanh(_project(x, w) + b), u)

    def jvp(self, t: Tensor, x: Tensor, vectors: Tensor, *context: Tensor) -> tuple[Tensor, Tensor]:
        """Return the slope, and its derivative along vectors [vectors, batch, features]."""
        w, u, b = self.weights(t, x, context)
        h = tanh(_project(x, w) + b)
        return _sum_over_units(h, u), _sum_over_units(_project(vectors, w) * (1 - h * h), u)


class ConvFlowField(nn.Module):
    """A field of images: convolutions whose channels are gated and shifted by the time and a context.

    Parameters
    ----------
    channels : int
        Channels of the image.
    width : int, default=32
        Channels of a hidden layer.
    layers : int, default=2
        The number of hidden layers.
    context : int, default=0
        The size of the context of each image: ``field(t, x, context)``.
    activation : {"softplus", "tanh", "silu", "sin"}, default="softplus"
        The function between layers.

    Raises
    ------
    ValueError
        If the activation is unknown; in `forward`, if the context has another size.

    Examples
    --------
    >>> ConvFlowField(1, width=8)(torch.tensor(0.5), torch.zeros(5, 1, 8, 8)).shape
    torch.Size([5, 1, 8, 8])
    """

    def __init__(
        self, channels: int, width: int = 32, layers: int = 2, *, context: int = 0, activation: str = "softplus"
    ) -> None:
        super().__init__()
        self.activation = pick("activation", activation, ACTIVATIONS, kind=Activation)
        self.context = context
        widths = [channels, *[width] * layers, channels]
        pairs = list(pairwise(widths))
        self.convolutions = nn.ModuleList(nn.Conv2d(before, after, 3, padding=1) for before, after in pairs)
        self.gates = nn.ModuleList(nn.Linear(1 + context, after) for _, after in pairs)
        self.shifts = nn.ModuleList(nn.Linear(1 + context, after, bias=False) for _, after in pairs)

    def forward(self, t: Tensor, x: Float[Tensor, "batch channels height width"], *context: Tensor) -> Tensor:
        """Return the slope [batch, channels, height, width]; t is 0-d or one for each image."""
        return self._through_layers(t, x, context)[0]

    def jvp(self, t: Tensor, x: Tensor, vectors: Tensor, *context: Tensor) -> tuple[Tensor, Tensor]:
        """Return the slope, and its derivative along vectors [vectors, batch, channels, height, width]."""
        slope, along = self._through_layers(t, x, context, vectors=vectors)
        return slope, cast(Tensor, along)

    def _through_layers(
        self, t: Tensor, x: Tensor, context: tuple[Tensor, ...], *, vectors: Tensor | None = None
    ) -> tuple[Tensor, Tensor | None]:
        s = time_and_context(t, x, context, size=1 + self.context)
        parts = zip(self.convolutions, self.gates, self.shifts, strict=True)
        for place, (convolution, gate_layer, shift_layer) in enumerate(parts, start=1):
            gate = torch.sigmoid(gate_layer(s))[:, :, None, None]
            h = torch.addcmul(shift_layer(s)[:, :, None, None], convolution(x), gate)
            last = place == len(self.convolutions)
            x = h if last else self.activation.value(h)
            if vectors is not None:
                count = vectors.shape[:2]  # vectors and batch are one axis of a convolution
                along = F.conv2d(vectors.flatten(0, 1), cast(Tensor, convolution.weight), padding=1)
                along = along.unflatten(0, count) * gate
                vectors = along if last else along * self.activation.slope(h, x)
        return x, vectors


def time_and_context(t: Tensor, x: Tensor, context: tuple[Tensor, ...], *, size: int) -> Float[Tensor, "#batch size"]:
    """Return the time and the context side by side, in the dtype of x.

    Parameters
    ----------
    t : Tensor[] or Tensor[batch]
        The time.
    x : Tensor[batch, *event]
        The state, for its dtype.
    context : tuple of Tensor[batch, *any]
        The context of each row.
    size : int
        The expected size of the result, 1 for the time included.

    Returns
    -------
    Tensor[batch, size] or Tensor[1, size]
        One row for all where neither depends on the row.

    Raises
    ------
    ValueError
        If the context has another size.

    Examples
    --------
    >>> x, t = torch.zeros(4, 2), torch.tensor(0.5)
    >>> time_and_context(t, x, (), size=1).shape, time_and_context(t, x, (torch.zeros(4, 3),), size=4).shape
    (torch.Size([1, 1]), torch.Size([4, 4]))
    """
    column = t.reshape(-1, 1)
    if context:
        rows = (c.reshape(len(c), -1).to(t.dtype) for c in context)
        column = torch.cat((column.expand(len(context[0]), 1), *rows), 1)
    if column.shape[1] != size:
        raise ValueError(
            f"field got a context of {column.shape[1] - 1} numbers a row; wanted the {size - 1} it was made for: "
            "field(t, x, context) of shape [batch, context]."
        )
    return column.to(x.dtype)


def _project(x: Float[Tensor, "*vectors batch features"], w: Float[Tensor, "#batch units features"]) -> Tensor:
    """Return wᵀx for every unit: [..., batch, units]."""
    return x @ w[0].mT if len(w) == 1 else torch.einsum("...bf,bmf->...bm", x, w)


def _sum_over_units(h: Float[Tensor, "*vectors batch units"], u: Float[Tensor, "#batch units features"]) -> Tensor:
    """Return Σ u h over units: [..., batch, features]."""
    return h @ u[0] if len(u) == 1 else torch.einsum("...bm,bmf->...bf", h, u)
