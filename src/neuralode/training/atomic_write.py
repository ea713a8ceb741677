"""Atomic file writes: write to a temporary name, flush to disk, then rename."""

from __future__ import annotations

import contextlib
import errno
import os
from pathlib import Path

PARTIAL = ".partial"  # suffix of a file that is being written
DISK_FULL = (errno.ENOSPC, errno.EDQUOT)


def replace_file(path: Path, content: bytes) -> None:
    """Replace a file atomically: a reader sees the old content or the new one, never a mixture.

    This also holds after a power failure: the content is flushed to disk before the rename, and the folder entry before
    this function returns.

    Parameters
    ----------
    path : Path
        The file. Its folder must exist.
    content : bytes
        The complete new content.

    Raises
    ------
    OSError
        If the disk is full or cannot be written. The old file is then unchanged.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     replace_file(Path(folder) / "some.txt", b"some")
    ...     [(path.name, path.read_bytes()) for path in Path(folder).iterdir()]
    [('some.txt', b'some')]
    """
    partial = path.with_name(path.name + PARTIAL)
    try:
        with partial.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
        _sync_folder(path.parent)
    except OSError as error:
        with contextlib.suppress(OSError):
            partial.unlink(missing_ok=True)
        raise write_error(path, error) from error


def write_error(path: Path, error: OSError) -> OSError:
    """Return an error of the same type whose message names the path and says what to do."""
    if error.errno in DISK_FULL:
        return OSError(f"the disk of {path} is full; earlier files are intact. Free some space, then use --resume.")
    reason = error.strerror or str(error)
    return type(error)(f"{path} cannot be written ({reason}); wanted a writable folder.")


def _sync_folder(folder: Path) -> None:
    """Flush renames to disk, on systems that can open a folder."""
    try:
        descriptor = os.open(folder, os.O_RDONLY)
    except OSError:
        return
    with contextlib.suppress(OSError):  # some file systems do not support fsync of folders
        os.fsync(descriptor)
    os.close(descriptor)
