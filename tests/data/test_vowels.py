"""Japanese Vowels are read in the published split."""

from importlib.util import find_spec

import numpy as np
import pytest

from neuralode.data import vowels
from neuralode.data.vowels import japanese_vowels

installed = pytest.mark.skipif(find_spec("aeon") is None, reason="needs the files of aeon==1.6.0")


@installed
def test_the_published_split_is_complete():
    train, test = japanese_vowels()
    assert (len(train), len(test)) == (270, 370)
    assert np.bincount(train.speakers)[1:].tolist() == [30] * 9
    assert np.bincount(test.speakers)[1:].tolist() == [31, 35, 88, 44, 29, 24, 40, 50, 29]  # as published by UCI


@installed
def test_series_keep_their_lengths_and_have_no_missing_values():
    series = [x for part in japanese_vowels() for x in part.series]
    assert {x.shape[1] for x in series} == {12}
    assert min(map(len, series)) == 7
    assert max(map(len, series)) == 29
    assert all(np.isfinite(x).all() for x in series)
    assert series[0][:2, 0].tolist() == [1.860936, 1.891651]


def test_without_the_package_the_error_says_what_to_install(monkeypatch):
    monkeypatch.setattr(vowels, "find_spec", lambda name: None)
    with pytest.raises(ImportError, match=r"pip install --no-deps aeon==1\.6\.0 brings its files"):
        japanese_vowels()
