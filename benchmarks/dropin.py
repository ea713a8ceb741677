"""Drop-in replacement: `neuralode.torchdiffeq` against torchdiffeq, the same calls in turn in one run.

Speed is measured on W1's field in float32. "calls" counts evaluations of f, "peak" is the peak of allocated memory, and
"error" is the relative distance to SciPy's DOP853 at 1e-12 in float64 (for gradients, to an eighth-order solve in
float64). Accuracy is measured on the same field in float64. As the two libraries take different steps, the error of
torchdiffeq is also interpolated at our number of evaluations, from a curve with two tolerances per decade.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
import torchdiffeq as theirs
from scipy.integrate import solve_ivp
from torch import Tensor

import neuralode.torchdiffeq as ours
from benchmarks import dropin_differences
from benchmarks.fields import SIZES, Size, SmallField, start
from benchmarks.memory import peak_bytes
from benchmarks.timing import Table, Timing, interleaved

TOLERANCE, OUTPUTS, SPAN = 1e-6, 11, 10.0
STEPS = 100  # steps of rk4
LIBRARIES = {"neuralode": ours, "torchdiffeq": theirs}
DOPRI5 = {"method": "dopri5", "rtol": TOLERANCE, "atol": TOLERANCE}
RK4 = {"method": "rk4", "options": {"step_size": SPAN / STEPS}}

FORWARD, BACKWARD = "forward", "forward + gradient"
CALLS: dict[str, tuple[str, str, dict[str, Any]]] = {
    "dopri5, odeint, forward": (FORWARD, "odeint", DOPRI5),
    "dopri5, odeint, forward + gradient": (BACKWARD, "odeint", DOPRI5),
    "dopri5, odeint_adjoint, forward + gradient": (BACKWARD, "odeint_adjoint", DOPRI5),
    f"rk4 in {STEPS} steps, odeint, forward": (FORWARD, "odeint", RK4),
    f"rk4 in {STEPS} steps, odeint, forward + gradient": (BACKWARD, "odeint", RK4),
    f"rk4 in {STEPS} steps, odeint_adjoint, forward + gradient": (BACKWARD, "odeint_adjoint", RK4),
}

ACCURACY_SIZE = Size(128, 2, 64)
ADAPTIVE_TOLERANCES = {
    "dopri5": (1e-4, 1e-6, 1e-8),
    "dopri8": (1e-6, 1e-8, 1e-10),
    "bosh3": (1e-3, 1e-5, 1e-7),
    "adaptive_heun": (1e-2, 1e-3, 1e-4),
}
FIXED_STEP_METHODS = ("rk4", "explicit_adams", "implicit_adams")
FIXED_STEPS = (50, 100, 200)

Solver = Callable[[SmallField, Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class Result:
    """One library and one kind of call at one size."""

    size: Size
    call: str
    library: str
    timing: Timing
    calls_forward: int
    calls_backward: int
    peak: int
    error: float


@dataclass(frozen=True)
class Accuracy:
    """One method at one setting: evaluations and error of both libraries, and their error at our evaluations."""

    method: str
    setting: str
    calls: int
    error: float
    their_calls: int
    their_error: float
    their_error_at_our_calls: float


def run(device: torch.device, samples: int) -> tuple[list[Any], list[Table]]:
    """Measure; return the results and their tables."""
    results: list[Result] = []
    for size in SIZES:
        print(f"dropin: {size}", file=sys.stderr, flush=True)
        results += measure(size, device, samples)
    print("dropin: accuracy", file=sys.stderr, flush=True)
    accuracies = measure_accuracy()
    differences = dropin_differences.measure()
    tables = [*(table(results, call) for call in CALLS), ratios(results), accuracy_table(accuracies)]
    return [*results, *accuracies, *differences], [*tables, dropin_differences.table(differences)]


# ----------------------------------------------------------------------------------------------------------- speed


def measure(size: Size, device: torch.device, samples: int) -> list[Result]:
    f = SmallField(size).to(device)
    problem = f, start(size).to(device), torch.linspace(0, SPAN, OUTPUTS, device=device)
    expected_ys, expected_gradient = solution(size), gradient_in_double(size)
    results = []
    for call, (what, interface, arguments) in CALLS.items():
        solvers = {name: partial(solve, getattr(lib, interface), arguments) for name, lib in LIBRARIES.items()}
        function = forward_of if what == FORWARD else gradient_of
        runs = {name: partial(function, solver, *problem) for name, solver in solvers.items()}
        timings = interleaved(runs, samples, device)
        for name, solver in solvers.items():
            ys, gradient, forward, backward = counted(solver, *problem)
            measured = {
                "timing": timings[name],
                "calls_forward": forward,
                "calls_backward": 0 if what == FORWARD else backward,
                "peak": peak_bytes(runs[name], device),
                "error": _relative(ys, expected_ys) if what == FORWARD else _relative(gradient, expected_gradient),
            }
            results.append(Result(size, call, name, **measured))
    return results


def solve(interface: Any, arguments: dict[str, Any], f: SmallField, y0: Tensor, t: Tensor) -> Tensor:
    return interface(f, y0, t, **arguments)


def forward_of(solver: Solver, f: SmallField, y0: Tensor, t: Tensor) -> Tensor:
    with torch.no_grad():
        return solver(f, y0, t)


def gradient_of(solver: Solver, f: SmallField, y0: Tensor, t: Tensor) -> Tensor:
    return _flat(torch.autograd.grad(solver(f, y0, t).sum(), list(f.parameters())))


def counted(solver: Solver, f: SmallField, y0: Tensor, t: Tensor) -> tuple[Tensor, Tensor, int, int]:
    """Return outputs, gradient, and the number of calls of f for each."""
    f.calls = 0
    ys = solver(f, y0, t)
    forward = f.calls
    gradient = _flat(torch.autograd.grad(ys.sum(), list(f.parameters())))
    return ys, gradient, forward, f.calls - forward


def solution(size: Size) -> Tensor:
    """Return the outputs by SciPy in float64."""
    f, y0 = SmallField(size).double(), start(size).double()

    def slope(t: float, y: np.ndarray) -> np.ndarray:
        with torch.no_grad():
            return f(torch.tensor(t), torch.from_numpy(y).reshape(y0.shape)).reshape(-1).numpy()

    times = np.linspace(0, SPAN, OUTPUTS)
    options = {"method": "DOP853", "t_eval": times, "rtol": 1e-12, "atol": 1e-12}
    solved = solve_ivp(slope, (0, SPAN), y0.reshape(-1).numpy(), **options)
    return torch.from_numpy(solved.y.T).reshape(OUTPUTS, *y0.shape)


def gradient_in_double(size: Size) -> Tensor:
    problem = SmallField(size).double(), start(size).double(), torch.linspace(0, SPAN, OUTPUTS, dtype=torch.float64)
    return gradient_of(partial(solve, ours.odeint, {"method": "dopri8", "rtol": 1e-12, "atol": 1e-12}), *problem)


def table(results: list[Result], call: str) -> Table:
    rows = [
        [
            str(r.size), r.library, str(r.timing), str(r.calls_forward), str(r.calls_backward),
            f"{r.peak / 2**20:.2f}", f"{r.error:.1e}",
        ]
        for r in results
        if r.call == call
    ]  # fmt: skip
    columns = ["batch, dim, width", "library", "ms (range)", "calls forward", "calls backward", "peak, MiB", "error"]
    return Table(f"Drop-in: {call}", columns, rows)


def ratios(results: list[Result]) -> Table:
    """Tabulate the speedup over torchdiffeq."""
    median = {(r.size, r.call, r.library): r.timing.median for r in results}
    rows = [
        [str(size), *(f"{median[size, c, 'torchdiffeq'] / median[size, c, 'neuralode']:.2f} ×" for c in CALLS)]
        for size in dict.fromkeys(r.size for r in results)
    ]
    return Table("Drop-in: speedup over torchdiffeq", ["batch, dim, width", *CALLS], rows)


# -------------------------------------------------------------------------------------------------------- accuracy


def measure_accuracy() -> list[Accuracy]:
    expected = solution(ACCURACY_SIZE)
    results = []
    for method, tolerances in ADAPTIVE_TOLERANCES.items():
        decades = math.log10(min(tolerances)), math.log10(max(tolerances))
        sweep = np.arange(2 * decades[0] - 2, 2 * decades[1] + 3) / 2
        curve = [calls_and_error(theirs, expected, {"method": method, **both(10**k)}) for k in sweep.tolist()]
        for tolerance in tolerances:
            arguments = {"method": method, **both(tolerance)}
            results.append(accuracy(f"{tolerance:.0e}", expected, arguments=arguments, curve=curve))
    for method in FIXED_STEP_METHODS:
        numbers = (20, 30, 50, 70, 100, 140, 200, 280, 400)
        curve = [calls_and_error(theirs, expected, {"method": method, **fixed(steps)}) for steps in numbers]
        for steps in FIXED_STEPS:
            arguments = {"method": method, **fixed(steps)}
            results.append(accuracy(f"{steps} steps", expected, arguments=arguments, curve=curve))
    return results


def both(tolerance: float) -> dict[str, Any]:
    return {"rtol": tolerance, "atol": tolerance}


def fixed(steps: int) -> dict[str, Any]:
    return {"options": {"step_size": SPAN / steps}}


def accuracy(setting: str, expected: Tensor, *, arguments: dict[str, Any], curve: list[tuple[int, float]]) -> Accuracy:
    """Return evaluations and error of both libraries for one call."""
    calls, error = calls_and_error(ours, expected, arguments)
    their_calls, their_error = calls_and_error(theirs, expected, arguments)
    return Accuracy(
        arguments["method"],
        setting,
        calls=calls,
        error=error,
        their_calls=their_calls,
        their_error=their_error,
        their_error_at_our_calls=error_at(curve, calls),
    )


def calls_and_error(library: Any, expected: Tensor, arguments: dict[str, Any]) -> tuple[int, float]:
    """Return evaluations and error of one solve in float64."""
    f, y0 = SmallField(ACCURACY_SIZE).double(), start(ACCURACY_SIZE).double()
    t = torch.linspace(0, SPAN, OUTPUTS, dtype=torch.float64)
    with torch.no_grad():
        ys = library.odeint(f, y0, t, **arguments)
    return f.calls, _relative(ys, expected)


def error_at(curve: list[tuple[int, float]], calls: int) -> float:
    """Interpolate the error log-linearly at a number of calls; NaN outside the range of the curve."""
    points = sorted((n, error) for n, error in curve if math.isfinite(error) and error > 0)
    if not points or not points[0][0] <= calls <= points[-1][0]:
        return math.nan
    numbers, errors = zip(*points, strict=True)
    return float(np.exp(np.interp(math.log(calls), np.log(numbers), np.log(errors))))


def accuracy_table(results: list[Accuracy]) -> Table:
    rows = [
        [a.method, a.setting, str(a.calls), _error(a.error), str(a.their_calls), _error(a.their_error),
         _error(a.their_error_at_our_calls)]
        for a in results
    ]  # fmt: skip
    columns = [
        "method", "tolerance or steps", "calls", "error", "torchdiffeq: calls", "error", "error at our calls",
    ]  # fmt: skip
    return Table(f"Drop-in: accuracy in float64, {OUTPUTS} outputs, ({ACCURACY_SIZE})", columns, rows)


def _error(error: float) -> str:
    return "–" if math.isnan(error) else "diverges" if error > 1 else f"{error:.1e}"


def _flat(tensors: Any) -> Tensor:
    return torch.cat([x.reshape(-1) for x in tensors])


def _relative(result: Tensor, expected: Tensor) -> float:
    error = float((result.detach().cpu().double() - expected).norm() / expected.norm())
    return error if math.isfinite(error) else math.inf
