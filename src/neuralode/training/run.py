"""The run folder of a training: plain files (JSON, CSV, safetensors, PNG). Reading never unpickles.

::

    config.json          config with all defaults filled in, and package versions
    metrics.csv          one row per epoch
    weights.safetensors  weights of the best epoch
    summary.json         results, such as test_accuracy; written last
    tolerances.csv       accuracy at several solver tolerances (image models with an ODE)
    plots/*.png
    checkpoints/*.ckpt   the last two, to resume from; loading them executes no code
"""

from __future__ import annotations

import csv
import hashlib
import json
import math
import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import nn

from neuralode.training.atomic_write import replace_file, write_error
from neuralode.training.preflight import check_folder

Row = Mapping[str, Any]


@dataclass(frozen=True)
class Run:
    """The folder of one training.

    Parameters
    ----------
    folder : Path
        Its path. `create` and `open` check it; the constructor does not.

    Examples
    --------
    >>> import tempfile
    >>> from torch import nn
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     run = Run.create(Path(folder) / "first", {"task": "demo"})
    ...     run.write_weights(nn.Linear(2, 1))
    ...     Run.open(run.folder).config
    {'task': 'demo'}
    """

    folder: Path

    @classmethod
    def create(cls, folder: Path, config: Mapping[str, Any]) -> Run:
        """Create a run and write its ``config.json``.

        Raises
        ------
        FileExistsError
            If the folder holds a run already.
        OSError
            If the folder cannot be written.
        """
        if (folder / "config.json").exists():
            raise FileExistsError(f"{folder} holds a run already; choose another folder.")
        check_folder(folder)
        run = cls(folder)
        try:
            run.plots.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise write_error(run.plots, error) from error
        write_json(folder / "config.json", config)
        return run

    @classmethod
    def open(cls, folder: Path) -> Run:
        """Return the run in ``folder``; `FileNotFoundError` if there is none."""
        if not (folder / "config.json").is_file():
            raise FileNotFoundError(f"{folder} is not a run: it has no config.json.")
        return cls(folder)

    @property
    def config(self) -> dict[str, Any]:
        """Content of ``config.json``; `ValueError` if it cannot be read."""
        return read_json(self.folder / "config.json")

    @property
    def digest(self) -> str:
        """Digest of the bytes of ``config.json``, which identifies the run."""
        return hashlib.sha256((self.folder / "config.json").read_bytes()).hexdigest()[:16]

    @property
    def finished(self) -> bool:
        """Whether the training has ended without interruption."""
        try:
            return self.summary.get("interrupted") is False
        except (OSError, ValueError):
            return False

    @property
    def plots(self) -> Path:
        """Folder of the figures."""
        return self.folder / "plots"

    @property
    def checkpoints(self) -> Path:
        """Folder of the checkpoints."""
        return self.folder / "checkpoints"

    @property
    def metrics(self) -> list[dict[str, float]]:
        """Rows of ``metrics.csv``, one per epoch."""
        return read_csv(self.folder / "metrics.csv")

    def write_metrics(self, rows: Sequence[Row]) -> None:
        """Replace ``metrics.csv``."""
        write_csv(self.folder / "metrics.csv", rows)

    @property
    def summary(self) -> dict[str, Any]:
        """Content of ``summary.json``; `ValueError` if it cannot be read."""
        return read_json(self.folder / "summary.json")

    def write_summary(self, summary: Row) -> None:
        """Replace ``summary.json``. Numbers that are not finite become null."""
        valid = {name: None if isinstance(x, float) and not math.isfinite(x) else x for name, x in summary.items()}
        write_json(self.folder / "summary.json", valid)

    def write_weights(self, model: nn.Module) -> None:
        """Write the state dict of ``model`` to ``weights.safetensors``."""
        weights = save({name: tensor.contiguous() for name, tensor in model.state_dict().items()})
        replace_file(self.folder / "weights.safetensors", weights)

    def read_weights(self, model: nn.Module) -> None:
        """Load ``weights.safetensors`` into ``model``.

        Raises
        ------
        FileNotFoundError
            If the run has no weights.
        ValueError
            If the file is damaged, or its parameters are not those of ``model``.
        """
        weights = self.folder / "weights.safetensors"
        if not weights.is_file():
            raise FileNotFoundError(f"{self.folder} has no weights.safetensors: was its training interrupted?")
        try:
            state = load_file(weights)
        except SafetensorError as error:
            raise ValueError(f"{weights} cannot be read ({error}); wanted the file that a training wrote.") from error
        try:
            model.load_state_dict(state)
        except RuntimeError as error:
            raise ValueError(f"{weights} holds another network than config.json describes: {error}") from error


def free_folder(folder: Path) -> Path:
    """Return ``folder``, or the first of ``folder-2``, ``folder-3``, … that does not exist.

    Examples
    --------
    >>> free_folder(Path("no/such/folder")).as_posix()
    'no/such/folder'
    """
    candidate, number = folder, 1
    while candidate.exists():
        number += 1
        candidate = folder.with_name(f"{folder.name}-{number}")
    return candidate


def versions(*packages: str) -> dict[str, str]:
    """Return the installed versions of ``packages`` and of Python.

    Examples
    --------
    >>> sorted(versions("torch"))
    ['python', 'torch']
    """
    installed = {"python": platform.python_version()}
    for package in packages:
        try:
            installed[package] = version(package)
        except PackageNotFoundError:
            installed[package] = "not installed"
    return installed


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write a JSON file atomically; see `neuralode.training.atomic_write.replace_file`."""
    replace_file(path, (json.dumps(content, indent=2) + "\n").encode())


def read_json(path: Path) -> dict[str, Any]:
    """Return the object in a JSON file; `ValueError` if it holds anything else."""
    try:
        content = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} cannot be read ({error}); wanted the JSON that a training wrote.") from error
    if not isinstance(content, dict):
        raise ValueError(f"{path} holds a {type(content).__name__}; wanted the object that a training wrote.")
    return content


def write_csv(path: Path, rows: Sequence[Row]) -> None:
    """Write a CSV file atomically. Its columns are the keys of the first row."""
    header = list(rows[0]) if rows else []
    lines = [",".join(header), *(",".join(str(row.get(name, "")) for name in header) for row in rows)]
    replace_file(path, ("\n".join(lines) + "\n").encode())


def read_csv(path: Path) -> list[dict[str, float]]:
    """Return the rows of a CSV file of numbers, or an empty list if there is no file; `ValueError` if it is invalid."""
    if not path.is_file():
        return []
    try:
        with path.open(newline="") as file:
            return [{name: float(value) for name, value in row.items() if value} for row in csv.DictReader(file)]
    except (ValueError, TypeError, csv.Error) as error:
        raise ValueError(f"{path} cannot be read ({error}); wanted the table that a training wrote.") from error
