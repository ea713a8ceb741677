"""Differences between the drop-in replacement and torchdiffeq, each measured on both.

Where a library raises, the table shows the type of the error.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
import torchdiffeq as theirs
from torch import Tensor

import neuralode.torchdiffeq as ours
from benchmarks.timing import Table

SPAN = 10.0
ONE = torch.ones(1, dtype=torch.float64)
UNIT = torch.tensor([0.0, 1.0], dtype=torch.float64)


@dataclass(frozen=True)
class Difference:
    """One difference: a description, their result and ours."""

    what: str
    theirs: str
    ours: str


def measure() -> list[Difference]:
    """Measure every difference on both libraries."""
    results = [Difference("gl4: measured order on y' = y cos t (theirs: the tableau of its repository)", *_gl4())]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        results += [Difference(what, _run(case, theirs), _run(case, ours)) for what, case in CASES.items()]
    return results


def _run(case: Callable[[Any], str], library: Any) -> str:
    try:
        return case(library)
    except (AssertionError, RuntimeError, ValueError, IndexError) as error:
        return f"{type(error).__name__}"


def table(results: list[Difference]) -> Table:
    rows = [[d.what, d.theirs, d.ours] for d in results]
    return Table("Drop-in: differences", ["what", "torchdiffeq", "neuralode"], rows)


# ------------------------------------------------------------------------------------------------------- equations


def modulated(t: Tensor, y: Tensor) -> Tensor:
    """y = exp(sin t)."""
    return y * torch.cos(t)


def decay(t: Tensor, y: Tensor, rate: Any = 1.0) -> Tensor:
    """y = exp(−rate t)."""
    return -rate * y


def learned(value: float) -> Tensor:
    return torch.tensor(value, dtype=torch.float64, requires_grad=True)


class RecordingField:
    """A field that records the times of its evaluations, and start and size of the accepted steps."""

    def __init__(self, function: Callable[[Tensor, Tensor], Any]) -> None:
        self.function = function
        self.times: list[float] = []
        self.steps: list[tuple[float, float]] = []

    def __call__(self, t: Tensor, y: Tensor) -> Any:
        self.times.append(t.item())
        return self.function(t, y)

    def callback_accept_step(self, t: Tensor, y: Tensor, dt: Tensor) -> None:
        self.steps.append((t.item(), dt.item()))


# --------------------------------------------------------------------------------------------------------- methods


def _gl4() -> tuple[str, str]:
    """Measure the order of convergence between 40 and 160 steps."""
    root = math.sqrt(3) / 6
    a = np.array([[1 / 4, 1 / 4 - root], [1 / 4 + root, 1 / 4]])
    repository = [_linear(a, np.array([0.5 - root, 0.5 - root]), steps) for steps in (40, 160)]
    neuralode = [_error(ours, "gl4", options={"step_size": SPAN / steps}) for steps in (40, 160)]
    return tuple(f"{math.log(coarse / fine, 4):.2f}" for coarse, fine in (repository, neuralode))  # type: ignore[return-value]


def _linear(a: np.ndarray, nodes: np.ndarray, steps: int) -> float:
    """Return the error of a two-stage method with given nodes on y' = y cos t; its stages solve a linear system."""
    h, y = SPAN / steps, 1.0
    for n in range(steps):
        rates = np.cos(n * h + nodes * h)
        stages = np.linalg.solve(np.eye(2) - h * rates[:, None] * a, rates * y)
        y += h * stages.mean()
    return abs(y - math.exp(math.sin(SPAN)))


def _error(library: Any, method: str, rate: float | None = None, span: float = SPAN, **options: Any) -> float:
    """Return the error at the final time of y' = y cos t, or of y' = −rate y."""
    f, exact = (modulated, math.exp(math.sin(span))) if rate is None else (partial(decay, rate=rate), 0.0)
    exact = exact if rate is None else math.exp(-rate * span)
    return abs(library.odeint(f, ONE, span * UNIT, method=method, **options)[-1].item() - exact)


def _dopri8(library: Any) -> str:
    return f"{_error(library, 'dopri8', rtol=1e-10, atol=1e-10):.1e}"


def _explicit_adams(library: Any) -> str:
    return f"{_error(library, 'explicit_adams', rate=1.0, options={'step_size': 0.05}):.1e}"


def _implicit_adams(library: Any) -> str:
    return f"{_error(library, 'implicit_adams', rate=2.0, span=20.0, options={'step_size': 0.1}):.1e}"


def _uneven_grid(library: Any) -> str:
    def grid(func: Any, y0: Tensor, t: Tensor, steps: int) -> Tensor:
        return t[0] + (t[-1] - t[0]) * torch.linspace(0, 1, steps + 1, dtype=t.dtype) ** 2

    coarse, fine = (
        _error(library, "implicit_adams", options={"max_order": 4, "grid_constructor": partial(grid, steps=steps)})
        for steps in (200, 400)
    )
    return f"{math.log2(coarse / fine):.2f}, {fine:.1e}"


def _evaluations_per_step(library: Any, method: str) -> str:
    field = RecordingField(modulated)
    error = abs(
        library.odeint(field, ONE, SPAN * UNIT, method=method, rtol=1e-6, atol=1e-6)[-1].item()
        - math.exp(math.sin(SPAN))
    )
    return f"{len(field.times) / len(field.steps):.2f}, {error:.1e}"


def _half_precision(library: Any) -> str:
    ys = library.odeint(
        lambda t, y: torch.full_like(y, 0.25), ONE.half(), UNIT, method="euler", options={"step_size": 1e-4}
    )
    return f"{abs(ys[-1].item() - 1.25):.1e}"


# ----------------------------------------------------------------------------------------------------------- times


def _last_evaluation(library: Any) -> str:
    field = RecordingField(decay)
    library.odeint(field, ONE, UNIT, rtol=1e-6, atol=1e-6)
    return f"{max(field.times):.2f}"


def _singular_end(library: Any) -> str:
    ys = library.odeint(lambda t, y: 1.5 * torch.sqrt(1 - t) + 0 * y, 0 * ONE, UNIT, rtol=1e-6, atol=1e-6)
    return f"{abs(ys[-1].item() - 1):.1e}"


def _step_t_list(library: Any) -> str:
    field = RecordingField(decay)
    library.odeint(field, ONE, UNIT.flip(0), method="dopri5", options={"step_t": [0.5]})
    return f"{min(abs(t - dt - 0.5) for t, dt in field.steps):.1e}"


def _jump_t_backward(library: Any) -> str:
    rate = learned(1.0)
    field = RecordingField(lambda t, y: rate * torch.where(t < 0.5, 1.0, -2.0) * y)
    options = {"method": "dopri5", "rtol": 1e-9, "atol": 1e-9, "options": {"jump_t": torch.tensor([0.5])}}
    end = library.odeint_adjoint(field, ONE, UNIT.flip(0), adjoint_params=(rate,), **options)[-1]
    forward = len(field.times)
    (gradient,) = torch.autograd.grad(end.sum(), rate)
    return f"{len(field.times) - forward}, {abs(gradient.item() - 0.5 * math.exp(0.5)):.1e}"


def _gradient_by_end_time(library: Any) -> str:
    t = UNIT.clone().requires_grad_()
    end = library.odeint(lambda t, y: y * torch.cos(5 * t), ONE, t, method="dopri8")[-1]
    (gradient,) = torch.autograd.grad(end.sum(), t)
    return f"{abs(gradient[1].item() - end.item() * math.cos(5)):.1e}"


# ---------------------------------------------------------------------------------------------------------- events


def _event_time(library: Any) -> str:
    def ball(t: Tensor, y: Tensor) -> Tensor:
        return torch.stack((y[1], torch.full_like(y[1], -9.81)))

    start = torch.tensor([0.0, 5.0], dtype=torch.float64)
    t, _ = library.odeint_event(ball, start, UNIT[:1], event_fn=lambda t, y: y[0] + 1e-3, rtol=1e-6, atol=1e-6)
    return f"{abs(t.item() - (5 + math.sqrt(25 + 2 * 9.81e-3)) / 9.81):.1e}"


def _event_time_by_level(library: Any) -> str:
    level, rate = learned(0.5), learned(2.0)
    t, _ = library.odeint_event(partial(decay, rate=rate), ONE, UNIT[:1], event_fn=lambda t, y: y - level)
    (gradient,) = torch.autograd.grad(t, level, allow_unused=True)
    return "none" if gradient is None else f"{gradient.item():.4f}"


def _event_time_second_derivative(library: Any) -> str:
    rate = learned(2.0)
    t, _ = library.odeint_event(partial(decay, rate=rate), ONE, UNIT[:1], event_fn=lambda t, y: y - 0.5)
    (first,) = torch.autograd.grad(t, rate, create_graph=True)
    return f"{torch.autograd.grad(first, rate)[0].item():.4f}"


# ------------------------------------------------------------------------------------------------------- gradients


def _evaluations(library: Any) -> str:
    rate = learned(2.0)
    field = RecordingField(partial(decay, rate=rate))
    end = library.odeint(field, ONE, UNIT)[-1]
    forward = len(field.times)
    end.sum().backward()
    return f"{forward} + {len(field.times) - forward}"


def _side_effect_costs(library: Any) -> str:
    rate, costs = learned(2.0), []

    def costly(t: Tensor, y: Tensor) -> Tensor:
        costs.append((rate * y).square().sum())
        return -rate * y

    end = library.odeint(costly, ONE, UNIT, method="rk4")[-1]
    (gradient,) = torch.autograd.grad(0 * end.sum() + torch.stack(costs).sum(), rate)
    return f"{gradient.item():.1f}"


def _scipy_gradient(library: Any) -> str:
    rate = learned(2.0)
    library.odeint(partial(decay, rate=rate), ONE, UNIT, method="scipy_solver")[-1].sum().backward()
    assert rate.grad is not None
    return f"{abs(rate.grad.item() + math.exp(-2)):.1e}"


def _complex_state(library: Any) -> str:
    rate, y0 = learned(1.0), torch.tensor([1 + 0.5j], dtype=torch.complex128)
    end = library.odeint_adjoint(lambda t, y: 1j * rate * y, y0, UNIT, adjoint_params=(rate,))[-1]
    (gradient,) = torch.autograd.grad(end.real.sum(), rate)
    return f"{abs(gradient.item() + end.item().imag):.1e}"


def _vmap(library: Any) -> str:
    rows = torch.vmap(lambda y: library.odeint(decay, y, UNIT, method="rk4")[-1])(torch.ones(3, 2))
    return "works" if torch.equal(rows, library.odeint(decay, torch.ones(3, 2), UNIT, method="rk4")[-1]) else "differs"


CASES: dict[str, Callable[[Any], str]] = {
    "dopri8 at 1e-10 on y' = y cos t: error at t = 10": _dopri8,
    "explicit_adams with defaults, 200 steps on y' = −y: error at t = 10": _explicit_adams,
    "implicit_adams with defaults, 200 steps on y' = −2y: error at t = 20": _implicit_adams,
    "implicit_adams, max_order 4, on 400 uneven steps: measured order, error": _uneven_grid,
    "fehlberg2 at 1e-6 on y' = y cos t: evaluations per step, error": partial(
        _evaluations_per_step, method="fehlberg2"
    ),
    "adaptive_heun, the same": partial(_evaluations_per_step, method="adaptive_heun"),
    "euler, 10,000 steps in float16 on y' = 1/4: error": _half_precision,
    "latest evaluation of f in a solve that ends at 1": _last_evaluation,
    "y' = 1.5 √(1 − t) up to t = 1, at 1e-6: error": _singular_end,
    "step_t=[0.5], a list, backwards in time: distance of the nearest step end": _step_t_list,
    "jump_t, odeint_adjoint, backwards in time: evaluations of the backward pass, gradient error": _jump_t_backward,
    "derivative by the final time, dopri8 with defaults: error": _gradient_by_end_time,
    "event of a falling ball at 1e-6: error of the event time": _event_time,
    "derivative of an event time by a parameter of the event function (exact: −1)": _event_time_by_level,
    "second derivative of an event time (exact: 0.1733)": _event_time_second_derivative,
    "odeint: evaluations forward + backward": _evaluations,
    "gradient of costs that func appends to a list (exact: 103.1)": _side_effect_costs,
    "scipy_solver: gradient error": _scipy_gradient,
    "odeint_adjoint of a complex state, by a real parameter: gradient error": _complex_state,
    "torch.vmap over odeint with rk4": _vmap,
}
