"""The 1,797 handwritten digits of scikit-learn: 8 x 8 pixels, from 43 writers [1]_.

References
----------
.. [1] E. Alpaydin, C. Kaynak, "Optical Recognition of Handwritten Digits", UCI Machine Learning Repository, 1998.
   https://doi.org/10.24432/C50P49
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch import Tensor
from torch.nn.functional import affine_grid, grid_sample
from torch.utils.data import TensorDataset

PIXEL_MAX = 16.0


@dataclass(frozen=True)
class Split:
    """Disjoint training, validation and test sets."""

    train: TensorDataset
    validation: TensorDataset
    test: TensorDataset


def digits(seed: int = 0, *, test: float = 0.2, validation: float = 0.1) -> Split:
    """Return images ``[N, 1, 8, 8]`` in [0, 1] with labels ``[N]``, in a stratified split.

    Parameters
    ----------
    seed : int, default=0
        Seed of the split.
    test : float, default=0.2
        Fraction of all images in the test set.
    validation : float, default=0.1
        Fraction of the remaining images in the validation set.

    Returns
    -------
    Split
        Data sets of float32 images with int64 labels.

    Examples
    --------
    >>> split = digits()
    >>> len(split.train), len(split.validation), len(split.test)
    (1293, 144, 360)
    >>> split.test.tensors[0].shape
    torch.Size([360, 1, 8, 8])
    """
    pixels, targets = load_digits(return_X_y=True)
    images = torch.tensor(np.asarray(pixels) / PIXEL_MAX, dtype=torch.float32).reshape((-1, 1, 8, 8))
    labels = torch.tensor(np.asarray(targets), dtype=torch.int64)

    remaining, test_rows = _stratified_split(np.arange(len(labels)), labels, fraction=test, seed=seed)
    train_rows, validation_rows = _stratified_split(remaining, labels, fraction=validation, seed=seed)
    return Split(*(TensorDataset(images[rows], labels[rows]) for rows in (train_rows, validation_rows, test_rows)))


def write_again(images: Float[Tensor, "batch 1 height width"]) -> Float[Tensor, "batch 1 height width"]:
    """Apply a small random affine transform to each image, like the variation of repeated handwriting.

    Rotations are up to 6 degrees, scalings up to 6 percent and shifts up to 0.6 of a pixel for 8 x 8 pixels. Pixels
    from outside the image are 0. Transforms are drawn from torch's global generator.

    Parameters
    ----------
    images : Tensor[batch, 1, height, width]
        Images of a floating-point dtype.

    Returns
    -------
    Tensor[batch, 1, height, width]
        The transformed images.

    Examples
    --------
    >>> import torch
    >>> write_again(torch.ones(5, 1, 8, 8)).shape
    torch.Size([5, 1, 8, 8])
    """

    def uniform(bound: float) -> Tensor:
        return (2 * torch.rand(len(images), device=images.device, dtype=images.dtype) - 1) * bound

    angle, scale = uniform(0.1), 1 + uniform(0.06)
    cosine, sine = scale * angle.cos(), scale * angle.sin()
    rows = [torch.stack([cosine, -sine, uniform(0.15)], dim=1), torch.stack([sine, cosine, uniform(0.15)], dim=1)]
    grid = affine_grid(torch.stack(rows, dim=1), list(images.shape), align_corners=False)
    return grid_sample(images, grid, align_corners=False)


def _stratified_split(rows: np.ndarray, labels: Tensor, *, fraction: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    first, second = train_test_split(rows, test_size=fraction, stratify=labels[rows], random_state=seed)
    return np.asarray(first), np.asarray(second)
