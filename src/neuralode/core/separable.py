"""An f in two functions: of a pair (q, p), each half of whose slope depends on the other half alone."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import nn


class Separable(nn.Module):
    """An f of a pair (q, p) for symplectic methods: dq/dt = velocity(t, p) and dp/dt = force(t, q).

    As an f it is like any other, for every method. `Partitioned` methods ask the one function of it that they need,
    where of any other f they evaluate the whole and use half.

    Parameters
    ----------
    velocity : callable
        ``velocity(t, p, *args) -> dq/dt``, with the structure, shapes and dtypes of q. It and ``force`` may be Modules,
        which become submodules.
    force : callable
        ``force(t, q, *args) -> dp/dt``, with the structure, shapes and dtypes of p.

    Examples
    --------
    >>> import torch, neuralode as node
    >>> f = node.Separable(lambda t, p, k: p, lambda t, q, k: -k * q)
    >>> y0 = (torch.ones(1, dtype=torch.float64), torch.zeros(1, dtype=torch.float64))
    >>> k = torch.tensor(4.0, dtype=torch.float64, requires_grad=True)
    >>> sol = node.solve(f, y0, (0.0, 1.0), args=(k,), method="yoshida4", step_size=0.05)
    >>> q, p = sol.y1
    >>> q.sum().backward()
    >>> round(q.item(), 4), round(k.grad.item(), 4)  # cos(2), -sin(2) / 4
    (-0.4161, -0.2273)
    """

    def __init__(self, velocity: Callable[..., Any], force: Callable[..., Any]) -> None:
        super().__init__()
        for name, part in (("velocity", velocity), ("force", force)):
            if not callable(part):
                raise TypeError(f"Separable({name}) is a {type(part).__name__}; wanted a callable.")
        self.velocity, self.force = velocity, force

    def forward(self, t: Any, y: Any, *args: Any) -> Any:
        """(dq/dt, dp/dt) of y = (q, p)."""
        q, p = y
        slopes = self.velocity(t, p, *args), self.force(t, q, *args)
        return list(slopes) if isinstance(y, list) else slopes
