"""Arrays in idx files, the format of MNIST [1]_.

An idx file has two zero bytes, a byte for the type of the numbers, a byte for the number of dimensions, the size of
each dimension as an unsigned 32-bit integer, and the numbers in row-major order. All of it is big-endian.

References
----------
.. [1] Y. LeCun, C. Cortes, C. J. C. Burges, "The MNIST database of handwritten digits", 1998.
   http://yann.lecun.com/exdb/mnist/
"""

from __future__ import annotations

import gzip
import math
import zlib
from os import PathLike
from pathlib import Path

import numpy as np

DTYPES = {0x08: "u1", 0x09: "i1", 0x0B: "i2", 0x0C: "i4", 0x0D: "f4", 0x0E: "f8"}
GZIP_MAGIC = b"\x1f\x8b"


def read_idx(path: str | PathLike[str]) -> np.ndarray:
    r"""Return the array in an idx file, gzipped or plain.

    Parameters
    ----------
    path : path
        Path of the file. Compression is detected from its first bytes, not from its name.

    Raises
    ------
    ValueError
        If the file is not an idx file, or if its length does not match its header.

    Examples
    --------
    >>> from pathlib import Path
    >>> from tempfile import TemporaryDirectory
    >>> with TemporaryDirectory() as folder:
    ...     file = Path(folder, "some.idx")
    ...     _ = file.write_bytes(bytes([0, 0, 0x08, 2, 0, 0, 0, 2, 0, 0, 0, 3, 1, 2, 3, 4, 5, 6]))
    ...     read_idx(file)
    array([[1, 2, 3], [4, 5, 6]], dtype=uint8)
    """
    content = _content(Path(path))
    dtype, shape, start = _header(content, path)
    expected, size = math.prod(shape) * dtype.itemsize, len(content) - start
    if size != expected:
        raise ValueError(
            f"{path} holds {size:,} bytes of numbers; its header says {' x '.join(map(str, shape))} numbers of "
            f"{dtype.itemsize} bytes, which are {expected:,}. Download the file again."
        )
    numbers = np.frombuffer(content, dtype, offset=start).reshape(shape)
    return numbers.astype(dtype.newbyteorder("="))  # a writable copy in native byte order


def _content(path: Path) -> bytes:
    content = path.read_bytes()
    if not content.startswith(GZIP_MAGIC):
        return content
    try:
        return gzip.decompress(content)
    except (EOFError, OSError, zlib.error) as error:
        raise ValueError(f"{path} is gzipped but cannot be read to its end ({error}); download it again.") from error


def _header(content: bytes, path: str | PathLike[str]) -> tuple[np.dtype, tuple[int, ...], int]:
    """Return the type and the shape of the numbers, and the offset of the first."""
    if len(content) < 4 or content[:2] != b"\0\0":
        raise ValueError(f"{path} begins with the bytes {content[:4].hex(' ') or '(none)'}; an idx file with 00 00.")
    kind, dimensions = content[2], content[3]
    if kind not in DTYPES:
        known = ", ".join(f"0x{code:02X} ({np.dtype(name)})" for code, name in DTYPES.items())
        raise ValueError(f"{path} has numbers of type 0x{kind:02X}; an idx file has one of {known}.")
    start = 4 + 4 * dimensions
    if len(content) < start:
        raise ValueError(f"{path} ends after {len(content)} bytes; a header of {dimensions} dimensions has {start}.")
    shape = tuple(int(size) for size in np.frombuffer(content, ">u4", dimensions, offset=4))
    return np.dtype(DTYPES[kind]).newbyteorder(">"), shape, start
