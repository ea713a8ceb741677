"""Time the same workloads on this checkout and on another: ``python -m benchmarks compare --against DIR``.

``DIR`` is the ``src`` folder of the other checkout. The checkouts run in alternating processes (A B, B A, A B, …), so
that slow changes of the machine affect both alike. Each process warms up and reports the median of several samples of
each case. The table shows for both checkouts the median over their processes, the ratio of these two, and the range of
the ratios of consecutive processes; a ratio means little where that range contains 1. "fastest" is the ratio of the
fastest samples of all processes, which other load on the machine affects least. "results" tells whether both checkouts
computed the same bits.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import torch

from benchmarks.compare_cases import WORKLOADS
from benchmarks.timing import Table, machine, save

ROOT = Path(__file__).resolve().parents[1]

Report = dict[str, Any]  # by workload: its cases, or the error that prevented it


@dataclass(frozen=True)
class Comparison:
    """One case on both checkouts, in milliseconds; ``ratio`` is now over before."""

    workload: str
    case: str
    before: float
    now: float
    ratio: float
    ratio_low: float
    ratio_high: float
    ratio_of_fastest: float
    same_results: bool


@dataclass(frozen=True)
class Settings:
    """Arguments that every worker process gets."""

    workloads: Sequence[str]
    device: torch.device
    samples: int
    threads: int


def main(arguments: Sequence[str]) -> None:
    """Run the command line."""
    options = _parser().parse_args(arguments)
    before, now = options.against.resolve(), (ROOT / "src").resolve()
    if not (before / "neuralode" / "__init__.py").is_file():
        sys.exit(f"--against {options.against}: no neuralode in this folder; wanted the src folder of a checkout.")
    settings = Settings(
        options.only or tuple(WORKLOADS), options.device, samples=options.samples, threads=options.threads
    )
    torch.set_num_threads(options.threads)  # reported by `machine`
    pairs = [run_pair(before, now, settings=settings, number=number) for number in range(options.repeats)]
    print(", ".join(f"{name} {value}" for name, value in machine(options.device).items()))
    print(f"before: {before}, now: {now}\n")
    results: list[Comparison] = []
    for workload in settings.workloads:
        if errors := _errors(pairs, workload):
            print(f"### {workload}\n\nNot compared: {errors}\n")
            continue
        compared = compare(pairs, workload)
        results += compared
        print(table(workload, compared))
    if options.save is not None:
        path = options.save / f"compare-{options.device.type}.json"
        print(f"written to {save(results, path, device=options.device)}")


def run_pair(before: Path, now: Path, *, settings: Settings, number: int) -> tuple[Report, Report]:
    """Run one process per checkout; odd pairs run in reverse order."""
    reports: dict[Path, Report] = {}
    for source in (before, now)[:: 1 if number % 2 == 0 else -1]:
        print(f"pair {number + 1}: {source}", file=sys.stderr, flush=True)
        reports[source] = run_worker(source, settings)
    return reports[before], reports[now]


def run_worker(source: Path, settings: Settings) -> Report:
    """Time the workloads in a new process that imports neuralode from a folder."""
    command = [sys.executable, "-m", "benchmarks.compare_worker", *settings.workloads, "--source", str(source)]
    command += ["--device", str(settings.device), "--samples", str(settings.samples)]
    command += ["--threads", str(settings.threads)]
    environment = {**os.environ, "PYTHONPATH": str(source)}
    finished = subprocess.run(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True, check=False)
    if finished.returncode:
        sys.exit(f"The process that imports {source} failed with status {finished.returncode}.")
    return json.loads(finished.stdout)


def compare(pairs: Sequence[tuple[Report, Report]], workload: str) -> list[Comparison]:
    """Return the ratio of each case that both checkouts ran."""
    results = []
    for case in pairs[0][0][workload]["cases"]:
        both = [tuple(report[workload]["cases"][case] for report in pair) for pair in pairs]
        before, now = (median(pair[i]["median"] for pair in both) for i in (0, 1))
        fastest = [min(pair[i]["low"] for pair in both) for i in (0, 1)]
        ratios = [pair[1]["median"] / pair[0]["median"] for pair in both]
        same = len({side["digest"] for pair in both for side in pair}) == 1
        results.append(
            Comparison(
                workload,
                case,
                before=before,
                now=now,
                ratio=now / before,
                ratio_low=min(ratios),
                ratio_high=max(ratios),
                ratio_of_fastest=fastest[1] / fastest[0],
                same_results=same,
            )
        )
    return results


def table(workload: str, results: Sequence[Comparison]) -> Table:
    rows = [
        [
            r.case,
            f"{r.before:.3g}",
            f"{r.now:.3g}",
            f"{r.ratio:.2f} ({r.ratio_low:.2f}–{r.ratio_high:.2f})",
            f"{r.ratio_of_fastest:.2f}",
            "same" if r.same_results else "differ",
        ]
        for r in results
    ]
    columns = ["case", "before, ms", "now, ms", "now / before (range)", "fastest", "results"]
    return Table(workload, columns, rows)


def _errors(pairs: Sequence[tuple[Report, Report]], workload: str) -> str:
    errors = (
        f"{name} failed with {report[workload]['error']}"
        for name, report in zip(("before", "now"), pairs[0], strict=True)
        if "error" in report[workload]
    )
    return "; ".join(errors)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks compare",
        description="Time the same workloads on this checkout and on another, in alternating processes.",
    )
    parser.add_argument(
        "--against", required=True, type=Path, metavar="DIR", help="src folder of the checkout to compare with"
    )
    parser.add_argument(
        "--only", action="append", choices=WORKLOADS, metavar="NAME", help=f"repeatable; any of {', '.join(WORKLOADS)}"
    )
    parser.add_argument("--repeats", default=5, type=int, help="processes per checkout (default: 5)")
    parser.add_argument("--samples", default=7, type=int, help="samples per case and process (default: 7)")
    parser.add_argument("--threads", default=1, type=int, help="threads of PyTorch (default: 1)")
    parser.add_argument("--device", default="cpu", type=torch.device, help="device of the tensors (default: cpu)")
    parser.add_argument("--save", default=None, type=Path, metavar="DIR", help="also write the results as JSON")
    return parser
