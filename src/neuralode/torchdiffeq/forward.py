"""`odeint`: the solve, and its gradient through the steps."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from neuralode.torchdiffeq.eager import eager
from neuralode.torchdiffeq.inputs import check
from neuralode.torchdiffeq.solvers import SOLVERS
from neuralode.torchdiffeq.tasks import solve_task


@eager
def odeint(
    func: Any,
    y0: Any,
    t: Tensor,
    *,
    rtol: Any = 1e-7,
    atol: Any = 1e-9,
    method: str | None = None,
    options: dict[str, Any] | None = None,
    event_fn: Any = None,
) -> Any:
    """Solve dy/dt = func(t, y) from y(t[0]) = y0, as torchdiffeq's ``odeint`` does.

    Gradients are those of the steps that were taken. They are replayed from the states before each step, which takes
    much less memory than keeping all activations; where func draws random numbers, all are kept.

    Parameters
    ----------
    func : callable
        ``func(t, y)`` returning dy/dt; t is 0-d in the real dtype of the state.
    y0 : Tensor or tuple of Tensor
        The state at ``t[0]``, floating or complex. The parts of a tuple are promoted to the widest dtype among them.
    t : Tensor[T]
        Output times, strictly increasing or decreasing.
    rtol, atol : float, Tensor or sequence
        Tolerances; of a tuple state one for each part, or one for all.
    method : str, optional
        One of `SOLVERS`; "dopri5" unless given.
    options : dict, optional
        Options of the method. Those that it does not know are warned of.
    event_fn : callable, optional
        ``event_fn(t, y)``: the solve ends where it, or any of its numbers, becomes zero. ``t`` then has two times, of
        which the second only says which way to go.

    Returns
    -------
    Tensor or tuple of Tensor
        The states, each with a leading axis of length T. With ``event_fn``: the time of the event, and the states at
        ``t[0]`` and there.

    Raises
    ------
    AssertionError, ValueError, TypeError
        Of the types that torchdiffeq raises.

    Examples
    --------
    >>> import torch
    >>> from neuralode.torchdiffeq import odeint
    >>> y0 = torch.ones(3, dtype=torch.float64, requires_grad=True)
    >>> ys = odeint(lambda t, y: -y, y0, torch.tensor([0.0, 1.0]))
    >>> ys[-1].sum().backward()
    >>> ys.shape, round(y0.grad[0].item(), 6)
    (torch.Size([2, 3]), 0.367879)
    """
    return solve_task(check(func, y0, t, rtol, atol, method, options, event_fn, SOLVERS))
