"""Random crops are parts of their padded images at uniform offsets."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.functional import pad

from neuralode.data.crop import random_crop

SIZES = st.integers(1, 6)


def offsets_in(padded, crop):
    """Return all offsets at which ``crop`` equals a part of ``padded``."""
    height, width = crop.shape[1:]
    rows, columns = padded.shape[1] - height + 1, padded.shape[2] - width + 1
    return {
        (top, left)
        for top in range(rows)
        for left in range(columns)
        if torch.equal(padded[:, top : top + height, left : left + width], crop)
    }


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 4), st.integers(1, 3), SIZES, SIZES, st.integers(0, 3), st.integers(0, 9))
def test_every_crop_is_part_of_its_padded_image(batch, channels, height, width, padding, seed):
    torch.manual_seed(seed)
    images = torch.rand(batch, channels, height, width)
    cropped = random_crop(images, padding)
    assert cropped.shape == images.shape
    for image, crop in zip(images, cropped, strict=True):
        assert offsets_in(pad(image, [padding] * 4), crop)


def test_offsets_are_uniform_and_independent():
    images = torch.arange(1.0, 10).reshape(1, 1, 3, 3).expand(9000, 1, 3, 3)
    offsets = [offsets_in(pad(images[0], [1] * 4), crop).pop() for crop in random_crop(images, 1)]
    counts = torch.tensor([offsets.count((top, left)) for top in range(3) for left in range(3)])
    assert counts.sum() == 9000
    assert (counts - 1000).abs().max() < 5 * 1000**0.5


def test_without_padding_images_are_unchanged():
    images = torch.rand(5, 2, 4, 3)
    assert torch.equal(random_crop(images, 0), images)


def test_the_global_generator_decides():
    images = torch.rand(20, 1, 8, 8)
    torch.manual_seed(1)
    first = random_crop(images)
    torch.manual_seed(1)
    assert torch.equal(random_crop(images), first)
    assert not torch.equal(random_crop(images), first)


def test_the_dtype_is_kept_and_images_are_not_modified():
    images = torch.randint(256, (6, 1, 5, 5), dtype=torch.uint8)
    before = images.clone()
    assert random_crop(images).dtype == torch.uint8
    assert torch.equal(images, before)


def test_invalid_shapes_and_padding_are_rejected():
    with pytest.raises(ValueError, match="images has shape .8, 8.; wanted .batch, channels, height, width."):
        random_crop(torch.rand(8, 8))
    with pytest.raises(ValueError, match="padding is -1"):
        random_crop(torch.rand(1, 1, 8, 8), -1)
