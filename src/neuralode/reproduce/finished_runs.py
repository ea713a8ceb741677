"""Skip trainings that are already finished, and write those that finish."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from torch import nn

from neuralode.training.run import Run, versions, write_json

Config = Mapping[str, object]


def check_same_config(folder: Path, config: Config) -> None:
    """Raise `ValueError` if the run in a folder has another config; package versions may differ."""
    existing, expected = ({**each, "versions": None} for each in (Run(folder).config, config))
    if existing != expected:
        raise ValueError(
            f"{folder} holds a run with another config, {existing}; wanted an empty folder, or {expected}."
        )


def is_finished(folder: Path, config: Config) -> bool:
    """Return whether a folder holds the finished run of a config; `ValueError` if it holds that of another."""
    if not (folder / "summary.json").is_file():
        return False
    check_same_config(folder, config)
    return True


def write_finished(folder: Path, model: nn.Module, *, config: Config, summary: Config) -> None:
    """Write a finished run. The summary comes last: its presence marks the run as finished."""
    run = Run(folder)
    folder.mkdir(parents=True, exist_ok=True)  # overwrite a run that was interrupted while being written
    write_json(folder / "config.json", {**config, "versions": versions("torch", "neuralode")})
    run.write_weights(model)
    run.write_summary(summary)
