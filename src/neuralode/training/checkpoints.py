"""The checkpoints of a training: the last two, each with its digest in its name, neither ever half of one.

::

    checkpoints/step-00000250-3f9a0c5e77b1d2e4.ckpt     sixteen digits of the sha256 of what is in it
    checkpoints/step-00000300-90aa17b40c66f0d3.ckpt

A file whose content has another digest is damaged, and is refused before a byte of it is interpreted; one that is whole
is read as tensors and plain values, and nothing in it is executed.
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

KEPT = 2
NAME = re.compile(r"step-(\d+)-([0-9a-f]{16})\.ckpt")
DAMAGED = ".damaged"  # behind the name of a file that was found so
OLDER = "last.ckpt"  # what earlier versions went on from
PARTS = {"state_dict": dict, "loops": dict, "callbacks": dict, "optimizer_states": list, "lr_schedulers": list}


class CheckpointWarning(UserWarning):
    """Something about checkpoints that one should know, though the training goes on."""


@dataclass(frozen=True)
class Checkpoints:
    """Those in a folder.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     some = Checkpoints(Path(folder))
    ...     for step in (10, 20, 30):
    ...         _ = some.write({"weights": torch.ones(1)}, step)
    ...     [path.name[:14] for path in some.files()], some.read(some.files()[0])
    (['step-00000030-', 'step-00000020-'], {'weights': tensor([1.])})
    """

    folder: Path

    def files(self) -> list[Path]:
        """Those that are there, the newest first."""
        if not self.folder.is_dir():
            return []
        found = {}
        for path in self.folder.iterdir():
            match = NAME.fullmatch(path.name)
            with suppress(FileNotFoundError):  # a training that goes on meanwhile drops old ones
                found |= {path: (int(match[1]), path.stat().st_mtime_ns)} if match else {}
        return sorted(found, key=lambda path: found[path], reverse=True)

    def write(self, content: Content, step: int) -> Path:
        """Add one, and drop those that are older than the last two; `OSError` where there is no room for it."""
        buffer = io.BytesIO()
        torch.save(content, buffer)
        whole = buffer.getvalue()
        path = self.folder / f"step-{step:08d}-{_digest(whole)}.ckpt"
        replace_file(path, whole)
        for old in [other for other in self.files() if other != path][KEPT - 1 :]:
            old.unlink(missing_ok=True)
        return path

    def read(self, path: Path) -> Content:
        """What is in one of them; `ValueError` if it is damaged, or never was a checkpoint."""
        match = NAME.fullmatch(path.name)
        whole = path.read_bytes()
        if match is None or _digest(whole) != match[2]:
            raise ValueError(f"{path} is damaged: its content is not what was written")
        try:
            content = torch.load(io.BytesIO(whole), map_location="cpu", weights_only=True)
        except Exception as error:  # what comes of bytes that someone made up is of many kinds
            raise ValueError(f"{path} is not a checkpoint of a training") from error
        if not isinstance(content, dict):
            raise ValueError(f"{path} is not a checkpoint of a training")
        return content

    def newest(self, check: Callable[[Path, Content], None]) -> Path | None:
        """The newest one that is whole and passes ``check``; None if there are none.

        Parameters
        ----------
        check : callable
            Given a checkpoint, raises `ValueError` with what is wrong with it.

        Raises
        ------
        ValueError
            If there are some, but all of them are damaged or foreign, or were written by an older version.
        """
        files, wrong = self.files(), []
        for path in files:
            try:
                check(path, self.read(path))
            except ValueError as error:
                wrong.append((path, str(error)))
                continue
            for damaged, why in wrong:
                warnings.warn(f"{why}; going on from {path.name}, the one before.", CheckpointWarning, stacklevel=2)
                damaged.replace(damaged.with_name(damaged.name + DAMAGED))
            return path
        if wrong:
            raise ValueError(
                f"{'; '.join(why for _, why in wrong)}. There is no other checkpoint to go on from: delete "
                f"{self.folder} to begin again, which with the same seed comes to the same weights."
            )
        if (self.folder / OLDER).exists():
            raise ValueError(
                f"{self.folder / OLDER} was written by an older version of neuralode, from which this one cannot go "
                f"on; delete {self.folder} to begin again."
            )
        return None

    def clear(self) -> None:
        """Remove what an earlier training left, and what was being written as one was cut off."""
        for path in self.files():
            path.unlink(missing_ok=True)
        self.tidy()

    def tidy(self) -> None:
        """Remove what was being written as a training was cut off."""
        for partial in self.folder.glob(f"*{PARTIAL}"):
            partial.unlink(missing_ok=True)


class Kept(CheckpointIO):
    """How Lightning reads and writes them."""

    def __init__(self, checkpoints: Checkpoints) -> None:
        self.checkpoints = checkpoints

    def save_checkpoint(self, checkpoint: Content, path: Any, storage_options: Any = None) -> None:  # noqa: D102
        self.checkpoints.write(checkpoint, checkpoint["global_step"])

    def load_checkpoint(self, path: Any, map_location: Any = None, weights_only: bool | None = None) -> Content:  # noqa: D102
        return self.checkpoints.read(Path(path))

    def remove_checkpoint(self, path: Any) -> None:  # noqa: D102
        Path(path).unlink(missing_ok=True)


def has_parts(path: Path, content: Content) -> None:
    """Raise `ValueError` where ``content`` is not what a training writes."""
    for name, kind in PARTS.items():
        if not isinstance(content.get(name), kind):
            raise ValueError(f"{path} is not a checkpoint of a training: it has no {name}")
    if not all(isinstance(state, dict) for state in content["callbacks"].values()):
        raise ValueError(f"{path} is not a checkpoint of a training: its callbacks have no state")


def expect(value: Any, kind: type, name: str) -> Any:
    """Return ``value`` if it is of that kind; `ValueError` if a checkpoint was made up."""
    if not isinstance(value, kind):
        raise ValueError(f"{name} is {type(value).__name__}; wanted {kind.__name__}")
    return value


def counts_alike(found: Any, own: Any) -> bool:
    """Whether ``found`` has all the counts that ``own`` has: whole numbers under the same names, however deep."""
    if isinstance(own, dict):
        return isinstance(found, dict) and all(counts_alike(found.get(name), part) for name, part in own.items())
    return type(found) is type(own) and 0 <= found < 2**62


def _digest(whole: bytes) -> str:
    return hashlib.sha256(whole).hexdigest()[:16]
