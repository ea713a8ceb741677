"""The 1,797 handwritten digits that come with scikit-learn: 8 x 8 pixels, from 43 people [1]_.

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
    """Three disjoint parts of one data set: to fit, to choose by, and to report on."""

    train: TensorDataset
    validation: TensorDataset
    test: TensorDataset


def digits(seed: int = 0, *, test: float = 0.2, validation: float = 0.1) -> Split:
    """Return images ``[N, 1, 8, 8]`` in [0, 1] with their labels ``[N]``, split with the classes in proportion.

    Parameters
    ----------
    seed : int
        Decides which image goes where.
    test : float
        Fraction of all images that is kept for the report.
    validation : float
        Fraction of what remains that is kept for choosing (early stopping, the best epoch).

    Examples
    --------
    >>> split = digits()
    >>> len(split.train), len(split.validation), len(split.test)
    (1293, 144, 360)
    >>> split.test.tensors[0].shape
    torch.Size([360, 1, 8, 8])
    """
    pixels, targets = load_digits(return_X_y=True)
    images = torch.tensor(np.asarray(pixels) / PIXEL_MAX, dtype=torch.float32).reshape(-1, 1, 8, 8)
    labels = torch.tensor(np.asarray(targets), dtype=torch.int64)

    rest, reported = _stratified(np.arange(len(labels)), labels, test, seed)
    fitted, chosen = _stratified(rest, labels, validation, seed)
    train, held_out, tested = (TensorDataset(images[rows], labels[rows]) for rows in (fitted, chosen, reported))
    return Split(train, held_out, tested)


def write_again(images: Float[Tensor, "batch 1 height width"]) -> Float[Tensor, "batch 1 height width"]:
    """Turn, scale and shift every image a little, at random: as the same digit would come out a second time.

    Up to 6 degrees, 6 percent and 0.6 of a pixel of 8 each way; what comes in at the edge is blank.

    Examples
    --------
    >>> import torch
    >>> write_again(torch.ones(5, 1, 8, 8)).shape
    torch.Size([5, 1, 8, 8])
    """

    def spread(by: float) -> Tensor:
        return (2 * torch.rand(len(images), device=images.device, dtype=images.dtype) - 1) * by

    angle, scale = spread(0.1), 1 + spread(0.06)
    cosine, sine = scale * angle.cos(), scale * angle.sin()
    rows = [torch.stack([cosine, -sine, spread(0.15)], dim=1), torch.stack([sine, cosine, spread(0.15)], dim=1)]
    grid = affine_grid(torch.stack(rows, dim=1), list(images.shape), align_corners=False)
    return grid_sample(images, grid, align_corners=False)


def _stratified(rows: np.ndarray, labels: Tensor, fraction: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    first, second = train_test_split(rows, test_size=fraction, stratify=labels[rows], random_state=seed)
    return np.asarray(first), np.asarray(second)
