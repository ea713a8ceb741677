"""Time several functions so that noise of the machine affects all of them alike."""

from __future__ import annotations

import json
import platform
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

MIN_SAMPLE_SECONDS = 0.02  # faster runs are repeated within one sample
WARM_UP_RUNS = 2


@dataclass(frozen=True)
class Timing:
    """Median and range of the samples, in milliseconds per run."""

    median: float
    low: float
    high: float
    samples: int

    def __str__(self) -> str:
        return f"{self.median:.3g} ({self.low:.3g}–{self.high:.3g})"


def interleaved(runs: dict[str, Callable[[], Any]], samples: int, device: torch.device) -> dict[str, Timing]:
    """Time all runs in turn, one sample each, in an order that alternates between forward and reverse."""
    repeats = {name: _repeats(run, device) for name, run in runs.items()}
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    for i in range(samples):
        for name in list(runs)[:: 1 if i % 2 == 0 else -1]:
            seconds[name].append(_seconds(runs[name], repeats[name], device))
    return {name: _summary(values) for name, values in seconds.items()}


def _repeats(run: Callable[[], Any], device: torch.device) -> int:
    for _ in range(WARM_UP_RUNS):
        run()
    once = _seconds(run, 1, device)
    return max(1, round(MIN_SAMPLE_SECONDS / once))


def _seconds(run: Callable[[], Any], repeats: int, device: torch.device) -> float:
    _synchronise(device)
    start = time.perf_counter()
    for _ in range(repeats):
        run()
    _synchronise(device)
    return (time.perf_counter() - start) / repeats


def _synchronise(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _summary(seconds: Sequence[float]) -> Timing:
    ordered = sorted(1e3 * value for value in seconds)
    return Timing(median=ordered[len(ordered) // 2], low=ordered[0], high=ordered[-1], samples=len(ordered))


@dataclass(frozen=True)
class Table:
    """Results of a workload as a Markdown table."""

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    note: str = ""

    def __str__(self) -> str:
        widths = [max(len(row[i]) for row in (self.columns, *self.rows)) for i in range(len(self.columns))]
        lines = [self._line(self.columns, widths), self._line(["-" * width for width in widths], widths)]
        lines += [self._line(row, widths) for row in self.rows]
        return "\n".join([f"### {self.title}", "", *lines, "", self.note]).rstrip() + "\n"

    @staticmethod
    def _line(cells: Sequence[str], widths: Sequence[int]) -> str:
        return "| " + " | ".join(cell.ljust(width) for cell, width in zip(cells, widths, strict=True)) + " |"


def machine(device: torch.device) -> dict[str, Any]:
    """Describe the machine and software that produce the figures."""
    return {
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else platform.processor() or "cpu",
        "machine": platform.machine(),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "python": platform.python_version(),
    }


def save(results: Sequence[Any], path: Path, *, device: torch.device) -> Path:
    """Write results and a description of the machine as JSON, and return the path."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"machine": machine(device), "results": [asdict(x) for x in results]}, indent=2))
    return path
