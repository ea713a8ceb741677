"""Idx files are read as they were written, and other files are rejected with a reason."""

import gzip
import struct

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from neuralode.data.idx import DTYPES, read_idx


def written(array: np.ndarray) -> bytes:
    [code] = [code for code, name in DTYPES.items() if np.dtype(name) == array.dtype]
    header = bytes([0, 0, code, array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape)
    return header + array.astype(array.dtype.newbyteorder(">")).tobytes()


SOME = written(np.arange(6, dtype=np.int16).reshape(2, 3))
ARRAYS = st.sampled_from(sorted(DTYPES.values())).flatmap(
    lambda dtype: arrays.arrays(dtype, arrays.array_shapes(min_dims=1, max_dims=4, min_side=0, max_side=4))
)


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    return tmp_path_factory.mktemp("idx") / "some.idx"


@settings(deadline=None)
@given(array=ARRAYS, zipped=st.booleans())
def test_reading_restores_a_written_array(path, array, zipped):
    path.write_bytes(gzip.compress(written(array)) if zipped else written(array))
    found = read_idx(path)
    assert found.dtype == array.dtype
    assert found.dtype.isnative
    assert found.flags.writeable
    np.testing.assert_array_equal(found, array)


def test_an_array_without_dimensions_is_read(path):
    path.write_bytes(bytes([0, 0, 0x08, 0, 7]))
    assert read_idx(path).item() == 7


@settings(deadline=None)
@given(length=st.integers(0, len(SOME) - 1))
def test_a_truncated_file_is_rejected(path, length):
    path.write_bytes(SOME[:length])
    with pytest.raises(ValueError, match=r"some\.idx (begins with|ends after|holds)"):
        read_idx(path)


@settings(deadline=None)
@given(added=st.binary(min_size=1, max_size=8))
def test_bytes_after_the_numbers_are_rejected(path, added):
    path.write_bytes(SOME + added)
    with pytest.raises(ValueError, match=f"holds {12 + len(added)} bytes .* 2 x 3 numbers of 2 bytes, which are 12"):
        read_idx(path)


@settings(deadline=None)
@given(length=st.integers(2, len(gzip.compress(SOME)) - 1))
def test_a_truncated_gzip_file_is_rejected(path, length):
    path.write_bytes(gzip.compress(SOME)[:length])
    with pytest.raises(ValueError, match="is gzipped but cannot be read to its end"):
        read_idx(path)


def test_other_files_are_rejected_by_their_first_bytes(path):
    path.write_bytes(b"\x89PNG\r\n")
    with pytest.raises(ValueError, match="begins with the bytes 89 50 4e 47; an idx file with 00 00"):
        read_idx(path)
    path.write_bytes(b"")
    with pytest.raises(ValueError, match=r"begins with the bytes \(none\)"):
        read_idx(path)


@pytest.mark.parametrize("code", [0x00, 0x0A, 0x0F, 0xFF])
def test_unknown_types_are_rejected(path, code):
    path.write_bytes(bytes([0, 0, code, 1, 0, 0, 0, 0]))
    with pytest.raises(ValueError, match=f"type 0x{code:02X}; an idx file has one of 0x08 .uint8."):
        read_idx(path)


def test_impossible_sizes_are_rejected_without_allocation(path):
    path.write_bytes(bytes([0, 0, 0x0E, 255]) + b"\xff" * 4 * 255)
    with pytest.raises(ValueError, match="holds 0 bytes of numbers"):
        read_idx(path)
