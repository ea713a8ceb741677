"""The event that ends a solve at a steady state."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.utils._pytree import PyTree, tree_leaves

from neuralode.core.field import Field
from neuralode.core.types import UserFunction
from neuralode.inputs.events import Event


def until_steady(f: UserFunction, *, rtol: float = 1e-6, atol: float = 1e-8) -> Event:
    """Return the terminal event that the state has become steady.

    Parameters
    ----------
    f : callable
        The f of the solve.
    rtol, atol : float, default=1e-6, 1e-8
        The state is steady where |f| ≤ atol + rtol · |y|, a rate per unit of time: the root mean square over each leaf,
        then the largest over leaves; row by row with ``per_sample``.

    Returns
    -------
    Event
        For ``solve(f, y0, (t0, math.inf), events=until_steady(f))``. The tolerances of the solve should not be larger:
        its errors would keep the state moving. A state that is steady at the start causes no event.

    Raises
    ------
    ValueError
        If a tolerance is negative or not finite, or both are 0.

    Examples
    --------
    >>> import math, torch, neuralode as node
    >>> def f(t, y):
    ...     return 1 - y
    >>> y0 = torch.zeros(1, dtype=torch.float64)
    >>> sol = node.solve(f, y0, (0.0, math.inf), events=node.until_steady(f), rtol=1e-9, atol=1e-9)
    >>> round(sol.ts[-1].item(), 1)  # about log(1e6)
    13.8
    """
    function = f.f if isinstance(f, Field) else f
    for name, value in (("rtol", rtol), ("atol", atol)):
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value < math.inf:
            raise ValueError(f"{name}={value!r}; wanted a finite number that is not negative.")
    if max(rtol, atol) == 0:
        raise ValueError("rtol and atol are both 0; wanted at least one above 0.")

    def log_ratio(t: Tensor, y: PyTree, *args: PyTree) -> Tensor:
        ratio = _ratio(function(t, y, *args), y, rtol=rtol, atol=atol, by_row=t.dim() > 0)
        return ratio.clamp_min(torch.finfo(ratio.dtype).tiny).log()

    return Event(log_ratio, direction=-1)


def _ratio(slope: PyTree, y: PyTree, *, rtol: float, atol: float, by_row: bool) -> Tensor:
    """Return |dy/dt| over its tolerance: 0-d, or [rows]."""
    norms = []
    for k, x in zip(tree_leaves(slope), tree_leaves(y), strict=True):
        scaled = k.abs() / (atol + rtol * x.abs())
        scaled = scaled.flatten(1) if by_row else scaled
        norms.append(scaled.square().mean(1 if by_row else None).sqrt())
    return torch.stack(norms).amax(0)
