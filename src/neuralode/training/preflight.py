"""Checks before a training starts: its folder can be written, the disk has room, the learning rate is valid."""

from __future__ import annotations

import math
import shutil
import tempfile
from pathlib import Path

from neuralode.training.atomic_write import write_error

CHECKPOINTS = 3  # on disk at once: two that are kept, and one that is being written
TENSORS_PER_WEIGHT = 4  # in a checkpoint: the weight, two moments of Adam, and the best weight so far
MARGIN = 16 << 20  # bytes for tables, figures and weights


def check_folder(folder: Path) -> None:
    """Raise `OSError` unless files can be created in ``folder``, which need not exist yet.

    Examples
    --------
    >>> check_folder(Path(tempfile.gettempdir()) / "no" / "such" / "folder")
    """
    existing = nearest_existing(folder)
    try:
        if not existing.is_dir():
            raise NotADirectoryError(f"{existing} is a file; wanted a folder for the results.")
        with tempfile.TemporaryFile(dir=existing):
            pass
    except NotADirectoryError:
        raise
    except OSError as error:
        raise write_error(folder, error) from error


def check_room(folder: Path, weights: int) -> None:
    """Raise `OSError` unless the disk has room for the checkpoints of a training.

    Parameters
    ----------
    folder : Path
        Folder of the checkpoints.
    weights : int
        Size of the weights in bytes.
    """
    needed = CHECKPOINTS * TENSORS_PER_WEIGHT * weights + MARGIN
    free = shutil.disk_usage(nearest_existing(folder)).free
    if free < needed:
        raise OSError(
            f"the disk of {folder} has {free / 2**20:,.0f} MiB left, and checkpoints of this training need "
            f"{needed / 2**20:,.0f} MiB; free some space, or choose a folder on another disk."
        )


def nearest_existing(path: Path) -> Path:
    """Return the path itself, or its closest parent that exists."""
    path = path.absolute()
    while not path.exists() and path != path.parent:
        path = path.parent
    return path


def check_learning_rate(learning_rate: float) -> None:
    """Raise `ValueError` unless a learning rate is positive and finite."""
    if not 0 < learning_rate < math.inf:
        raise ValueError(f"learning_rate={learning_rate!r}; wanted a number above 0.")
