"""Files that are whole or not there: what is written is written aside, and takes its place in one step."""

from __future__ import annotations

import contextlib
import errno
import os
from pathlib import Path

PARTIAL = ".partial"  # behind the name of a file that is being written
FULL = (errno.ENOSPC, errno.EDQUOT)


def replace_file(path: Path, content: bytes) -> None:
    """Write ``content`` so that a reader finds the old file or the new one, never half of one.

    Neither does a computer that stops: the content is on the disk before it takes the name, and the name before this
    returns.

    Parameters
    ----------
    path : Path
        Its folder must be there.
    content : bytes
        All of the file.

    Raises
    ------
    OSError
        In a sentence, where the disk is full or does not let itself be written; the old file is then as it was.

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
        _keep_names(path.parent)
    except OSError as error:
        _drop(partial)
        raise unwritten(path, error) from error


def unwritten(path: Path, error: OSError) -> OSError:
    """The same error, in a sentence that says what to do."""
    if error.errno in FULL:
        return OSError(f"the disk of {path} is full; what was there before is whole. Make room, and go on by --resume.")
    why = error.strerror or str(error)
    return type(error)(f"{path} cannot be written ({why}); wanted a folder that can be.")


def _keep_names(folder: Path) -> None:
    """Let the disk know of names that have changed, where a system lets folders be opened."""
    try:
        descriptor = os.open(folder, os.O_RDONLY)
    except OSError:
        return
    with contextlib.suppress(OSError):  # some file systems have no such call for folders
        os.fsync(descriptor)
    os.close(descriptor)


def _drop(partial: Path) -> None:
    with contextlib.suppress(OSError):
        partial.unlink(missing_ok=True)
