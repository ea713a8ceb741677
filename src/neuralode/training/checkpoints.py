"""Checkpoint files: the last two of a training, each written atomically and with its digest in its name.

::

    checkpoints/step-00000250-3f9a0c5e77b1d2e4.ckpt     16 hexadecimal digits of the SHA-256 of the content
    checkpoints/step-00000300-90aa17b40c66f0d3.ckpt

A file whose content does not match its digest is rejected before it is parsed. Valid files are loaded as tensors and
plain values: no code in them is executed.
"""

from __future__ import annotations

import hashlib
import io
import re
import warnings
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from lightning.fabric.plugins import CheckpointIO

from neuralode.training.atomic_write import PARTIAL, replace_file

Content = dict[str, Any]

COUNT = 2  # checkpoints that are kept
NAME = re.compile(r"step-(\d+)-([0-9a-f]{16})\.ckpt")
DAMAGED = ".damaged"  # suffix added to a file that was found damaged
OLD_FORMAT = "last.ckpt"  # written by earlier versions
PARTS = {"state_dict": dict, "loops": dict, "callbacks": dict, "optimizer_states": list, "lr_schedulers": list}


class CheckpointWarning(UserWarning):
    """Warning about checkpoints that does not stop the training."""


@dataclass(frozen=True)
class Checkpoints:
    """The checkpoints in a folder.

    Parameters
    ----------
    folder : Path
        Their folder. It need not exist to list them, but must exist to write one.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     checkpoints = Checkpoints(Path(folder))
    ...     for step in (10, 20, 30):
    ...         _ = checkpoints.write({"weights": torch.ones(1)}, step)
    ...     [path.name[:14] for path in checkpoints.files()], checkpoints.read(checkpoints.files()[0])
    (['step-00000030-', 'step-00000020-'], {'weights': tensor([1.])})
    """

    folder: Path

    def files(self) -> list[Path]:
        """Return the checkpoint files, the newest first."""
        if not self.folder.is_dir():
            return []
        order = {}
        for path in self.folder.iterdir():
            match = NAME.fullmatch(path.name)
            with suppress(FileNotFoundError):  # a running training may delete old files meanwhile
                order |= {path: (int(match[1]), path.stat().st_mtime_ns)} if match else {}
        return sorted(order, key=lambda path: order[path], reverse=True)

    def write(self, content: Content, step: int) -> Path:
        """Write a checkpoint and delete all but the last two; `OSError` if the disk is full."""
        buffer = io.BytesIO()
        torch.save(content, buffer)
        data = buffer.getvalue()
        path = self.folder / f"step-{step:08d}-{_digest(data)}.ckpt"
        replace_file(path, data)
        for old in [other for other in self.files() if other != path][COUNT - 1 :]:
            old.unlink(missing_ok=True)
        return path

    def read(self, path: Path) -> Content:
        """Return the content of a checkpoint; `ValueError` if it is damaged or not a checkpoint."""
        match = NAME.fullmatch(path.name)
        data = path.read_bytes()
        if match is None or _digest(data) != match[2]:
            raise ValueError(f"{path} is damaged: its content is not what was written")
        try:
            content = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
        except Exception as error:  # torch.load raises many types for invalid data
            raise ValueError(f"{path} is not a checkpoint of a training") from error
        if not isinstance(content, dict):
            raise ValueError(f"{path} is not a checkpoint of a training")
        return content

    def newest(self, check: Callable[[Path, Content], None]) -> Path | None:
        """Return the newest valid checkpoint, or None if there are no checkpoints.

        Newer files that are invalid are renamed, with a warning.

        Parameters
        ----------
        check : callable
            Given path and content, raises `ValueError` with the reason if the checkpoint cannot be used.

        Raises
        ------
        ValueError
            If there are checkpoints, but all are damaged, of another training, or of an older version.
        """
        invalid: list[tuple[Path, str]] = []
        for path in self.files():
            try:
                check(path, self.read(path))
            except ValueError as error:
                invalid.append((path, str(error)))
                continue
            for damaged, reason in invalid:
                warnings.warn(f"{reason}; resuming from {path.name}, the one before.", CheckpointWarning, stacklevel=2)
                damaged.replace(damaged.with_name(damaged.name + DAMAGED))
            return path
        if invalid:
            raise ValueError(
                f"{'; '.join(reason for _, reason in invalid)}. There is no other checkpoint to resume from: delete "
                f"{self.folder} to start again, which with the same seed gives the same weights."
            )
        if (self.folder / OLD_FORMAT).exists():
            raise ValueError(
                f"{self.folder / OLD_FORMAT} was written by an older version of neuralode, and this version cannot "
                f"resume from it; delete {self.folder} to start again."
            )
        return None

    def clear(self) -> None:
        """Delete all checkpoints, and partial files of interrupted writes."""
        for path in self.files():
            path.unlink(missing_ok=True)
        self.delete_partial()

    def delete_partial(self) -> None:
        """Delete partial files of interrupted writes."""
        for partial in self.folder.glob(f"*{PARTIAL}"):
            partial.unlink(missing_ok=True)


class CheckpointPlugin(CheckpointIO):
    """Lightning plugin that reads and writes through `Checkpoints`."""

    def __init__(self, checkpoints: Checkpoints) -> None:
        self.checkpoints = checkpoints

    def save_checkpoint(self, checkpoint: Content, path: Any, storage_options: Any = None) -> None:  # noqa: D102
        self.checkpoints.write(checkpoint, checkpoint["global_step"])

    def load_checkpoint(self, path: Any, map_location: Any = None, weights_only: bool | None = None) -> Content:  # noqa: D102
        return self.checkpoints.read(Path(path))

    def remove_checkpoint(self, path: Any) -> None:  # noqa: D102
        Path(path).unlink(missing_ok=True)


def check_parts(path: Path, content: Content) -> None:
    """Raise `ValueError` if the content of a checkpoint lacks a part that every training writes."""
    for name, kind in PARTS.items():
        if not isinstance(content.get(name), kind):
            raise ValueError(f"{path} is not a checkpoint of a training: it has no {name}")
    if not all(isinstance(state, dict) for state in content["callbacks"].values()):
        raise ValueError(f"{path} is not a checkpoint of a training: its callbacks have no state")


def expect(value: Any, kind: type, name: str) -> Any:
    """Return a value read from a checkpoint; `ValueError` if it has the wrong type."""
    if not isinstance(value, kind):
        raise ValueError(f"{name} is {type(value).__name__}; wanted {kind.__name__}")
    return value


def has_same_counters(state: Any, reference: Any) -> bool:
    """Return whether a nested state has all the counters of a reference: non-negative integers under the same keys."""
    if isinstance(reference, dict):
        return isinstance(state, dict) and all(has_same_counters(state.get(k), part) for k, part in reference.items())
    return type(state) is type(reference) and 0 <= state < 2**62


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()[:16]
