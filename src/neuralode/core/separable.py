"""A separable f for pairs (q, p): dq/dt depends on p alone, and dp/dt on q alone."""

from __future__ import annotations

from torch import Tensor, nn

from neuralode.core.types import PyTree, UserFunction


class Separable(nn.Module):
    """A separable f of a pair (q, p), for symplectic methods: dq/dt = velocity(t, p) and dp/dt = force(t, q).

    Every method accepts it. `Partitioned` methods evaluate only the function that they need; of any other f they
    evaluate the whole slope and use half of it.

    Parameters
    ----------
    velocity : callable
        ``velocity(t, p, *args) -> dq/dt``, with the structure, shapes and dtypes of q. A Module becomes a submodule.
    force : callable
        ``force(t, q, *args) -> dp/dt``, with the structure, shapes and dtypes of p. A Module becomes a submodule.

    Raises
    ------
    TypeError
        If one of them is not callable.

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

    def __init__(self, velocity: UserFunction, force: UserFunction) -> None:
        super().__init__()
        for name, part in (("velocity", velocity), ("force", force)):
            if not callable(part):
                raise TypeError(f"Separable({name}) is a {type(part).__name__}; wanted a callable.")
        self.velocity, self.force = velocity, force

    def forward(self, t: Tensor, y: tuple[PyTree, PyTree] | list[PyTree], *args: PyTree) -> PyTree:
        """Return (dq/dt, dp/dt) at y = (q, p)."""
        q, p = y
        slopes = self.velocity(t, p, *args), self.force(t, q, *args)
        return list(slopes) if isinstance(y, list) else slopes
