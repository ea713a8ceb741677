"""MNIST [1]_ and Fashion-MNIST [2]_: 70,000 images of 28 x 28 pixels each, in ten classes.

References
----------
.. [1] Y. LeCun, L. Bottou, Y. Bengio, P. Haffner, "Gradient-based learning applied to document recognition",
   Proceedings of the IEEE 86, 1998.
.. [2] H. Xiao, K. Rasul, R. Vollgraf, "Fashion-MNIST: a novel image dataset for benchmarking machine learning
   algorithms", 2017. https://arxiv.org/abs/1708.07747
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from sklearn.model_selection import train_test_split
from torch import Tensor
from torch.utils.data import TensorDataset

from neuralode.data.digits import Split
from neuralode.data.download import find_file
from neuralode.data.idx import read_idx

CLASSES, SIZE, PIXEL_MAX = 10, 28, 255
LEARNED, REPORTED = 60_000, 10_000  # images of the two parts, as they were published


@dataclass(frozen=True)
class Source:
    """Four files, with the md5 each has, and where they can be fetched."""

    folder: str
    mirrors: tuple[str, ...]
    md5: dict[str, str]


MNIST = Source(
    "mnist",
    ("https://ossci-datasets.s3.amazonaws.com/mnist/", "https://storage.googleapis.com/cvdf-datasets/mnist/"),
    {
        "train-images-idx3-ubyte.gz": "f68b3c2dcbeaaa9fbdd348bbdeb94873",
        "train-labels-idx1-ubyte.gz": "d53e105ee54ea40749a09fcbcd1e9432",
        "t10k-images-idx3-ubyte.gz": "9fb629c4189551a2d022fa330f9573f3",
        "t10k-labels-idx1-ubyte.gz": "ec29112dd5afa0611ce80d1b7f02629c",
    },
)
FASHION_MNIST = Source(
    "fashion-mnist",
    (
        "https://raw.githubusercontent.com/zalandoresearch/fashion-mnist/master/data/fashion/",
        "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",
    ),
    {
        "train-images-idx3-ubyte.gz": "8d4fb7e6c68d591d4c3dfef9ec88bf0d",
        "train-labels-idx1-ubyte.gz": "25c81989df183df01b3e8a0aad5dffbe",
        "t10k-images-idx3-ubyte.gz": "bef4ecab320f06d8554ea6380940ec79",
        "t10k-labels-idx1-ubyte.gz": "bb300cfdad3c16e7a12a480ee83cd310",
    },
)


def mnist(seed: int = 0, *, validation: int = 5000) -> Split:
    """Return handwritten digits, ``[N, 1, 28, 28]`` in [0, 1] in float32, with their labels ``[N]``.

    The four files are read from ``mnist/`` in the folder that the environment variable NEURALODE_DATA names; those that
    are not there are downloaded to the user's cache, once. Either way their checksums are verified.

    Parameters
    ----------
    seed : int
        Decides which of the 60,000 images to learn from are kept for validation, classes in proportion.
    validation : int
        How many they are. The test images are always the 10,000 that were published as such.

    Raises
    ------
    OSError
        Where a file can neither be found nor downloaded.
    ValueError
        Where a file is not the one that was published, or ``validation`` leaves a part without images of every class.

    Examples
    --------
    >>> split = mnist()  # doctest: +SKIP
    >>> len(split.train), len(split.validation), len(split.test)  # doctest: +SKIP
    (55000, 5000, 10000)
    """
    return _load(MNIST, seed, validation)


def fashion_mnist(seed: int = 0, *, validation: int = 5000) -> Split:
    """Return pictures of clothes, in the form of `mnist`; the folder is ``fashion-mnist/``.

    Parameters
    ----------
    seed, validation : int
        As in `mnist`.

    Raises
    ------
    OSError, ValueError
        As `mnist` does.

    Examples
    --------
    >>> split = fashion_mnist()  # doctest: +SKIP
    >>> split.test.tensors[0].shape  # doctest: +SKIP
    torch.Size([10000, 1, 28, 28])
    """
    return _load(FASHION_MNIST, seed, validation)


def _load(source: Source, seed: int, validation: int) -> Split:
    if not CLASSES <= validation <= LEARNED - CLASSES:
        raise ValueError(
            f"validation is {validation}; wanted a number of images from {CLASSES} to {LEARNED - CLASSES:,}, so that "
            "each class is in both parts."
        )
    images, labels = _part(source, "train", LEARNED)
    tested, answers = _part(source, "t10k", REPORTED)
    fitted, chosen = train_test_split(
        np.arange(LEARNED), test_size=validation, stratify=labels.numpy(), random_state=seed
    )
    return Split(
        TensorDataset(_pixels(images[fitted]), labels[fitted]),
        TensorDataset(_pixels(images[chosen]), labels[chosen]),
        TensorDataset(_pixels(tested), answers),
    )


def _part(source: Source, part: str, count: int) -> tuple[Tensor, Tensor]:
    """Images as bytes, and labels."""
    images = _array(source, f"{part}-images-idx3-ubyte.gz", (count, SIZE, SIZE))
    labels = _array(source, f"{part}-labels-idx1-ubyte.gz", (count,))
    return images[:, None], labels.long()


def _array(source: Source, name: str, shape: tuple[int, ...]) -> Tensor:
    path = find_file(source.folder, name, source.md5[name], source.mirrors)
    numbers = read_idx(path)
    if numbers.shape != shape or numbers.dtype != np.uint8:
        raise ValueError(f"{path} holds {numbers.dtype} of shape {numbers.shape}; wanted uint8 of shape {shape}.")
    return torch.from_numpy(numbers)


def _pixels(images: Tensor) -> Tensor:
    return images.float() / PIXEL_MAX
