"""SciPy's solvers as methods that cross a span of time in one call, on the host."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from neuralode.core.clock import real_dtype
from neuralode.core.extras import require
from neuralode.core.registry import pick
from neuralode.methods.base import Crossed, Rows, Span

SOLVERS = ("RK23", "RK45", "DOP853", "Radau", "BDF", "LSODA")


@dataclass(frozen=True)
class Scipy:
    """A solver of `scipy.integrate.solve_ivp` as a method. Its gradients are those of ``gradient="adjoint"``.

    Every evaluation copies the state to the host and back: use it for comparison, not for speed. All rows share one
    clock; there are no dense output, events or stop times.

    Parameters
    ----------
    solver : {"LSODA", "RK23", "RK45", "DOP853", "Radau", "BDF"}, default="LSODA"
        The solver.
    options : mapping, default={}
        Further arguments of ``solve_ivp``.

    Examples
    --------
    >>> import torch, neuralode as node
    >>> y0 = torch.ones(1, dtype=torch.float64, requires_grad=True)
    >>> sol = node.solve(lambda t, y: -y, y0, (0.0, 1.0), method=node.Scipy("LSODA"), gradient="adjoint", rtol=1e-8)
    >>> sol.y1.sum().backward()
    >>> round(sol.y1.item(), 5), round(y0.grad.item(), 5)
    (0.36788, 0.36788)
    """

    solver: str = "LSODA"
    options: Mapping[str, Any] = field(default_factory=dict)

    family = "SciPy"
    adaptive = True
    implicit = False
    partitioned = False
    memoryless = True
    one_call = True
    order = error_order = interpolant_order = 0
    stages = evaluations_per_step = 1
    dense_evaluations = 0
    inexact = 0.0

    def __post_init__(self) -> None:
        pick("solver", self.solver, dict.fromkeys(SOLVERS), kind=())

    @property
    def name(self) -> str:
        """The name of the method."""
        return f"scipy {self.solver}"

    def begin(self, f0: Rows) -> None:
        """Return no method state."""

    def cross(self, span: Span) -> Crossed:
        """Return the states at ``span.ends``."""
        require("series", "scipy")
        from scipy.integrate import solve_ivp  # not a dependency of the core

        y = span.y

        def slope(t: float, state: np.ndarray) -> np.ndarray:
            time = torch.tensor(t, dtype=real_dtype(y.dtype), device=y.device)
            return _numpy(span.f(time, torch.as_tensor(state).to(y).reshape(y.shape)))

        tolerances = {"rtol": _plain(span.norm.rtol), "atol": _plain(span.norm.atol)}
        options = {**_bounds(span), **self.options}
        result = solve_ivp(
            slope, (span.t, span.ends[-1]), _numpy(y), method=self.solver, t_eval=span.ends, **tolerances, **options
        )
        states = torch.full((len(span.ends), *y.shape), torch.nan, dtype=y.dtype, device=y.device)
        reached = torch.as_tensor(result.y.T.copy()).to(y)
        states[: len(reached)] = reached.reshape(-1, *y.shape)
        return Crossed(states, bool(result.success), int(result.nfev))


def _bounds(span: Span) -> dict[str, float]:
    """Return the step size bounds of the controller that are set, under SciPy's names."""
    bounds = {name: getattr(span.controller, name) for name in ("first_step", "max_step", "min_step")}
    return {name: value for name, value in bounds.items() if value is not None}


def _plain(tolerance: float | Tensor) -> float | np.ndarray:
    return _numpy(tolerance) if isinstance(tolerance, Tensor) else tolerance


def _numpy(x: Tensor) -> np.ndarray:
    """Return the numbers of a tensor in double precision, flat."""
    dtype = torch.complex128 if x.is_complex() else torch.float64
    return x.detach().to(device="cpu", dtype=dtype).reshape(-1).numpy()
