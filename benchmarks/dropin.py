"""`neuralode.torchdiffeq` beside torchdiffeq: the same calls, taken in turns in one run.

Speed is of W1's field in float32; "calls" counts evaluations of f, "peak" is what is held at
most beside what was there before, and "error" is the distance to SciPy's DOP853 at
1e-12 in float64, relative to its size (of gradients, to those of an eighth-order solve in float64). Accuracy is of the
same field in float64; since the two choose other steps, theirs is also read where it has as many evaluations as ours,
off a curve through tolerances half a decade apart.
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
STEPS = 100  # of rk4
LIBRARIES = {"neuralode": ours, "torchdiffeq": theirs}
DOPRI5 = {"method": "dopri5", "rtol": TOLERANCE, "atol": TOLERANCE}
RK4 = {"method": "rk4", "options": {"step_size": SPAN / STEPS}}

FORWARD, BACKWARD = "forward", "forward + gradient"
WAYS: dict[str, tuple[str, str, dict[str, Any]]] = {
    "dopri5, odeint, forward": (FORWARD, "odeint", DOPRI5),
    "dopri5, odeint, forward + gradient": (BACKWARD, "odeint", DOPRI5),
    "dopri5, odeint_adjoint, forward + gradient": (BACKWARD, "odeint_adjoint", DOPRI5),
    f"rk4 in {STEPS} steps, odeint, forward": (FORWARD, "odeint", RK4),
    f"rk4 in {STEPS} steps, odeint, forward + gradient": (BACKWARD, "odeint", RK4),
    f"rk4 in {STEPS} steps, odeint_adjoint, forward + gradient": (BACKWARD, "odeint_adjoint", RK4),
}

COMPARED = Size(128, 2, 64)  # where accuracy is compared
CHOSEN = {  # three tolerances each
    "dopri5": (1e-4, 1e-6, 1e-8),
    "dopri8": (1e-6, 1e-8, 1e-10),
    "bosh3": (1e-3, 1e-5, 1e-7),
    "adaptive_heun": (1e-2, 1e-3, 1e-4),
}
STATED = ("rk4", "explicit_adams", "implicit_adams")
STATED_STEPS = (50, 100, 200)

Solver = Callable[[SmallField, Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class Result:
    """One library on one size, in one way."""

    size: Size
    way: str
    library: str
    timing: Timing
    calls_forward: int
    calls_backward: int
    peak: int
    error: float


@dataclass(frozen=True)
class Accuracy:
    """One method at one setting: evaluations and error of ours, of theirs, and theirs at as many evaluations."""

    method: str
    setting: str
    calls: int
    error: float
    their_calls: int
    their_error: float
    their_error_then: float


def run(device: torch.device, samples: int) -> tuple[list[Any], list[Table]]:
    """Measure; returns the results and the tables that show them."""
    results: list[Result] = []
    for size in SIZES:
        print(f"dropin: {size}", file=sys.stderr, flush=True)
        results += measure(size, device, samples)
    print("dropin: accuracy", file=sys.stderr, flush=True)
    found = accuracies()
    evidence = dropin_differences.measure()
    tables = [*(table(results, way) for way in WAYS), ratios(results), accuracy(found)]
    return [*results, *found, *evidence], [*tables, dropin_differences.table(evidence)]


# ----------------------------------------------------------------------------------------------------------- speed


def measure(size: Size, device: torch.device, samples: int) -> list[Result]:
    f, y0 = SmallField(size).to(device), start(size).to(device)
    t = torch.linspace(0, SPAN, OUTPUTS, device=device)
    wanted_ys, wanted_gradient = solution(size), gradient_in_double(size)
    results = []
    for way, (what, interface, arguments) in WAYS.items():
        solvers = {name: partial(solve, getattr(lib, interface), arguments) for name, lib in LIBRARIES.items()}
        once = forward_of if what == FORWARD else gradient_of
        timings = interleaved({name: partial(once, s, f, y0, t) for name, s in solvers.items()}, samples, device)
        for name, solver in solvers.items():
            ys, found, forward, backward = counted(solver, f, y0, t)
            error = _relative(ys, wanted_ys) if what == FORWARD else _relative(found, wanted_gradient)
            backward = 0 if what == FORWARD else backward
            peak = peak_bytes(partial(once, solver, f, y0, t), device)
            results.append(Result(size, way, name, timings[name], forward, backward, peak, error))
    return results


def solve(interface: Any, arguments: dict[str, Any], f: SmallField, y0: Tensor, t: Tensor) -> Tensor:
    return interface(f, y0, t, **arguments)


def forward_of(solver: Solver, f: SmallField, y0: Tensor, t: Tensor) -> Tensor:
    with torch.no_grad():
        return solver(f, y0, t)


def gradient_of(solver: Solver, f: SmallField, y0: Tensor, t: Tensor) -> Tensor:
    return _flat(torch.autograd.grad(solver(f, y0, t).sum(), list(f.parameters())))


def counted(solver: Solver, f: SmallField, y0: Tensor, t: Tensor) -> tuple[Tensor, Tensor, int, int]:
    """Outputs, gradient, and the calls of f that each took."""
    f.calls = 0
    ys = solver(f, y0, t)
    forward = f.calls
    found = _flat(torch.autograd.grad(ys.sum(), list(f.parameters())))
    return ys, found, forward, f.calls - forward


def solution(size: Size) -> Tensor:
    """The outputs by SciPy in float64."""
    f, y0 = SmallField(size).double(), start(size).double()

    def slope(t: float, y: np.ndarray) -> np.ndarray:
        with torch.no_grad():
            return f(torch.tensor(t), torch.from_numpy(y).reshape(y0.shape)).reshape(-1).numpy()

    times = np.linspace(0, SPAN, OUTPUTS)
    found = solve_ivp(slope, (0, SPAN), y0.reshape(-1).numpy(), "DOP853", times, rtol=1e-12, atol=1e-12)
    return torch.from_numpy(found.y.T).reshape(OUTPUTS, *y0.shape)


def gradient_in_double(size: Size) -> Tensor:
    f, y0 = SmallField(size).double(), start(size).double()
    t = torch.linspace(0, SPAN, OUTPUTS, dtype=torch.float64)
    return gradient_of(partial(solve, ours.odeint, {"method": "dopri8", "rtol": 1e-12, "atol": 1e-12}), f, y0, t)


def table(results: list[Result], way: str) -> Table:
    rows = [
        [
            str(r.size), r.library, str(r.timing), str(r.calls_forward), str(r.calls_backward),
            f"{r.peak / 2**20:.2f}", f"{r.error:.1e}",
        ]
        for r in results
        if r.way == way
    ]  # fmt: skip
    columns = ["batch, dim, width", "library", "ms (range)", "calls forward", "calls backward", "peak, MiB", "error"]
    return Table(f"Drop-in: {way}", columns, rows)


def ratios(results: list[Result]) -> Table:
    """How many times faster we are."""
    median = {(r.size, r.way, r.library): r.timing.median for r in results}
    rows = [
        [str(size), *(f"{median[size, w, 'torchdiffeq'] / median[size, w, 'neuralode']:.2f} ×" for w in WAYS)]
        for size in dict.fromkeys(r.size for r in results)
    ]
    return Table("Drop-in: times faster than torchdiffeq", ["batch, dim, width", *WAYS], rows)


# -------------------------------------------------------------------------------------------------------- accuracy


def accuracies() -> list[Accuracy]:
    wanted = solution(COMPARED)
    found = []
    for method, tolerances in CHOSEN.items():
        decades = math.log10(min(tolerances)), math.log10(max(tolerances))
        sweep = np.arange(2 * decades[0] - 2, 2 * decades[1] + 3) / 2
        curve = [tried(theirs, wanted, method, 10**k) for k in sweep.tolist()]
        for tolerance in tolerances:
            calls, error = tried(ours, wanted, method, tolerance)
            other = tried(theirs, wanted, method, tolerance)
            found.append(Accuracy(method, f"{tolerance:.0e}", calls, error, *other, read_off(curve, calls)))
    for method in STATED:
        curve = [tried(theirs, wanted, method, None, steps) for steps in (20, 30, 50, 70, 100, 140, 200, 280, 400)]
        for steps in STATED_STEPS:
            calls, error = tried(ours, wanted, method, None, steps)
            other = tried(theirs, wanted, method, None, steps)
            found.append(Accuracy(method, f"{steps} steps", calls, error, *other, read_off(curve, calls)))
    return found


def tried(library: Any, wanted: Tensor, method: str, tolerance: float | None, steps: int = 0) -> tuple[int, float]:
    """Evaluations and error of one solve in float64."""
    f, y0 = SmallField(COMPARED).double(), start(COMPARED).double()
    t = torch.linspace(0, SPAN, OUTPUTS, dtype=torch.float64)
    how = {"options": {"step_size": SPAN / steps}} if tolerance is None else {"rtol": tolerance, "atol": tolerance}
    ys = forward_of(partial(solve, library.odeint, {"method": method, **how}), f, y0, t)
    return f.calls, _relative(ys, wanted)


def read_off(curve: list[tuple[int, float]], calls: int) -> float:
    """The error on a curve at so many calls, by straight lines between logarithms; NaN beyond its ends."""
    points = sorted((n, error) for n, error in curve if math.isfinite(error) and error > 0)
    if not points or not points[0][0] <= calls <= points[-1][0]:
        return math.nan
    numbers, errors = zip(*points, strict=True)
    return float(np.exp(np.interp(math.log(calls), np.log(numbers), np.log(errors))))


def accuracy(found: list[Accuracy]) -> Table:
    rows = [
        [a.method, a.setting, str(a.calls), _error(a.error), str(a.their_calls), _error(a.their_error),
         _error(a.their_error_then)]
        for a in found
    ]  # fmt: skip
    columns = [
        "method", "tolerance or steps", "calls", "error", "torchdiffeq: calls", "error", "error at our calls",
    ]  # fmt: skip
    return Table(f"Drop-in: accuracy in float64, {OUTPUTS} outputs, ({COMPARED})", columns, rows)


def _error(error: float) -> str:
    return "–" if math.isnan(error) else "diverges" if error > 1 else f"{error:.1e}"


def _flat(tensors: Any) -> Tensor:
    return torch.cat([x.reshape(-1) for x in tensors])


def _relative(found: Tensor, wanted: Tensor) -> float:
    error = float((found.detach().cpu().double() - wanted).norm() / wanted.norm())
    return error if math.isfinite(error) else math.inf
