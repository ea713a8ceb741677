"""The split of the digits is disjoint and stratified, and the augmentation changes images little."""

import torch

from neuralode.data import digits, write_again


def rows(part) -> set[bytes]:
    return {image.numpy().tobytes() for image in part.tensors[0]}


def test_the_split_is_complete_and_stratified():
    split = digits(seed=0)
    assert sum(map(len, (split.train, split.validation, split.test))) == 1797
    assert len(split.test) == 360  # a fifth
    for part in (split.train, split.validation, split.test):
        shares = torch.bincount(part.tensors[1], minlength=10) / len(part)
        assert (shares - 0.1).abs().max() < 0.02


def test_the_split_is_disjoint():
    split = digits(seed=0)
    train, validation, test = map(rows, (split.train, split.validation, split.test))
    assert not train & test
    assert not train & validation
    assert not validation & test


def test_the_seed_decides_the_split():
    assert torch.equal(digits(1).test.tensors[0], digits(1).test.tensors[0])
    assert not torch.equal(digits(1).test.tensors[1], digits(2).test.tensors[1])


def test_pixels_lie_between_zero_and_one():
    images = digits().train.tensors[0]
    assert images.dtype == torch.float32
    assert (images.min(), images.max()) == (0.0, 1.0)


def test_write_again_keeps_shape_and_mean():
    images = digits().train.tensors[0][:200]
    again = write_again(images)
    assert again.shape == images.shape
    assert not torch.equal(again, images)
    ink = again.sum() / images.sum()
    assert 0.9 < ink < 1.1
    assert (again - images).abs().mean() < 0.15
