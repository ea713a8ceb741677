"""Doses: jumps of the state at known times."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor


@dataclass(frozen=True, eq=False)
class Dose:
    """A jump of the state at known times.

    Parameters
    ----------
    t : float, sequence of float, Tensor[], Tensor[K] or (with ``per_sample``) Tensor[rows, K]
        Times of the jump, nondecreasing and within the span of the solve. In [rows, K], NaN and +inf mean no dose.
    change : number, Tensor, pytree or callable
        The amount added to the state: a number for all of it; a tensor or a pytree like y0, the same at every time; or
        one with a leading axis of length K, laid out like the outputs [K, *shape of the leaf], or broadcasting to that.
        [K] is one number a time for the whole state. A leaf of a pytree may be any of these. Or a function
        ``change(t, y, *args)``, called like f, that returns the state after the dose.

    Notes
    -----
    The state at the time of a dose is the state after it: in ``ys``, in the dense output, and at the last time. Only
    output 0 is y0 itself, before a dose at the first time; a further output at the first time is after it. Doses at the
    same time are all given, in the order of the list. Gradients reach times, amounts, and every tensor that a function
    uses.

    Examples
    --------
    Two doses of a drug that is eliminated at a rate of 1:

    >>> import torch, neuralode as node
    >>> empty = torch.zeros(1, dtype=torch.float64)
    >>> dose = node.Dose([0.0, 1.0], [2.0, 1.0])
    >>> sol = node.solve(lambda t, y: -y, empty, (0.0, 2.0), doses=dose, rtol=1e-8, atol=1e-8)
    >>> round(sol.y1.item(), 5)  # 2 exp(-2) + exp(-1)
    0.63855
    """

    t: float | Sequence[float | Tensor] | Tensor
    change: Any  # a number, a tensor, the user's pytree or the user's function
