"""A crop is its own image, moved by no more than the border is wide."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.functional import pad

from neuralode.data.crop import random_crop

SIZES = st.integers(1, 6)


def places_in(bordered, cut):
    """Every offset at which ``cut`` is found."""
    height, width = cut.shape[1:]
    rows, columns = bordered.shape[1] - height + 1, bordered.shape[2] - width + 1
    return {
        (top, left)
        for top in range(rows)
        for left in range(columns)
        if torch.equal(bordered[:, top : top + height, left : left + width], cut)
    }


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 4), st.integers(1, 3), SIZES, SIZES, st.integers(0, 3), st.integers(0, 9))
def test_every_crop_is_cut_out_of_its_own_bordered_image(batch, channels, height, width, padding, seed):
    torch.manual_seed(seed)
    images = torch.rand(batch, channels, height, width)
    cropped = random_crop(images, padding)
    assert cropped.shape == images.shape
    for image, cut in zip(images, cropped, strict=True):
        assert places_in(pad(image, [padding] * 4), cut)


def test_all_offsets_come_up_about_equally_and_each_image_has_its_own():
    images = torch.arange(1.0, 10).reshape(1, 1, 3, 3).expand(9000, 1, 3, 3)
    offsets = [places_in(pad(images[0], [1] * 4), cut).pop() for cut in random_crop(images, 1)]
    counts = torch.tensor([offsets.count((top, left)) for top in range(3) for left in range(3)])
    assert counts.sum() == 9000
    assert (counts - 1000).abs().max() < 5 * 1000**0.5


def test_without_a_border_nothing_moves():
    images = torch.rand(5, 2, 4, 3)
    assert torch.equal(random_crop(images, 0), images)


def test_the_global_generator_decides():
    images = torch.rand(20, 1, 8, 8)
    torch.manual_seed(1)
    first = random_crop(images)
    torch.manual_seed(1)
    assert torch.equal(random_crop(images), first)
    assert not torch.equal(random_crop(images), first)


def test_bytes_stay_bytes_and_the_images_stay_as_they_are():
    images = torch.randint(256, (6, 1, 5, 5), dtype=torch.uint8)
    before = images.clone()
    assert random_crop(images).dtype == torch.uint8
    assert torch.equal(images, before)


def test_other_shapes_and_borders_are_refused():
    with pytest.raises(ValueError, match="images has shape .8, 8.; wanted .batch, channels, height, width."):
        random_crop(torch.rand(8, 8))
    with pytest.raises(ValueError, match="padding is -1"):
        random_crop(torch.rand(1, 1, 8, 8), -1)
