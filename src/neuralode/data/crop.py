"""Images shifted a little at random: the augmentation of the paper's MNIST experiment."""

from __future__ import annotations

import torch
from jaxtyping import Shaped
from torch import Tensor
from torch.nn.functional import pad


def random_crop(
    images: Shaped[Tensor, "batch channels height width"], padding: int = 4
) -> Shaped[Tensor, "batch channels height width"]:
    """Cut every image, at an offset of its own, out of itself with a blank border around it.

    Parameters
    ----------
    images : Tensor[batch, channels, height, width]
        Of any dtype; blank is 0.
    padding : int
        Width of the border in pixels, so that an image moves by at most as much each way; 4 by default, 0 moves none.

    Returns
    -------
    Tensor[batch, channels, height, width]
        Drawn from torch's global generator, which the caller seeds.

    Raises
    ------
    ValueError
        Where ``padding`` is negative or ``images`` has other than four axes.

    Examples
    --------
    >>> import torch
    >>> digit = torch.zeros(1, 1, 5, 5)
    >>> digit[..., 2, 2] = 1
    >>> moved = random_crop(digit.expand(100, 1, 5, 5), padding=2)
    >>> moved.shape, moved.flatten(1).sum(1).unique()
    (torch.Size([100, 1, 5, 5]), tensor([1.]))
    """
    if images.ndim != 4:
        raise ValueError(f"images has shape {list(images.shape)}; wanted [batch, channels, height, width].")
    if padding < 0:
        raise ValueError(f"padding is {padding}; wanted the width of the border in pixels, 0 or more.")
    batch, _, height, width = images.shape
    bordered = pad(images, [padding] * 4)
    cuts = bordered.unfold(2, height, 1).unfold(3, width, 1)  # a view: [batch, channels, top, left, height, width]
    top, left = torch.randint(2 * padding + 1, (2, batch), device=images.device)
    return cuts[torch.arange(batch, device=images.device), :, top, left]
