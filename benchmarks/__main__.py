"""Run the workloads: ``python -m benchmarks [w1] [w5] [--device cuda] [--samples 7] [--threads 2] [--save DIR]``.

``python -m benchmarks compare --against DIR`` compares this checkout with another one; see `benchmarks.compare`.
"""

from __future__ import annotations

import argparse
import sys
import warnings
from pathlib import Path

import torch

from benchmarks import compare, condition, dropin, kepler, precision, series, stiff, w1, w5, w6, w7, w8
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
WITH_PLOTS = {"kepler": kepler.run_and_plot, "precision": precision.run_and_plot}
MIN_SAMPLES = 7


def main() -> None:
    if sys.argv[1:2] == ["compare"]:
        compare.main(sys.argv[2:])
        return
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description="Time neuralode and other libraries side by side.",
        epilog="To compare two checkouts of neuralode: python -m benchmarks compare --help",
    )
    parser.add_argument(
        "workloads", nargs="*", metavar="workload", help=f"any of {', '.join(WORKLOADS)} (default: all)"
    )
    parser.add_argument("--device", default="cpu", type=torch.device, help="device of the tensors (default: cpu)")
    parser.add_argument(
        "--samples", default=9, type=int, help=f"samples per timing, at least {MIN_SAMPLES} (default: 9)"
    )
    # One thread by default: at these sizes a second one mostly waits, and the waiting time varies between runs.
    parser.add_argument("--threads", default=1, type=int, help="threads of PyTorch, for every library (default: 1)")
    parser.add_argument(
        "--plot", action="store_true", help="also draw the plots of the documentation (kepler, precision)"
    )
    parser.add_argument("--save", default=None, type=Path, metavar="DIR", help="also write the results as JSON")
    options = parser.parse_args()
    if options.samples < MIN_SAMPLES:
        parser.error(f"--samples {options.samples}: a median needs at least {MIN_SAMPLES}")
    unknown = set(options.workloads) - set(WORKLOADS)
    if unknown:
        parser.error(f"unknown workload {', '.join(sorted(unknown))}; known: {', '.join(WORKLOADS)}")
    torch.set_num_threads(options.threads)

    warnings.filterwarnings("ignore", "rtol=.* is below 10 eps")  # W1 uses this tolerance for every library

    print(", ".join(f"{name} {value}" for name, value in machine(options.device).items()), "\n")
    workloads = {**WORKLOADS, **WITH_PLOTS} if options.plot else WORKLOADS
    for name in options.workloads or workloads:
        results, tables = workloads[name](options.device, options.samples)
        for table in tables:
            print(table)
        if options.save is not None:
            path = options.save / f"{name}-{options.device.type}.json"
            print(f"written to {save(results, path, device=options.device)}\n")


if __name__ == "__main__":
    main()
