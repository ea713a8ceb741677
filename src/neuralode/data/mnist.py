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
TRAIN, TEST = 60_000, 10_000  # images of the published parts


@dataclass(frozen=True)
class Source:
    """Where the four files of a data set are published.

    Attributes
    ----------
    folder : str
        Folder of the data set in NEURALODE_DATA and in the cache.
    mirrors : tuple of str
        URLs of folders with the files.
    md5 : dict
        Checksum of each file, by name.
    """

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
    """Return the MNIST images, ``[N, 1, 28, 28]`` in [0, 1] in float32, with labels ``[N]``.

    The four files are read from ``mnist/`` in the folder that the environment variable NEURALODE_DATA names. Missing
    files are downloaded to the user's cache. Checksums are verified in both cases.

    Parameters
    ----------
    seed : int, default=0
        Seed of the stratified split of the 60,000 training images into training and validation set.
    validation : int, default=5000
        Number of validation images. The test set is always the 10,000 published test images.

    Returns
    -------
    Split
        Data sets of images with int64 labels.

    Raises
    ------
    OSError
        If a file can neither be found nor downloaded.
    ValueError
        If a file is not the published one, or if ``validation`` leaves a set without images of every class.

    Examples
    --------
    >>> split = mnist()  # doctest: +SKIP
    >>> len(split.train), len(split.validation), len(split.test)  # doctest: +SKIP
    (55000, 5000, 10000)
    """
    return _load(MNIST, seed, validation)


def fashion_mnist(seed: int = 0, *, validation: int = 5000) -> Split:
    """Return the Fashion-MNIST images of clothes, in the form of `mnist`, from the folder ``fashion-mnist/``.

    Parameters
    ----------
    seed : int, default=0
        Seed of the split, as in `mnist`.
    validation : int, default=5000
        Number of validation images, as in `mnist`.

    Raises
    ------
    OSError, ValueError
        As in `mnist`.

    Examples
    --------
    >>> split = fashion_mnist()  # doctest: +SKIP
    >>> split.test.tensors[0].shape  # doctest: +SKIP
    torch.Size([10000, 1, 28, 28])
    """
    return _load(FASHION_MNIST, seed, validation)


def _load(source: Source, seed: int, validation: int) -> Split:
    if not CLASSES <= validation <= TRAIN - CLASSES:
        raise ValueError(
            f"validation is {validation}; wanted a number of images from {CLASSES} to {TRAIN - CLASSES:,}, so that "
            "each class is in both parts."
        )
    images, labels = _read_part(source, "train", TRAIN)
    test_images, test_labels = _read_part(source, "t10k", TEST)
    train_rows, validation_rows = train_test_split(
        np.arange(TRAIN), test_size=validation, stratify=labels.numpy(), random_state=seed
    )
    return Split(
        TensorDataset(_scale(images[train_rows]), labels[train_rows]),
        TensorDataset(_scale(images[validation_rows]), labels[validation_rows]),
        TensorDataset(_scale(test_images), test_labels),
    )


def _read_part(source: Source, part: str, count: int) -> tuple[Tensor, Tensor]:
    """Return the images as bytes, and their labels."""
    images = _read_array(source, f"{part}-images-idx3-ubyte.gz", (count, SIZE, SIZE))
    labels = _read_array(source, f"{part}-labels-idx1-ubyte.gz", (count,))
    return images[:, None], labels.long()


def _read_array(source: Source, name: str, shape: tuple[int, ...]) -> Tensor:
    path = find_file(source.folder, name, md5=source.md5[name], mirrors=source.mirrors)
    numbers = read_idx(path)
    if numbers.shape != shape or numbers.dtype != np.uint8:
        raise ValueError(f"{path} holds {numbers.dtype} of shape {numbers.shape}; wanted uint8 of shape {shape}.")
    return torch.from_numpy(numbers)


def _scale(images: Tensor) -> Tensor:
    return images.float() / PIXEL_MAX
