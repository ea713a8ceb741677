"""Time workloads on one checkout and print the result as JSON: one process of `benchmarks.compare`."""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
import warnings
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import neuralode
from benchmarks.compare_cases import WORKLOADS
from benchmarks.timing import interleaved


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.compare_worker", description=__doc__)
    parser.add_argument("workloads", nargs="+", choices=WORKLOADS)
    parser.add_argument("--source", required=True, type=Path, help="folder that neuralode must be imported from")
    parser.add_argument("--device", default="cpu", type=torch.device)
    parser.add_argument("--samples", default=7, type=int)
    parser.add_argument("--threads", default=1, type=int)
    options = parser.parse_args()
    imported = Path(neuralode.__file__).resolve()
    if not imported.is_relative_to(options.source.resolve()):
        sys.exit(f"neuralode was imported from {imported}; wanted it from {options.source}.")
    torch.set_num_threads(options.threads)
    warnings.filterwarnings("ignore")
    results = {name: measure(name, options.device, options.samples) for name in options.workloads}
    print(json.dumps(results))


def measure(workload: str, device: torch.device, samples: int) -> dict[str, Any]:
    """Return timings and digests by case, or the reason why this checkout cannot run the workload."""
    try:
        cases = WORKLOADS[workload](device)
        digests = {name: digest(case()) for name, case in cases.items()}
    except (ImportError, AttributeError, TypeError, ValueError) as error:
        return {"error": f"{type(error).__name__}: {error}"}
    timings = interleaved(cases, samples, device)
    return {"cases": {name: {**asdict(timings[name]), "digest": digests[name]} for name in cases}}


def digest(tensors: Sequence[Tensor]) -> str:
    """Return a hash of the bytes of tensors.

    Examples
    --------
    >>> digest([torch.zeros(2)]) == digest([torch.zeros(2)])
    True
    """
    result = hashlib.sha256()
    for tensor in tensors:
        result.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return result.hexdigest()[:16]


if __name__ == "__main__":
    main()
