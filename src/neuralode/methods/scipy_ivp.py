"""SciPy's solvers, for comparison and for what is not here: a whole stretch at a time, on the host."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from neuralode.core.extras import require
from neuralode.core.registry import pick
from neuralode.methods.base import Crossed, Span

SOLVERS = ("RK23", "RK45", "DOP853", "Radau", "BDF", "LSODA")


@dataclass(frozen=True)
class Scipy:
    """A solver of `scipy.integrate.solve_ivp` as a method. Gradients by ``gradient="adjoint"``.

    Every evaluation copies the state to the host and back: this is for comparison, not for speed. One clock for all
    rows; no dense output, events or stops.

    Parameters
    ----------
    solver : {"LSODA", "RK23", "RK45", "DOP853", "Radau", "BDF"}
        Which one.
    options : mapping, optional
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
    one_call = True  # not step by step: crosses a stretch in one call
    order = error_order = interpolant_order = 0
    stages = evaluations_per_step = 1
    dense_evaluations = 0
    inexact = 0.0

    def __post_init__(self) -> None:
        pick("solver", self.solver, dict.fromkeys(SOLVERS), ())

    @property
    def name(self) -> str:
        """What the method is called."""
        return f"scipy {self.solver}"

    def begin(self, f0: Tensor) -> None:
        """Nothing is handed on."""

    def cross(self, span: Span) -> Crossed:
        """Return the states at ``span.ends``."""
        f, t, y, ends, norm, controller = span
        require("series", "scipy")
        from scipy.integrate import solve_ivp  # not of the core

        def slope(time: float, state: np.ndarray) -> np.ndarray:
            at = torch.as_tensor(state).to(y).reshape(y.shape)
            return _numpy(f(torch.tensor(time, dtype=y.dtype.to_real(), device=y.device), at))

        bounds = {"first_step": controller.first_step, "max_step": controller.max_step, "min_step": controller.min_step}
        options = {name: value for name, value in bounds.items() if value is not None} | dict(self.options)
        rtol, atol = (_numpy(x) if isinstance(x, Tensor) else x for x in (norm.rtol, norm.atol))
        found = solve_ivp(
            slope, (t, ends[-1]), _numpy(y), method=self.solver, t_eval=ends, rtol=rtol, atol=atol, **options
        )
        states = torch.full((len(ends), *y.shape), torch.nan, dtype=y.dtype, device=y.device)
        reached = torch.as_tensor(found.y.T.copy()).to(y)
        states[: len(reached)] = reached.reshape(-1, *y.shape)
        return Crossed(states, bool(found.success), int(found.nfev))


def _numpy(x: Tensor) -> np.ndarray:
    wide = torch.complex128 if x.is_complex() else torch.float64
    return x.detach().to(device="cpu", dtype=wide).reshape(-1).numpy()
