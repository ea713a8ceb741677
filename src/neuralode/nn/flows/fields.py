"""Fields for flows: networks of (t, x) that know their own derivative along any direction.

Each declares ``jvp(t, x, vectors, *args)``, its value together with the products of its Jacobian, layer by layer in
plain operations: what `neuralode.nn.flows.products` would find by `torch.func`, in half the time.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, cast

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from neuralode.core.registry import pick


@dataclass(frozen=True)
class Activation:
    """A smooth function of each number, and its slope from what went in and what came out.

    Examples
    --------
    >>> tanh = ACTIVATIONS["tanh"]
    >>> h = torch.zeros(1)
    >>> tanh.slope(h, tanh.value(h))
    tensor([1.])
    """

    value: Callable[[Tensor], Tensor]
    slope: Callable[[Tensor, Tensor], Tensor]


def _tanh_slope(h: Tensor, out: Tensor) -> Tensor:
    return 1 - out * out


def _softplus_slope(h: Tensor, out: Tensor) -> Tensor:
    return torch.sigmoid(h)


def _sin_slope(h: Tensor, out: Tensor) -> Tensor:
    return torch.cos(h)


def _silu_slope(h: Tensor, out: Tensor) -> Tensor:
    gate = torch.sigmoid(h)
    return gate + out * (1 - gate)


def _tanh(h: Tensor) -> Tensor:
    # the same number to rounding; on CPUs torch's own takes several times as long, as much as a product of matrices
    return 2 * torch.sigmoid(2 * h) - 1


# functions with names, not lambdas, so that a field can be pickled
ACTIVATIONS = {
    "tanh": Activation(_tanh, _tanh_slope),
    "softplus": Activation(F.softplus, _softplus_slope),
    "silu": Activation(F.silu, _silu_slope),
    "sin": Activation(torch.sin, _sin_slope),
}


class ConcatSquashField(nn.Module):
    """A field of rows: linear layers, each gated and shifted by what is known beside the state.

    A layer is ``(W x + b) · sigmoid(G s + g) + S s``, where s is the time, and a context if there is one (Grathwohl et
    al., *FFJORD*, 2019). Where s is the same for all rows the gate is taken into W and b, which spares the passes over
    the batch and, going back, the sums over it.

    Parameters
    ----------
    features : int
        Of the state, its only axis beside the batch.
    width, layers : int
        Numbers in a hidden layer, and how many of these.
    context : int
        Numbers that are known of each row: ``field(t, x, context)`` with context of shape [batch, context]; with 0 it
        is ``field(t, x)``.
    activation : {"tanh", "softplus", "silu", "sin"}
        Between layers.

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
        self.activation = pick("activation", activation, ACTIVATIONS, Activation)
        self.widths = [*[width] * layers, features]
        self.linears = nn.ModuleList(nn.Linear(*pair) for pair in pairwise([features, *self.widths]))
        # of all layers at once: small operations cost what they are many, not what they are large
        self.gate = nn.Linear(1 + context, sum(self.widths))
        self.shift = nn.Linear(1 + context, sum(self.widths), bias=False)

    def forward(self, t: Tensor, x: Float[Tensor, "batch features"], *context: Tensor) -> Tensor:
        """The slope at (t, x)."""
        return self._follow(t, x, None, context)[0]

    def jvp(self, t: Tensor, x: Tensor, vectors: Tensor, *context: Tensor) -> tuple[Tensor, Tensor]:
        """The slope at (t, x), and its derivative along vectors [vectors, batch, features]."""
        return self._follow(t, x, vectors, context)

    def _follow(self, t: Tensor, x: Tensor, vectors: Any, context: tuple[Tensor, ...]) -> tuple[Tensor, Any]:
        s = known(x, t, context, self.gate.in_features)
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
    r"""The paper's field: a gated sum of planar units, whose weights a small network makes of the time.

    :math:`f(t, x) = \frac1M \sum_m \sigma_m(t)\, u_m(t) \tanh(w_m(t)^\top x + b_m(t))` (Chen et al. 2018, section 4.1).

    Parameters
    ----------
    features : int
        Of the state.
    units : int
        M, how wide the flow is.
    width : int
        Of the two hidden layers of the network of t.
    context : int
        Numbers that are known of each row, which that network is told too.

    Examples
    --------
    >>> HyperPlanarField(2, units=8)(torch.tensor(0.5), torch.zeros(5, 2)).shape
    torch.Size([5, 2])
    """

    def __init__(self, features: int, units: int = 64, width: int = 32, *, context: int = 0) -> None:
        super().__init__()
        self.features, self.units, self.context = features, units, context
        self.net = nn.Sequential(
            nn.Linear(1 + context, width),
            nn.Tanh(),
            nn.Linear(width, width),
            nn.Tanh(),
            nn.Linear(width, units * (3 * features + 1)),
        )

    def weights(self, t: Tensor, x: Tensor, context: tuple[Tensor, ...]) -> tuple[Tensor, Tensor, Tensor]:
        """W and the gated u, [#batch, units, features] each, and b, [#batch, units]."""
        made = self.net(known(x, t, context, 1 + self.context)).unflatten(-1, (self.units, 3 * self.features + 1))
        w, u, gate, b = made.split([self.features, self.features, self.features, 1], -1)
        return w, u * torch.sigmoid(gate) / self.units, b.squeeze(-1)

    def forward(self, t: Tensor, x: Float[Tensor, "batch features"], *context: Tensor) -> Tensor:
        """The slope at (t, x)."""
        w, u, b = self.weights(t, x, context)
        return _across(_tanh(_along(x, w) + b), u)

    def jvp(self, t: Tensor, x: Tensor, vectors: Tensor, *context: Tensor) -> tuple[Tensor, Tensor]:
        """The slope at (t, x), and its derivative along vectors [vectors, batch, features]."""
        w, u, b = self.weights(t, x, context)
        h = _tanh(_along(x, w) + b)
        return _across(h, u), _across(_along(vectors, w) * (1 - h * h), u)


class ConvFlowField(nn.Module):
    """A field of images: convolutions that are gated and shifted by the time, channel by channel.

    Parameters
    ----------
    channels : int
        Of the image.
    width, layers : int
        Channels of a hidden layer, and how many of these.
    context : int
        Numbers that are known of each image: ``field(t, x, context)``.
    activation : {"softplus", "tanh", "silu", "sin"}
        Between layers.

    Examples
    --------
    >>> ConvFlowField(1, width=8)(torch.tensor(0.5), torch.zeros(5, 1, 8, 8)).shape
    torch.Size([5, 1, 8, 8])
    """

    def __init__(
        self, channels: int, width: int = 32, layers: int = 2, *, context: int = 0, activation: str = "softplus"
    ) -> None:
        super().__init__()
        self.activation = pick("activation", activation, ACTIVATIONS, Activation)
        self.context = context
        widths = [channels, *[width] * layers, channels]
        pairs = list(pairwise(widths))
        self.convolutions = nn.ModuleList(nn.Conv2d(before, after, 3, padding=1) for before, after in pairs)
        self.gates = nn.ModuleList(nn.Linear(1 + context, after) for _, after in pairs)
        self.shifts = nn.ModuleList(nn.Linear(1 + context, after, bias=False) for _, after in pairs)

    def forward(self, t: Tensor, x: Float[Tensor, "batch channels height width"], *context: Tensor) -> Tensor:
        """The slope at (t, x)."""
        return self._follow(t, x, None, context)[0]

    def jvp(self, t: Tensor, x: Tensor, vectors: Tensor, *context: Tensor) -> tuple[Tensor, Tensor]:
        """The slope at (t, x), and its derivative along vectors [vectors, batch, channels, height, width]."""
        return self._follow(t, x, vectors, context)

    def _follow(self, t: Tensor, x: Tensor, vectors: Any, context: tuple[Tensor, ...]) -> tuple[Tensor, Any]:
        s = known(x, t, context, 1 + self.context)
        parts = zip(self.convolutions, self.gates, self.shifts, strict=True)
        for place, (convolution, gating, shifting) in enumerate(parts, start=1):
            gate = torch.sigmoid(gating(s))[:, :, None, None]
            h = torch.addcmul(shifting(s)[:, :, None, None], convolution(x), gate)
            last = place == len(self.convolutions)
            x = h if last else self.activation.value(h)
            if vectors is not None:
                count = vectors.shape[:2]  # vectors and batch are one axis to a convolution
                moved = F.conv2d(vectors.flatten(0, 1), cast(Tensor, convolution.weight), padding=1)
                moved = moved.unflatten(0, count) * gate
                vectors = moved if last else moved * self.activation.slope(h, x)
        return x, vectors


def known(x: Tensor, t: Tensor, context: tuple[Tensor, ...], wanted: int) -> Float[Tensor, "#batch wanted"]:
    """Time, 0-d or one a row, and what else is known of each row, side by side and in the dtype of x.

    Raises
    ------
    ValueError
        For more or fewer numbers a row than the field was made for.

    Examples
    --------
    >>> x, t = torch.zeros(4, 2), torch.tensor(0.5)
    >>> known(x, t, (), 1).shape, known(x, t, (torch.zeros(4, 3),), 4).shape
    (torch.Size([1, 1]), torch.Size([4, 4]))
    """
    column = t.reshape(-1, 1)
    if context:
        rows = (c.reshape(len(c), -1).to(t.dtype) for c in context)
        column = torch.cat((column.expand(len(context[0]), 1), *rows), 1)
    if column.shape[1] != wanted:
        raise ValueError(
            f"field got a context of {column.shape[1] - 1} numbers a row; wanted the {wanted - 1} it was made for: "
            "field(t, x, context) of shape [batch, context]."
        )
    return column.to(x.dtype)


def _along(x: Float[Tensor, "*vectors batch features"], w: Float[Tensor, "#batch units features"]) -> Tensor:
    """wᵀx for every unit: [..., batch, units]."""
    return x @ w[0].mT if len(w) == 1 else torch.einsum("...bf,bmf->...bm", x, w)


def _across(h: Float[Tensor, "*vectors batch units"], u: Float[Tensor, "#batch units features"]) -> Tensor:
    """Σ u h over units: [..., batch, features]."""
    return h @ u[0] if len(u) == 1 else torch.einsum("...bm,bmf->...bf", h, u)
