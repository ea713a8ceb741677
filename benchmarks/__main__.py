"""Run the workloads: ``python -m benchmarks [w1] [w5] [--device cuda] [--samples 7] [--threads 2] [--save D]``."""

from __future__ import annotations

import argparse
import warnings
from pathlib import Path

import torch

from benchmarks import condition, dropin, kepler, precision, series, stiff, w1, w5, w6, w7, w8
from benchmarks.timing import machine, save

WORKLOADS = {
    "w1": w1.run,
    "w5": w5.run,
    "w6": w6.run,
    "w7": w7.run,
    "w8": w8.run,
    "series": series.run,
    "dropin": dropin.run,
    "stiff": stiff.run,
    "kepler": kepler.run,
    "precision": precision.run,
    "condition": condition.run,
}
WITH_PICTURES = {"kepler": kepler.run_and_plot, "precision": precision.run_and_plot}
FEWEST_SAMPLES = 7


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks", description="Workloads, ours beside our peers in one run."
    )
    parser.add_argument(
        "workloads", nargs="*", metavar="workload", help=f"any of {', '.join(WORKLOADS)}; all by default"
    )
    parser.add_argument("--device", default="cpu", type=torch.device)
    parser.add_argument("--samples", default=9, type=int, help=f"at least {FEWEST_SAMPLES}")
    # One thread unless asked: at these sizes a second one mostly waits, and waiting is what varies between runs.
    parser.add_argument("--threads", default=1, type=int, help="threads of PyTorch, for everyone alike")
    parser.add_argument(
        "--plot", action="store_true", help="also draw the pictures of the documentation (kepler, precision)"
    )
    parser.add_argument("--save", default=None, type=Path, metavar="DIR", help="also write JSON, as benchmarks/results")
    options = parser.parse_args()
    if options.samples < FEWEST_SAMPLES:
        parser.error(f"--samples {options.samples}: a median needs at least {FEWEST_SAMPLES}")
    unknown = set(options.workloads) - set(WORKLOADS)
    if unknown:
        parser.error(f"unknown workload {', '.join(sorted(unknown))}; known: {', '.join(WORKLOADS)}")
    torch.set_num_threads(options.threads)

    warnings.filterwarnings("ignore", "rtol=.* is below 10 eps")  # W1 asks for this tolerance, of everyone

    print(", ".join(f"{name} {value}" for name, value in machine(options.device).items()), "\n")
    workloads = {**WORKLOADS, **WITH_PICTURES} if options.plot else WORKLOADS
    for name in options.workloads or workloads:
        results, tables = workloads[name](options.device, options.samples)
        for table in tables:
            print(table)
        if options.save is not None:
            print(f"written to {save(options.save, name, options.device, results)}\n")


if __name__ == "__main__":
    main()
