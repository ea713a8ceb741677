"""Where the drop-in answers differently than torchdiffeq, each difference measured on both.

What refuses is shown by the type of its error.
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
class Evidence:
    """One difference: what is measured, theirs and ours."""

    what: str
    theirs: str
    ours: str


def measure() -> list[Evidence]:
    """Ask both."""
    found = [Evidence("gl4: order, measured on y' = y cos t (theirs: the tableau of its repository)", *_gl4())]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found += [Evidence(what, _asked(ask, theirs), _asked(ask, ours)) for what, ask in QUESTIONS.items()]
    return found


def _asked(ask: Callable[[Any], str], library: Any) -> str:
    try:
        return ask(library)
    except (AssertionError, RuntimeError, ValueError, IndexError) as error:
        return f"{type(error).__name__}"


def table(found: list[Evidence]) -> Table:
    rows = [[e.what, e.theirs, e.ours] for e in found]
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


class Told:
    """A function that keeps the times at which it is asked, and at which accepted steps begin and how long they are."""

    def __init__(self, function: Callable[[Tensor, Tensor], Any]) -> None:
        self.function = function
        self.asked: list[float] = []
        self.steps: list[tuple[float, float]] = []

    def __call__(self, t: Tensor, y: Tensor) -> Any:
        self.asked.append(t.item())
        return self.function(t, y)

    def callback_accept_step(self, t: Tensor, y: Tensor, dt: Tensor) -> None:
        self.steps.append((t.item(), dt.item()))


# --------------------------------------------------------------------------------------------------------- methods


def _gl4() -> tuple[str, str]:
    """Slopes of the error against the step, from 40 to 160 steps."""
    root = math.sqrt(3) / 6
    a = np.array([[1 / 4, 1 / 4 - root], [1 / 4 + root, 1 / 4]])
    repository = [_linear(a, np.array([0.5 - root, 0.5 - root]), steps) for steps in (40, 160)]
    own = [_off(ours, "gl4", options={"step_size": SPAN / steps}) for steps in (40, 160)]
    return tuple(f"{math.log(coarse / fine, 4):.2f}" for coarse, fine in (repository, own))  # type: ignore[return-value]


def _linear(a: np.ndarray, nodes: np.ndarray, steps: int) -> float:
    """The error of a two-stage method with these nodes on y' = y cos t, whose stages solve a linear system."""
    h, y = SPAN / steps, 1.0
    for n in range(steps):
        rates = np.cos(n * h + nodes * h)
        stages = np.linalg.solve(np.eye(2) - h * rates[:, None] * a, rates * y)
        y += h * stages.mean()
    return abs(y - math.exp(math.sin(SPAN)))


def _off(library: Any, method: str, rate: float | None = None, span: float = SPAN, **how: Any) -> float:
    """The error at the end of y' = y cos t, or of y' = −rate y."""
    f, exact = (modulated, math.exp(math.sin(span))) if rate is None else (partial(decay, rate=rate), 0.0)
    exact = exact if rate is None else math.exp(-rate * span)
    return abs(library.odeint(f, ONE, span * UNIT, method=method, **how)[-1].item() - exact)


def _dopri8(library: Any) -> str:
    return f"{_off(library, 'dopri8', rtol=1e-10, atol=1e-10):.1e}"


def _explicit_adams(library: Any) -> str:
    return f"{_off(library, 'explicit_adams', 1.0, options={'step_size': 0.05}):.1e}"


def _implicit_adams(library: Any) -> str:
    return f"{_off(library, 'implicit_adams', 2.0, 20.0, options={'step_size': 0.1}):.1e}"


def _uneven(library: Any) -> str:
    def grid(func: Any, y0: Tensor, t: Tensor, steps: int) -> Tensor:
        return t[0] + (t[-1] - t[0]) * torch.linspace(0, 1, steps + 1, dtype=t.dtype) ** 2

    coarse, fine = (
        _off(library, "implicit_adams", options={"max_order": 4, "grid_constructor": partial(grid, steps=steps)})
        for steps in (200, 400)
    )
    return f"{math.log2(coarse / fine):.2f}, {fine:.1e}"


def _reused(library: Any, method: str) -> str:
    told = Told(modulated)
    off = abs(
        library.odeint(told, ONE, SPAN * UNIT, method=method, rtol=1e-6, atol=1e-6)[-1].item()
        - math.exp(math.sin(SPAN))
    )
    return f"{len(told.asked) / len(told.steps):.2f}, {off:.1e}"


def _half(library: Any) -> str:
    ys = library.odeint(
        lambda t, y: torch.full_like(y, 0.25), ONE.half(), UNIT, method="euler", options={"step_size": 1e-4}
    )
    return f"{abs(ys[-1].item() - 1.25):.1e}"


# ----------------------------------------------------------------------------------------------------------- times


def _latest(library: Any) -> str:
    told = Told(decay)
    library.odeint(told, ONE, UNIT, rtol=1e-6, atol=1e-6)
    return f"{max(told.asked):.2f}"


def _rooted(library: Any) -> str:
    ys = library.odeint(lambda t, y: 1.5 * torch.sqrt(1 - t) + 0 * y, 0 * ONE, UNIT, rtol=1e-6, atol=1e-6)
    return f"{abs(ys[-1].item() - 1):.1e}"


def _listed(library: Any) -> str:
    told = Told(decay)
    library.odeint(told, ONE, UNIT.flip(0), method="dopri5", options={"step_t": [0.5]})
    return f"{min(abs(t - dt - 0.5) for t, dt in told.steps):.1e}"


def _jumps_back(library: Any) -> str:
    rate = learned(1.0)
    told = Told(lambda t, y: rate * torch.where(t < 0.5, 1.0, -2.0) * y)
    how = {"method": "dopri5", "rtol": 1e-9, "atol": 1e-9, "options": {"jump_t": torch.tensor([0.5])}}
    end = library.odeint_adjoint(told, ONE, UNIT.flip(0), adjoint_params=(rate,), **how)[-1]
    forward = len(told.asked)
    (gradient,) = torch.autograd.grad(end.sum(), rate)
    return f"{len(told.asked) - forward}, {abs(gradient.item() - 0.5 * math.exp(0.5)):.1e}"


def _by_end(library: Any) -> str:
    t = UNIT.clone().requires_grad_()
    end = library.odeint(lambda t, y: y * torch.cos(5 * t), ONE, t, method="dopri8")[-1]
    (gradient,) = torch.autograd.grad(end.sum(), t)
    return f"{abs(gradient[1].item() - end.item() * math.cos(5)):.1e}"


# ---------------------------------------------------------------------------------------------------------- events


def _landing(library: Any) -> str:
    def ball(t: Tensor, y: Tensor) -> Tensor:
        return torch.stack((y[1], torch.full_like(y[1], -9.81)))

    start = torch.tensor([0.0, 5.0], dtype=torch.float64)
    t, _ = library.odeint_event(ball, start, UNIT[:1], event_fn=lambda t, y: y[0] + 1e-3, rtol=1e-6, atol=1e-6)
    return f"{abs(t.item() - (5 + math.sqrt(25 + 2 * 9.81e-3)) / 9.81):.1e}"


def _by_level(library: Any) -> str:
    level, rate = learned(0.5), learned(2.0)
    t, _ = library.odeint_event(partial(decay, rate=rate), ONE, UNIT[:1], event_fn=lambda t, y: y - level)
    (gradient,) = torch.autograd.grad(t, level, allow_unused=True)
    return "none" if gradient is None else f"{gradient.item():.4f}"


def _twice(library: Any) -> str:
    rate = learned(2.0)
    t, _ = library.odeint_event(partial(decay, rate=rate), ONE, UNIT[:1], event_fn=lambda t, y: y - 0.5)
    (first,) = torch.autograd.grad(t, rate, create_graph=True)
    return f"{torch.autograd.grad(first, rate)[0].item():.4f}"


# ------------------------------------------------------------------------------------------------------- gradients


def _asked_again(library: Any) -> str:
    rate = learned(2.0)
    told = Told(partial(decay, rate=rate))
    end = library.odeint(told, ONE, UNIT)[-1]
    forward = len(told.asked)
    end.sum().backward()
    return f"{forward} + {len(told.asked) - forward}"


def _left_behind(library: Any) -> str:
    rate, costs = learned(2.0), []

    def costly(t: Tensor, y: Tensor) -> Tensor:
        costs.append((rate * y).square().sum())
        return -rate * y

    end = library.odeint(costly, ONE, UNIT, method="rk4")[-1]
    (gradient,) = torch.autograd.grad(0 * end.sum() + torch.stack(costs).sum(), rate)
    return f"{gradient.item():.1f}"


def _scipy(library: Any) -> str:
    rate = learned(2.0)
    library.odeint(partial(decay, rate=rate), ONE, UNIT, method="scipy_solver")[-1].sum().backward()
    assert rate.grad is not None
    return f"{abs(rate.grad.item() + math.exp(-2)):.1e}"


def _complex(library: Any) -> str:
    rate, y0 = learned(1.0), torch.tensor([1 + 0.5j], dtype=torch.complex128)
    end = library.odeint_adjoint(lambda t, y: 1j * rate * y, y0, UNIT, adjoint_params=(rate,))[-1]
    (gradient,) = torch.autograd.grad(end.real.sum(), rate)
    return f"{abs(gradient.item() + end.item().imag):.1e}"


def _vmapped(library: Any) -> str:
    rows = torch.vmap(lambda y: library.odeint(decay, y, UNIT, method="rk4")[-1])(torch.ones(3, 2))
    return "works" if torch.equal(rows, library.odeint(decay, torch.ones(3, 2), UNIT, method="rk4")[-1]) else "differs"


QUESTIONS: dict[str, Callable[[Any], str]] = {
    "dopri8 at 1e-10 on y' = y cos t: error at t = 10": _dopri8,
    "explicit_adams as it comes, 200 steps on y' = −y: error at t = 10": _explicit_adams,
    "implicit_adams as it comes, 200 steps on y' = −2y: error at t = 20": _implicit_adams,
    "implicit_adams, max_order 4, on 400 uneven steps: order measured, error": _uneven,
    "fehlberg2 at 1e-6 on y' = y cos t: evaluations a step, error": partial(_reused, method="fehlberg2"),
    "adaptive_heun, the same": partial(_reused, method="adaptive_heun"),
    "euler, 10,000 steps in float16 on y' = 1/4: error": _half,
    "the latest time at which f is asked for a solve that ends at 1": _latest,
    "y' = 1.5 √(1 − t) up to t = 1, at 1e-6: error": _rooted,
    "step_t=[0.5], a list, where time goes backwards: how far the nearest step ends from it": _listed,
    "jump_t, odeint_adjoint, where time goes backwards: evaluations back, error of the gradient": _jumps_back,
    "d/dt of the end, dopri8 at its defaults: error": _by_end,
    "event of a falling ball at 1e-6: error of the time": _landing,
    "derivative of the time of an event by a parameter of the event function (−1)": _by_level,
    "second derivative of the time of an event (0.1733)": _twice,
    "odeint: evaluations forward + backward": _asked_again,
    "gradient of costs that func leaves behind in a list (103.1)": _left_behind,
    "scipy_solver: error of the gradient": _scipy,
    "odeint_adjoint of a complex state, by a real parameter: error of the gradient": _complex,
    "torch.vmap over odeint with rk4": _vmapped,
}
