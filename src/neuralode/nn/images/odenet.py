"""The networks of Chen et al. 2018, Table 1: the same stem and head, and different blocks between them.

`ODENet` has a neural ODE between them, `ResNet` a stack of residual blocks: one, six, or none, as a control for stem
and head alone. On 28 x 28 images with one channel the ODE-Net has 208,266 parameters, as in the script of the authors.

References
----------
.. [1] R. T. Q. Chen, Y. Rubanova, J. Bettencourt, D. Duvenaud, "Neural Ordinary Differential Equations", NeurIPS 2018.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import conv2d

from neuralode.nn.block import NeuralODE


class ODENet(nn.Module):
    """Image classifier with an ODE block between stem and head.

    Parameters
    ----------
    in_channels : int, default=1
        Channels of the images.
    classes : int, default=10
        The number of classes.
    channels : int, default=64
        Channels of the hidden state: a multiple of 32, or less.
    downsample : int, default=2
        The number of strided convolutions in the stem. Each halves height and width; two suit 28 x 28 images, one
        8 x 8.
    **solver
        Keywords of `NeuralODE`. Here rtol and atol are 1e-3 by default, as in the paper.

    Examples
    --------
    >>> import torch
    >>> net = ODENet()
    >>> sum(p.numel() for p in net.parameters())
    208266
    >>> net(torch.zeros(2, 1, 28, 28)).shape
    torch.Size([2, 10])
    >>> net.ode.stats.calls > 0
    True
    """

    def __init__(
        self, *, in_channels: int = 1, classes: int = 10, channels: int = 64, downsample: int = 2, **solver: Any
    ) -> None:
        super().__init__()
        self.stem = _stem(in_channels, channels, downsample)
        tolerance: dict[str, Any] = {"rtol": 1e-3, "atol": 1e-3}
        self.ode = NeuralODE(ConvField(channels), **(tolerance | solver))
        self.head = _head(channels, classes)

    def forward(self, images: Float[Tensor, "batch in_channels height width"]) -> Float[Tensor, "batch classes"]:
        """Return one logit for each class."""
        maps = self.stem(images).to(images.dtype)  # autocast narrows the stem, but must not narrow the state
        return self.head(self.ode(maps))


class ResNet(nn.Module):
    """Image classifier with residual blocks between the stem and the head of `ODENet`.

    Parameters
    ----------
    blocks : int, default=6
        The number of residual blocks; 6 in the paper, 0 in the control.
    in_channels : int, default=1
        Channels of the images.
    classes : int, default=10
        The number of classes.
    channels : int, default=64
        Channels of the hidden state: a multiple of 32, or less.
    downsample : int, default=2
        The number of strided convolutions in the stem.

    Examples
    --------
    >>> [sum(p.numel() for p in ResNet(blocks=n).parameters()) for n in (6, 1, 0)]
    [576778, 206858, 132874]
    """

    def __init__(
        self, blocks: int = 6, *, in_channels: int = 1, classes: int = 10, channels: int = 64, downsample: int = 2
    ) -> None:
        super().__init__()
        self.stem = _stem(in_channels, channels, downsample)
        self.blocks = nn.Sequential(*(ResidualBlock(channels) for _ in range(blocks)))
        self.head = _head(channels, classes)

    def forward(self, images: Float[Tensor, "batch in_channels height width"]) -> Float[Tensor, "batch classes"]:
        """Return one logit for each class."""
        return self.head(self.blocks(self.stem(images)))


class ConvField(nn.Module):
    """The field of the paper on feature maps: GN, ReLU, conv, GN, ReLU, conv, GN, with ``t`` as an input of both convs.

    Parameters
    ----------
    channels : int
        Channels of the state: a multiple of 32, or less.

    Examples
    --------
    >>> import torch
    >>> ConvField(64)(torch.tensor(0.5), torch.zeros(2, 64, 6, 6)).shape
    torch.Size([2, 64, 6, 6])
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm1 = _norm(channels)
        self.conv1 = nn.Conv2d(channels + 1, channels, kernel_size=3, padding=1)
        self.norm2 = _norm(channels)
        self.conv2 = nn.Conv2d(channels + 1, channels, kernel_size=3, padding=1)
        self.norm3 = _norm(channels)

    def forward(
        self, t: Float[Tensor, "*batch"], y: Float[Tensor, "batch channels height width"]
    ) -> Float[Tensor, "batch channels height width"]:
        """Return the slope at y; t is 0-d or one for each image."""
        y = _conv_with_time(self.conv1, t, torch.relu(self.norm1(y)))
        y = _conv_with_time(self.conv2, t, torch.relu(self.norm2(y)))
        return self.norm3(y)


class ResidualBlock(nn.Module):
    """A residual block ``y + conv(relu(GN(conv(relu(GN(y))))))``; the ODE block is its continuous limit.

    Parameters
    ----------
    channels : int
        Channels of the state: a multiple of 32, or less.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm1 = _norm(channels)
        self.conv1 = nn.Conv2d(channels, channels, kernel_size=3, padding=1, bias=False)
        self.norm2 = _norm(channels)
        self.conv2 = nn.Conv2d(channels, channels, kernel_size=3, padding=1, bias=False)

    def forward(self, y: Float[Tensor, "batch channels height width"]) -> Float[Tensor, "batch channels height width"]:
        """Return the next feature maps."""
        change = self.conv1(torch.relu(self.norm1(y)))
        return y + self.conv2(torch.relu(self.norm2(change)))


# All take in_channels, classes, channels and downsample; the ODE models also the keywords of NeuralODE.
MODELS: dict[str, type[nn.Module] | partial[nn.Module]] = {
    "odenet": ODENet,
    "rknet": partial(ODENet, gradient="direct"),  # the same net, with backpropagation through the solver
    "resnet": partial(ResNet, 6),
    "resnet1": partial(ResNet, 1),
    "noblock": partial(ResNet, 0),
}


def _stem(in_channels: int, channels: int, downsample: int) -> nn.Sequential:
    layers: list[nn.Module] = [nn.Conv2d(in_channels, channels, kernel_size=3)]
    for _ in range(downsample):
        layers += [_norm(channels), nn.ReLU(), nn.Conv2d(channels, channels, kernel_size=4, stride=2, padding=1)]
    return nn.Sequential(*layers)


def _head(channels: int, classes: int) -> nn.Sequential:
    pool = [_norm(channels), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()]
    return nn.Sequential(*pool, nn.Linear(channels, classes))


def _norm(channels: int) -> nn.GroupNorm:
    return nn.GroupNorm(min(32, channels), channels)


def _conv_with_time(
    conv: nn.Conv2d, t: Float[Tensor, "*batch"], y: Float[Tensor, "batch channels height width"]
) -> Float[Tensor, "batch channels height width"]:
    """Return ``conv`` of ``y`` with an additional first channel that equals ``t``, without making that channel.

    A constant channel contributes the constant times the convolution of ones, which is the same for all images. Adding
    it is faster than concatenating a channel and convolving 65 channels, a number that vector registers do not divide.
    """
    assert conv.bias is not None
    time_weight, maps_weight = conv.weight.split([1, y.shape[1]], dim=1)
    ones = y.new_ones(1, 1, *y.shape[2:])  # its convolution is not constant, because the border is padded with zeros
    added = t.to(y.dtype).reshape((-1, 1, 1, 1)) * conv2d(ones, time_weight, padding=conv.padding)
    return conv2d(y, maps_weight, padding=conv.padding) + (added + conv.bias[:, None, None])
