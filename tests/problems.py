"""The initial value problems of the tests: each with a closed form, or with SciPy as its reference.

Every field answers on a shared clock (``t`` 0-d) and, where the state has rows, on one clock per row (``t`` of
shape ``[B]``).
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from scipy.integrate import solve_ivp
from torch import Tensor

OUTPUTS = 6
REFERENCE_TOLERANCE = 1e-13


@dataclass(frozen=True)
class Problem:
    """One initial value problem in float64 (or complex128).

    ``exact`` maps a time to the state where a closed form is known; a tuple state is described leaf by leaf.
    """

    name: str
    f: Callable[..., Any]
    y0: Any
    t0: float
    t1: float
    exact: Callable[[float], Any] | None = None

    def times(self, outputs: int = OUTPUTS) -> Tensor:
        return torch.linspace(self.t0, self.t1, outputs, dtype=torch.float64)

    def flat(self, state: Any) -> Tensor:
        """The state as one vector per leading output time: leaves ``[T, *shape]`` become ``[T, F]``."""
        leaves = state if isinstance(state, tuple) else (state,)
        return torch.cat([leaf.reshape(leaf.shape[0], -1) for leaf in leaves], dim=1)

    def scipy_solve(self, method: str, rtol: float, atol: float) -> np.ndarray:
        """SciPy's answer at ``times()``, as an array ``[T, F]``."""
        leaves = self.y0 if isinstance(self.y0, tuple) else (self.y0,)
        sizes = [leaf.numel() for leaf in leaves]

        def field(t: float, y: np.ndarray) -> np.ndarray:
            parts = [p.reshape(leaf.shape) for p, leaf in zip(torch.as_tensor(y).split(sizes), leaves, strict=True)]
            state = tuple(parts) if isinstance(self.y0, tuple) else parts[0]
            answer = self.f(torch.tensor(t, dtype=torch.float64), state)
            answer = answer if isinstance(answer, tuple) else (answer,)
            return torch.cat([part.reshape(-1) for part in answer]).numpy()

        start = torch.cat([leaf.reshape(-1) for leaf in leaves]).numpy()
        times = self.times().numpy()
        found = solve_ivp(field, (self.t0, self.t1), start, method=method, t_eval=times, rtol=rtol, atol=atol)
        assert found.success, found.message
        return found.y.T

    def reference(self) -> np.ndarray:
        """The closed form where there is one, else DOP853 at 1e-13: ``[T, F]``."""
        if self.exact is not None:
            rows = [self.exact(float(t)) for t in self.times()]
            return np.stack([np.concatenate([np.ravel(np.asarray(leaf)) for leaf in _leaves(row)]) for row in rows])
        return _dop853(self.name)


def _leaves(state: Any) -> tuple[Any, ...]:
    return state if isinstance(state, tuple) else (state,)


@functools.cache
def _dop853(name: str) -> np.ndarray:
    return PROBLEMS[name].scipy_solve("DOP853", REFERENCE_TOLERANCE, REFERENCE_TOLERANCE)


def _vector(*numbers: float) -> Tensor:
    return torch.tensor(numbers, dtype=torch.float64)


def decay(t: Tensor, y: Tensor) -> Tensor:
    return -y


def oscillator(t: Tensor, y: Tensor) -> Tensor:
    return torch.stack([y[..., 1], -y[..., 0]], dim=-1)


def forced(t: Tensor, y: Tensor) -> Tensor:
    """y' = -y + sin t, whose solution from y(0) = 1 is (3 exp(-t) + sin t - cos t) / 2."""
    return -y + torch.sin(t)[..., None]


def modulated(t: Tensor, y: Tensor) -> Tensor:
    """y' = y cos t, whose solution is y(0) exp(sin t)."""
    return y * torch.cos(t)[..., None]


def logistic(t: Tensor, y: Tensor) -> Tensor:
    return y * (1 - y)


def lorenz(t: Tensor, y: Tensor) -> Tensor:
    a, b, c = y.unbind(-1)
    return torch.stack([10 * (b - a), a * (28 - c) - b, a * b - 8 / 3 * c], dim=-1)


def van_der_pol(t: Tensor, y: Tensor, stiffness: float = 2.0) -> Tensor:
    x, v = y.unbind(-1)
    return torch.stack([v, stiffness * (1 - x * x) * v - x], dim=-1)


def arenstorf(t: Tensor, y: Tensor) -> Tensor:
    """The restricted three-body orbit of Hairer, Nørsett & Wanner, Solving ODEs I, II.0."""
    moon = 0.012277471
    earth = 1 - moon
    a, b, u, v = y.unbind(-1)
    to_earth = ((a + moon) ** 2 + b**2) ** 1.5
    to_moon = ((a - earth) ** 2 + b**2) ** 1.5
    return torch.stack(
        [
            u,
            v,
            a + 2 * v - earth * (a + moon) / to_earth - moon * (a - earth) / to_moon,
            b - 2 * u - earth * b / to_earth - moon * b / to_moon,
        ],
        dim=-1,
    )


def pleiades(t: Tensor, y: Tensor) -> Tensor:
    """Seven stars in the plane, masses 1 ... 7 (Hairer, Nørsett & Wanner, Solving ODEs I, II.10)."""
    mass = torch.arange(1, 8, dtype=y.dtype)
    x, z, u, v = y.unflatten(-1, (4, 7)).unbind(-2)
    dx = x[..., None, :] - x[..., :, None]
    dz = z[..., None, :] - z[..., :, None]
    cubed = (dx**2 + dz**2 + torch.eye(7, dtype=y.dtype)) ** 1.5  # the diagonal only multiplies zeros
    return torch.cat([u, v, (mass * dx / cubed).sum(-1), (mass * dz / cubed).sum(-1)], dim=-1)


def brusselator(t: Tensor, y: Tensor) -> Tensor:
    a, b = y.unbind(-1)
    return torch.stack([1 + a * a * b - 4 * a, 3 * a - a * a * b], dim=-1)


def rotation(t: Tensor, z: Tensor) -> Tensor:
    return (-0.2 + 2j) * z


def prey_and_predator(t: Tensor, y: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
    prey, predator = y
    return 1.5 * prey - prey * predator, -3 * predator + prey * predator


_PLEIADES_START = _vector(
    *(3, 3, -1, -3, 2, -2, 2),
    *(3, -3, 2, 0, 0, -4, 4),
    *(0, 0, 0, 0, 0, 1.75, -1.5),
    *(0, 0, 0, -1.25, 1, 0, 0),
)

_ALL = [
    Problem("decay", decay, _vector(1.0, -0.5), 0.0, 3.0, lambda t: np.array([1.0, -0.5]) * math.exp(-t)),
    Problem("oscillator", oscillator, _vector(1.0, 0.0), 0.0, 6.0, lambda t: np.array([math.cos(t), -math.sin(t)])),
    Problem(
        "forced",
        forced,
        _vector(1.0),
        0.0,
        5.0,
        lambda t: np.array([(3 * math.exp(-t) + math.sin(t) - math.cos(t)) / 2]),
    ),
    Problem("modulated", modulated, _vector(0.7), 0.0, 6.0, lambda t: np.array([0.7 * math.exp(math.sin(t))])),
    Problem("logistic", logistic, _vector(0.1), 0.0, 6.0, lambda t: np.array([1 / (1 + 9 * math.exp(-t))])),
    Problem("lorenz", lorenz, _vector(1.0, 1.0, 1.0), 0.0, 2.0),
    Problem("van der pol", van_der_pol, _vector(2.0, 0.0), 0.0, 8.0),
    Problem("arenstorf", arenstorf, _vector(0.994, 0.0, 0.0, -2.00158510637908252240537862224), 0.0, 8.0),
    Problem("pleiades", pleiades, _PLEIADES_START, 0.0, 1.5),
    Problem("brusselator", brusselator, _vector(1.5, 3.0), 0.0, 6.0),
    Problem(
        "complex rotation",
        rotation,
        torch.tensor([1.0 + 0.5j], dtype=torch.complex128),
        0.0,
        4.0,
        lambda t: np.array([(1.0 + 0.5j) * np.exp((-0.2 + 2j) * t)]),
    ),
    Problem("backward oscillator", oscillator, _vector(1.0, 0.0), 2.0, -4.0),
    Problem("backward forced", forced, _vector(1.0), 1.0, -1.5),
    Problem("tuple of prey and predator", prey_and_predator, (_vector(10.0), _vector(5.0)), 0.0, 3.0),
]

PROBLEMS = {problem.name: problem for problem in _ALL}
