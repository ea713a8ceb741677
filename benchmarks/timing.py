"""Timing several things so that the machine's noise falls on all alike."""

from __future__ import annotations

import json
import platform
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

SHORTEST_SAMPLE = 0.02  # seconds; quicker runs are repeated within one sample
WARM_UP_RUNS = 2


@dataclass(frozen=True)
class Timing:
    """Milliseconds of one run: the median of the samples, and their range."""

    median: float
    low: float
    high: float
    samples: int

    def __str__(self) -> str:
        return f"{self.median:.3g} ({self.low:.3g}–{self.high:.3g})"


def interleaved(runs: dict[str, Callable[[], Any]], samples: int, device: torch.device) -> dict[str, Timing]:
    """Time each of ``runs``, one sample of each in turn, in an order that is reversed every other time."""
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
    return max(1, round(SHORTEST_SAMPLE / once))


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
    return Timing(ordered[len(ordered) // 2], ordered[0], ordered[-1], len(ordered))


@dataclass(frozen=True)
class Table:
    """What a workload found, ready to print and to keep."""

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
    """What the figures were taken on."""
    return {
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else platform.processor() or "cpu",
        "machine": platform.machine(),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "python": platform.python_version(),
    }


def save(folder: Path, workload: str, device: torch.device, results: Sequence[Any]) -> Path:
    """Write the results of a workload as JSON, beside what they were taken on."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{workload}-{device.type}.json"
    path.write_text(json.dumps({"machine": machine(device), "results": [asdict(x) for x in results]}, indent=2))
    return path
