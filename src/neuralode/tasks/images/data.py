"""The image data sets of `neuralode train`, and their batches."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import lightning as L
import torch
from torch import Tensor
from torch.utils.data import BatchSampler, DataLoader, RandomSampler, TensorDataset

from neuralode.data import Split, digits, write_again
from neuralode.data.crop import random_crop
from neuralode.data.mnist import fashion_mnist, mnist
from neuralode.tasks.images.module import Batch
from neuralode.training.resumable_loader import ResumableLoader

CLASSES = 10
AT_ONCE = 1000  # images per batch without gradients


@dataclass(frozen=True)
class ImageSet:
    """A data set of images in ten classes.

    Parameters
    ----------
    split : callable
        Maps a seed to training, validation and test images.
    augment : callable
        Returns a training batch with random changes to each image.
    size : int
        Height and width in pixels.
    downsample : int
        Number of times the stem of a model halves the size.
    """

    split: Callable[[int], Split]
    augment: Callable[[Tensor], Tensor]
    size: int
    downsample: int


# To add a data set, add it here and to DEFAULTS in config.py.
IMAGE_SETS: Mapping[str, ImageSet] = {
    "digits": ImageSet(digits, write_again, size=8, downsample=1),  # 3 x 3 feature maps after the stem
    "mnist": ImageSet(mnist, random_crop, size=28, downsample=2),
    "fashion-mnist": ImageSet(fashion_mnist, random_crop, size=28, downsample=2),
}


class ImagesData(L.LightningDataModule):
    """Batches of the three parts of a data set.

    Parameters
    ----------
    split : Split
        Training, validation and test images.
    batch_size : int
        Images per training batch.
    augment : callable
        Applied to each training batch.
    channels_last : bool, default=False
        Use the channels-last memory format.
    """

    def __init__(
        self, split: Split, batch_size: int, augment: Callable[[Tensor], Tensor], *, channels_last: bool = False
    ) -> None:
        super().__init__()
        self.split, self.batch_size, self.augment = split, batch_size, augment
        self.channels_last = channels_last

    def train_dataloader(self) -> ResumableLoader[Batch] | DataLoader:  # noqa: D102
        assert self.trainer is not None
        if self.trainer.world_size > 1:  # Lightning distributes the images only of loaders that it recognises
            return DataLoader(self.split.train, self.batch_size, shuffle=True)
        order = BatchSampler(RandomSampler(self.split.train), self.batch_size, drop_last=False)
        # Batches of indices: indexing whole tensors is faster than single rows.
        return ResumableLoader(DataLoader(self.split.train, sampler=order, batch_size=None))

    def val_dataloader(self) -> DataLoader:  # noqa: D102
        return _ordered(self.split.validation)

    def test_dataloader(self) -> DataLoader:  # noqa: D102
        return _ordered(self.split.test)

    def on_after_batch_transfer(self, batch: Batch, dataloader_idx: int) -> Batch:  # noqa: D102
        images, labels = batch
        assert self.trainer is not None
        images = self.augment(images) if self.trainer.training else images
        return (images.contiguous(memory_format=torch.channels_last) if self.channels_last else images), labels


def _ordered(part: TensorDataset) -> DataLoader:
    return DataLoader(part, min(len(part), AT_ONCE))
