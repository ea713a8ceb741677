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
from torch.nn.functional import pad
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


def shift_by_a_pixel(images: Float[Tensor, "batch 1 height width"]) -> Float[Tensor, "batch 1 height width"]:
    """Move every image by -1, 0 or 1 pixels each way, at random; what comes in at the edge is blank.

    Examples
    --------
    >>> import torch
    >>> shift_by_a_pixel(torch.ones(5, 1, 8, 8)).shape
    torch.Size([5, 1, 8, 8])
    """
    batch, _, height, width = images.shape
    by = torch.randint(0, 3, (2, batch, 1), device=images.device)
    rows = by[0] + torch.arange(height, device=images.device)
    columns = by[1] + torch.arange(width, device=images.device)
    which = torch.arange(batch, device=images.device)
    padded = pad(images, (1, 1, 1, 1)).squeeze(1)
    return padded[which[:, None, None], rows[:, :, None], columns[:, None, :]].unsqueeze(1)


def _stratified(rows: np.ndarray, labels: Tensor, fraction: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    first, second = train_test_split(rows, test_size=fraction, stratify=labels[rows], random_state=seed)
    return np.asarray(first), np.asarray(second)
