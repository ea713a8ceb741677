"""`odeint_dense`: a solution to be asked at any time."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from neuralode.torchdiffeq.core import run
from neuralode.torchdiffeq.eager import eager
from neuralode.torchdiffeq.inputs import check
from neuralode.torchdiffeq.options import read_options
from neuralode.torchdiffeq.solvers import SOLVERS


@eager
def odeint_dense(
    func: Any,
    y0: Tensor,
    t0: Any,
    t1: Any,
    *,
    rtol: Any = 1e-7,
    atol: Any = 1e-9,
    method: str | None = None,
    options: dict[str, Any] | None = None,
) -> Callable[[Any], Tensor]:
    """Solve from t0 to t1 and return a function of time, the method's own dense output.

    Parameters
    ----------
    func, rtol, atol, method, options
        As in `odeint`.
    y0 : Tensor
        The state at t0.
    t0, t1 : float or Tensor
        Where the solve starts and ends.

    Returns
    -------
    callable
        ``solution(t)`` for t between t0 and t1, 0-d or of any length; differentiable.

    Examples
    --------
    >>> import torch
    >>> from neuralode.torchdiffeq import odeint_dense
    >>> solution = odeint_dense(lambda t, y: -y, torch.ones(3, dtype=torch.float64), 0.0, 1.0)
    >>> round(solution(0.5)[0].item(), 6)
    0.606531
    """
    assert isinstance(y0, Tensor), f"y0 must be a torch.Tensor here; got a {type(y0).__name__}."
    ends = [torch.as_tensor(t, dtype=None if isinstance(t, Tensor) else torch.float64).reshape(()) for t in (t0, t1)]
    task = check(func, y0, torch.stack([end.to(ends[0]) for end in ends]), rtol, atol, method, options, None, SOLVERS)
    assert task.native, f'method "{task.method}" has no dense output that is known here.'
    read = read_options(task)
    assert not read.method.one_call, f'method "{task.method}" has no dense output.'
    read = replace(read, method=getattr(read.method, "method", read.method))
    return run(task, read, dense=True)
