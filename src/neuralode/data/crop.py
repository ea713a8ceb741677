"""Random crops of padded images, the data augmentation of the paper's MNIST experiment."""

from __future__ import annotations

import torch
from jaxtyping import Shaped
from torch import Tensor
from torch.nn.functional import pad


def random_crop(
    images: Shaped[Tensor, "batch channels height width"], padding: int = 4
) -> Shaped[Tensor, "batch channels height width"]:
    """Pad each image with zeros and crop it to its size again, at an independent random offset.

    Offsets are drawn from torch's global generator.

    Parameters
    ----------
    images : Tensor[batch, channels, height, width]
        Images of any dtype; they are not changed.
    padding : int, default=4
        Width of the border in pixels, which is the largest shift in each direction.

    Returns
    -------
    Tensor[batch, channels, height, width]
        The cropped images.

    Raises
    ------
    ValueError
        If ``padding`` is negative, or ``images`` does not have four axes.

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
    padded = pad(images, [padding] * 4)
    crops = padded.unfold(2, height, 1).unfold(3, width, 1)  # a view: [batch, channels, top, left, height, width]
    top, left = torch.randint(2 * padding + 1, (2, batch), device=images.device)
    return crops[torch.arange(batch, device=images.device), :, top, left]
