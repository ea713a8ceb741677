"""What is looked at before work starts: whether there is a place for its results, and room."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

from neuralode.training.atomic_write import unwritten

COPIES = 3  # of a checkpoint: two that are kept, and one that is written
PARTS = 4  # of a checkpoint, each as large as the weights: these, two moments of each, and the best so far
MARGIN = 16 << 20  # bytes for tables, pictures and weights


def check_folder(folder: Path) -> None:
    """Raise `OSError` unless files can be made in ``folder``, or where it would be made.

    Examples
    --------
    >>> check_folder(Path(tempfile.gettempdir()) / "no" / "such" / "folder")
    """
    there = nearest(folder)
    try:
        if not there.is_dir():
            raise NotADirectoryError(f"{there} is a file; wanted a folder for the results.")
        with tempfile.TemporaryFile(dir=there):
            pass
    except NotADirectoryError:
        raise
    except OSError as error:
        raise unwritten(folder, error) from error


def check_room(folder: Path, weights: int) -> None:
    """Raise `OSError` unless there is room in ``folder`` for all checkpoints of a training at their largest.

    Parameters
    ----------
    folder : Path
        Where they go.
    weights : int
        Bytes of the weights.
    """
    wanted = COPIES * PARTS * weights + MARGIN
    free = shutil.disk_usage(nearest(folder)).free
    if free < wanted:
        raise OSError(
            f"the disk of {folder} has {free / 2**20:,.0f} MiB left, and checkpoints of this training want "
            f"{wanted / 2**20:,.0f} MiB; make room, or choose a folder on another disk."
        )


def nearest(folder: Path) -> Path:
    """``folder``, or what is there of the path to it."""
    there = folder.absolute()
    while not there.exists() and there != there.parent:
        there = there.parent
    return there
