"""A run is a folder of plain files: JSON, CSV, safetensors and PNG. Reading one back never unpickles.

::

    config.json          what was asked for, made concrete, and the versions it ran with
    metrics.csv          one row per epoch
    weights.safetensors  the weights that were kept
    summary.json         what came out: test_accuracy and so on
    tolerances.csv       precision against work, where the model has an ODE inside
    plots/*.png
    checkpoints/*.ckpt   the last two, to go on training from; nothing in them is executed either
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

from neuralode.training.atomic_write import replace_file, unwritten
from neuralode.training.preflight import check_folder

Row = Mapping[str, Any]


@dataclass(frozen=True)
class Run:
    """The files of one training run.

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
        """Make the folder, which must not hold a run yet and must let itself be written; write ``config.json``."""
        if (folder / "config.json").exists():
            raise FileExistsError(f"{folder} holds a run already; choose another folder.")
        check_folder(folder)
        run = cls(folder)
        try:
            run.plots.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise unwritten(run.plots, error) from error
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
        """What the run was asked to do; `ValueError` where that cannot be read."""
        return read_json(self.folder / "config.json")

    @property
    def digest(self) -> str:
        """Tells the run from others: of its ``config.json``, byte by byte."""
        return hashlib.sha256((self.folder / "config.json").read_bytes()).hexdigest()[:16]

    @property
    def finished(self) -> bool:
        """Whether training came to its end, and nothing stopped it on the way."""
        try:
            return self.summary.get("interrupted") is False
        except (OSError, ValueError):
            return False

    @property
    def plots(self) -> Path:
        """The folder of the pictures."""
        return self.folder / "plots"

    @property
    def checkpoints(self) -> Path:
        """The folder of what a training goes on from."""
        return self.folder / "checkpoints"

    @property
    def metrics(self) -> list[dict[str, float]]:
        """One row per epoch."""
        return read_csv(self.folder / "metrics.csv")

    def write_metrics(self, rows: Sequence[Row]) -> None:
        """Replace ``metrics.csv``."""
        write_csv(self.folder / "metrics.csv", rows)

    @property
    def summary(self) -> dict[str, Any]:
        """What came out; `ValueError` where that cannot be read."""
        return read_json(self.folder / "summary.json")

    def write_summary(self, summary: Row) -> None:
        """Replace ``summary.json``; a number that is none is null there."""
        told = {name: None if isinstance(x, float) and not math.isfinite(x) else x for name, x in summary.items()}
        write_json(self.folder / "summary.json", told)

    def write_weights(self, model: nn.Module) -> None:
        """Keep what ``model`` has learned."""
        weights = save({name: tensor.contiguous() for name, tensor in model.state_dict().items()})
        replace_file(self.folder / "weights.safetensors", weights)

    def read_weights(self, model: nn.Module) -> None:
        """Put the kept weights into ``model``, which must have the same parameters; `ValueError` for half a file."""
        weights = self.folder / "weights.safetensors"
        if not weights.is_file():
            raise FileNotFoundError(f"{self.folder} has no weights.safetensors: was its training cut off?")
        try:
            found = load_file(weights)
        except SafetensorError as error:
            raise ValueError(f"{weights} cannot be read ({error}); wanted the file that a training wrote.") from error
        try:
            model.load_state_dict(found)
        except RuntimeError as error:
            raise ValueError(f"{weights} holds another network than config.json describes: {error}") from error


def free_folder(wanted: Path) -> Path:
    """Return ``wanted``, or the first of ``wanted-2``, ``wanted-3`` … that does not exist.

    Examples
    --------
    >>> free_folder(Path("no/such/folder")).as_posix()
    'no/such/folder'
    """
    candidate, number = wanted, 1
    while candidate.exists():
        number += 1
        candidate = wanted.with_name(f"{wanted.name}-{number}")
    return candidate


def versions(*packages: str) -> dict[str, str]:
    """Return the installed versions of ``packages`` and of Python.

    Examples
    --------
    >>> sorted(versions("torch"))
    ['python', 'torch']
    """
    found = {"python": platform.python_version()}
    for package in packages:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "not installed"
    return found


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write ``content`` so that a reader finds the old file or the new one, never half of one."""
    replace_file(path, (json.dumps(content, indent=2) + "\n").encode())


def read_json(path: Path) -> dict[str, Any]:
    """Return the object in a file; `ValueError` where it holds anything else."""
    try:
        found = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} cannot be read ({error}); wanted the JSON that a training wrote.") from error
    if not isinstance(found, dict):
        raise ValueError(f"{path} holds a {type(found).__name__}; wanted the object that a training wrote.")
    return found


def write_csv(path: Path, rows: Sequence[Row]) -> None:
    """Write ``rows`` as atomically as `write_json` does; the columns are those of the first row."""
    header = list(rows[0]) if rows else []
    lines = [",".join(header), *(",".join(str(row.get(name, "")) for name in header) for row in rows)]
    replace_file(path, ("\n".join(lines) + "\n").encode())


def read_csv(path: Path) -> list[dict[str, float]]:
    """Return the rows of a table of numbers; none where there is no file yet, `ValueError` where it is another."""
    if not path.is_file():
        return []
    try:
        with path.open(newline="") as file:
            return [{name: float(value) for name, value in row.items() if value} for row in csv.DictReader(file)]
    except (ValueError, TypeError, csv.Error) as error:
        raise ValueError(f"{path} cannot be read ({error}); wanted the table that a training wrote.") from error
