"""The names of torchdiffeq's ``_impl.solvers``: the base class for fixed-step solver classes of users."""

from __future__ import annotations

import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

__all__ = ["FixedGridODESolver"]


class FixedGridODESolver(ABC):
    """Step from grid time to grid time; a subclass defines the step in `_step_func`.

    Parameters
    ----------
    func : callable
        ``func(t, y, perturb=)``, with the callbacks as attributes.
    y0 : Tensor
        The initial state.
    step_size : float, default=None
        Steps end at multiples of it. Without a step size or a grid constructor they end at the output times.
    grid_constructor : callable, default=None
        ``grid_constructor(func, y0, t)`` returns the times at which steps end.
    interp : {"linear", "cubic"}, default="linear"
        The interpolation of outputs within a step.
    perturb : bool, default=False
        Available to `_step_func` as ``self.perturb``.
    **unused
        Other arguments of solvers; unknown ones cause a warning.
    """

    order: int

    def __init__(
        self,
        func: Any,  # a function of (t, y, perturb=) with attributes
        y0: Tensor,
        step_size: float | Tensor | None = None,
        grid_constructor: Callable[[Any, Tensor, Tensor], Tensor] | None = None,
        interp: str = "linear",
        perturb: bool = False,
        **unused: Any,
    ) -> None:
        unused = {name: value for name, value in unused.items() if name not in ("rtol", "atol", "norm")}
        if unused:
            warnings.warn(f"{type(self).__name__}: Unexpected arguments {unused}", stacklevel=2)
        if step_size is not None and grid_constructor is not None:
            raise ValueError("step_size and grid_constructor are mutually exclusive: each defines where steps end.")
        if interp not in ("linear", "cubic"):
            raise ValueError(f'Unknown interpolation method {interp}; wanted "linear" or "cubic".')
        self.func, self.y0, self.dtype, self.device = func, y0, y0.dtype, y0.device
        self.step_size, self.interp, self.perturb = step_size, interp, perturb
        self.grid_constructor = grid_constructor or self._grid

    @classmethod
    def valid_callbacks(cls) -> set[str]:
        """Return the callbacks of func that the solver calls."""
        return {"callback_step"}

    @abstractmethod
    def _step_func(self, func: Any, t0: Tensor, dt: Tensor, t1: Tensor, y0: Tensor) -> tuple[Tensor, Tensor]:
        """Return the change of y over one step, and the slope at its start."""

    def integrate(self, t: Tensor) -> Tensor:
        """Return the states at some times."""
        grid = self.grid_constructor(self.func, self.y0, t)
        assert torch.equal(grid[[0, -1]], t[[0, -1]]), "grid_constructor: wanted times from t[0] to t[-1]."
        states, y0 = [self.y0], self.y0
        for t0, t1 in pairwise(grid):
            dt = t1 - t0
            self.func.callback_step(t0, y0, dt)
            step = self.func, t0, dt, t1, y0  # positional, since subclasses may name the parameters differently
            dy, f0 = self._step_func(*step)
            y1 = y0 + dy
            while len(states) < len(t) and bool(t1 >= t[len(states)]):
                states.append(self._interpolate(t[len(states)], t0, t1, y0=y0, y1=y1, f0=f0))
            y0 = y1
        return torch.stack(states)

    def _grid(self, func: Any, y0: Tensor, t: Tensor) -> Tensor:
        if self.step_size is None:
            return t
        steps = int(torch.ceil((t[-1] - t[0]) / self.step_size - 1e-9).item())
        return torch.cat((t[0] + torch.arange(steps, dtype=t.dtype, device=t.device) * self.step_size, t[-1:]))

    def _interpolate(self, t: Tensor, t0: Tensor, t1: Tensor, *, y0: Tensor, y1: Tensor, f0: Tensor) -> Tensor:
        if bool(t == t1):
            return y1
        theta, dt = (t - t0) / (t1 - t0), t1 - t0
        if self.interp == "linear":
            return y0 + theta * (y1 - y0)
        f1, increment = self.func(t1, y1), y1 - y0
        cubic = (dt * (f0 + f1) - 2 * increment) * theta + 3 * increment - dt * (2 * f0 + f1)
        return y0 + theta * (dt * f0 + theta * cubic)
