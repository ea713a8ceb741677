"""Solve each row over its own time interval, as between two observations of a series."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from jaxtyping import Float, Float64
from torch import Tensor, nn

from neuralode.engines.grid import check_grid_method, equal_steps, integrate_grid
from neuralode.methods import find_method
from neuralode.solver.solve import solve


class Evolve(nn.Module):
    """Move the state of every row along a field from its own t0 to its own t1.

    Intervals between observations are short and many. By default each is crossed in a few equal steps, which are part
    of the network like any layer: they never wait for the device, and plain backpropagation differentiates them. With
    ``steps=None`` the solver adapts the steps of each row to the tolerances.

    Parameters
    ----------
    f : Module or callable
        The field ``f(t, y) -> dy/dt`` on states [rows, features], with t of shape [rows].
    method : str, Tableau or method, default=None
        As in `neuralode.solve`; None is "midpoint" for equal steps and "tsit5" for adaptive ones.
    steps : int or None, default=1
        The number of equal steps in each interval; None adapts the steps.
    rtol : float, default=1e-3
        The relative tolerance of adaptive steps.
    atol : float, default=1e-4
        The absolute tolerance of adaptive steps.
    gradient : {"replay", "adjoint", "direct"} or gradient, default="replay"
        How derivatives of adaptive steps are computed.

    Raises
    ------
    ValueError
        If ``steps`` is below 1, or the method does not support the kind of steps.

    Examples
    --------
    >>> evolve = Evolve(lambda t, y: -y, method="rk4", steps=4)
    >>> t0, t1 = torch.zeros(2, dtype=torch.float64), torch.tensor([1.0, 2.0], dtype=torch.float64)
    >>> [round(x, 3) for x in evolve(torch.ones(2, 1), t0, t1).flatten().tolist()]  # exp(-1), exp(-2)
    [0.368, 0.136]
    """

    def __init__(
        self,
        f: Callable[..., Tensor],
        *,
        method: Any = None,
        steps: int | None = 1,
        rtol: float = 1e-3,
        atol: float = 1e-4,
        gradient: Any = "replay",
    ) -> None:
        super().__init__()
        if steps is not None and (isinstance(steps, bool) or not isinstance(steps, int) or steps < 1):
            raise ValueError(f"steps={steps!r}; wanted a whole number of at least 1, or None to adapt them.")
        if method is None:
            method = "tsit5" if steps is None else "midpoint"
        resolved = find_method(method)
        if steps is not None:
            check_grid_method(resolved, ", or steps=None to adapt the steps")
        elif not resolved.adaptive:
            raise ValueError(f"method {resolved.name!r} does not adapt its steps; wanted steps=1 or more, or 'tsit5'.")
        self.f = f
        self.method, self.steps = method, steps
        self.rtol, self.atol, self.gradient = rtol, atol, gradient

    def forward(
        self, y: Float[Tensor, "rows features"], t0: Float64[Tensor, " rows"], t1: Float64[Tensor, " rows"]
    ) -> Float[Tensor, "rows features"]:
        """Return the states at t1; time runs backwards in all rows or in none."""
        if self.steps is not None:
            return integrate_grid(self.f, y, equal_steps(t0, t1, self.steps), method=find_method(self.method))
        times = torch.stack((t0, t1), 1)
        options = {"method": self.method, "rtol": self.rtol, "atol": self.atol, "gradient": self.gradient}
        return solve(self.f, y, times, per_sample=True, **options).y1
