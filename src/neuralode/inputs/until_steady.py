"""The event that a state no longer moves."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves

from neuralode.core.field import Field
from neuralode.inputs.events import Event


def until_steady(f: Callable[..., Any], *, rtol: float = 1e-6, atol: float = 1e-8) -> Event:
    """The terminal event that the state no longer moves.

    Parameters
    ----------
    f : callable
        The f of the solve.
    rtol, atol : float
        Steady is where |f| ≤ atol + rtol · |y|, a rate per unit of time, by the root mean square over each leaf and the
        largest over leaves; with ``per_sample`` row by row.

    Returns
    -------
    Event
        For ``solve(f, y0, (t0, math.inf), events=until_steady(f))``. Tolerances of the solve should be no larger, or
        its errors keep the state moving. A state that is steady at the start is no event.

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

    def movement(t: Tensor, y: Any, *args: Any) -> Tensor:
        ratio = _ratio(function(t, y, *args), y, rtol, atol, t.dim() > 0)
        return ratio.clamp_min(torch.finfo(ratio.dtype).tiny).log()

    return Event(movement, direction=-1)


def _ratio(slope: Any, y: Any, rtol: float, atol: float, by_row: bool) -> Tensor:
    """How fast the state moves against what is tolerated: 0-d, or [rows]."""
    sizes = []
    for k, x in zip(tree_leaves(slope), tree_leaves(y), strict=True):
        scaled = (k.abs() / (atol + rtol * x.abs())).flatten(1) if by_row else (k.abs() / (atol + rtol * x.abs()))
        sizes.append(scaled.square().mean(1 if by_row else None).sqrt())
    return torch.stack(sizes).amax(0)
