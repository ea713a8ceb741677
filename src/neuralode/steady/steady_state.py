"""Find steady states: integrate until f is small, polish by Newton's iteration, attach derivatives."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import torch
from jaxtyping import Bool, Float64, Int64, Shaped
from torch import Tensor

from neuralode.core.field import Field
from neuralode.core.problem import Problem, make_problem
from neuralode.core.registry import pick
from neuralode.core.solution import Stats
from neuralode.core.status import SolveError, Status
from neuralode.inputs.events import Event
from neuralode.inputs.steady_state_event import until_steady
from neuralode.methods import Method, Tableau
from neuralode.solver.probe import first_evaluation
from neuralode.solver.row_independence import find_coupling
from neuralode.solver.solve import solve
from neuralode.steady.implicit_gradient import attach_implicit_gradient
from neuralode.steady.linear_systems import time_zero
from neuralode.steady.newton import newton

OTHER_TIME = math.sqrt(3) / 2  # f must have the same value here and at 0


@dataclass(frozen=True)
class SteadyState:
    """A state at which f is zero.

    Attributes
    ----------
    y : pytree
        The state; NaN in rows that did not become steady. Differentiable by every tensor that f uses, not by y0.
    residual : Tensor[rows]
        Root mean square of f at the state; NaN in rows that did not become steady.
    t : Tensor[rows]
        Time until f was within the tolerance, float64; NaN in rows that did not become steady.
    status : Tensor[rows]
        `Status.SUCCESS`, or the reason of the failure; ``MAX_STEPS`` also if ``max_time`` was not enough.
    stats : Stats
        The cost of integration and Newton's iteration.
    """

    y: Any
    residual: Tensor
    t: Tensor
    status: Tensor
    stats: Stats

    @property
    def success(self) -> bool:
        """Whether every row became steady."""
        return bool((self.status == Status.SUCCESS).all())


def steady_state(
    f: Callable[..., Any],
    y0: Any,
    *,
    args: tuple = (),
    args_dims: Any = None,
    method: str | Method | Tableau = "kvaerno5",
    rtol: float = 1e-6,
    atol: float = 1e-8,
    per_sample: bool = False,
    max_time: float = math.inf,
    max_steps: int = 1000,
    polish: int = 8,
    dense_limit: int = 128,
    derivatives: int = 1,
    on_failure: Literal["raise", "return"] = "raise",
) -> SteadyState:
    """Find the steady state that dy/dt = f(t, y) approaches from y0, differentiably and without storing steps.

    Parameters
    ----------
    f : callable
        ``f(t, y, *args)`` as for `solve`. It must not change with t, which is checked.
    y0 : pytree of Tensor
        Initial state. It decides which steady state is found, and receives no gradient.
    args, args_dims : tuple, default=(), None
        As for `solve`. Tensors in ``args``, parameters of f and tensors that it closes over receive gradients.
    method : str, Method or Tableau, default="kvaerno5"
        An adaptive method. Near a steady state the fastest mode limits the steps of an explicit method, whose state may
        oscillate above the tolerance; so the default is implicit. For networks without fast modes "tsit5" is faster.
    rtol, atol : float, default=1e-6, 1e-8
        The state is steady where |f| ≤ atol + rtol · |y| (see `until_steady`). Also the tolerances of the integration.
    per_sample : bool, default=False
        Give every row its own clock.
    max_time : float, default=inf
        Longest time of integration.
    max_steps : int, default=1000
        Attempts allowed to each row.
    polish : int, default=8
        Largest number of Newton steps after the integration. Each is kept in the rows where it reduces |f|.
    dense_limit : int, default=128
        Size of a system up to which Jacobians are formed; larger ones are solved by GMRES.
    derivatives : {1, 2}, default=1
        Number of correct orders of derivatives. The second costs one more evaluation of f.
    on_failure : {"raise", "return"}, default="raise"
        Raise `SolveError` if a row does not become steady, or return NaN there, with the status of each row.

    Returns
    -------
    SteadyState

    Raises
    ------
    TypeError, ValueError
        For bad arguments, and for an f that changes with t.
    SolveError
        If no steady state is reached; its ``solution`` is the partial result.
    GradientError
        In backward, if the Jacobian is singular: the state is then not a function of the tensors that f uses.

    Examples
    --------
    >>> import torch, neuralode as node
    >>> capacity = torch.tensor(2.0, dtype=torch.float64, requires_grad=True)
    >>> y0 = torch.full((1,), 0.1, dtype=torch.float64)
    >>> rest = node.steady_state(lambda t, y: y * (1 - y / capacity), y0)
    >>> rest.y.backward()
    >>> round(rest.y.item(), 12), round(capacity.grad.item(), 12)
    (2.0, 1.0)
    """
    if derivatives not in (1, 2):
        raise ValueError(f"derivatives={derivatives!r}; wanted 1 or 2.")
    if isinstance(max_time, bool) or not isinstance(max_time, (int, float)) or not max_time > 0:
        raise ValueError(f"max_time={max_time!r}; wanted a positive number.")
    pick("on_failure", on_failure, table={"raise": None, "return": None}, kind=())
    event = until_steady(f, rtol=rtol, atol=atol)
    problem = make_problem(
        f, y0, (0.0, float(max_time)), args=args, args_dims=args_dims, per_sample=per_sample, endless=True
    )
    layout, start = problem.layout, problem.y0.detach()
    with torch.no_grad():
        first_evaluation(problem)
        problem, calls = find_coupling(problem)
        calls += 2 + _check_autonomous(problem, start)
        moving = event(problem.field, problem.start, start).expand(layout.rows) > 0
        rest = _integrate(problem, event, moving, method=method, rtol=rtol, atol=atol, max_steps=max_steps)
        steady = rest.status == Status.SUCCESS
        y = torch.where(steady[:, None], rest.y, start)
        y, slope, newton_calls = newton(problem, y, steady, max_iterations=polish, dense_limit=dense_limit)
        calls += newton_calls + _check_autonomous(problem, y)
    if torch.is_grad_enabled():
        y = attach_implicit_gradient(problem, y, steady, derivatives=derivatives, dense_limit=dense_limit)
    residual = slope.abs().square().mean(1).sqrt() if layout.features else slope.new_zeros(layout.rows)
    evaluations, accepted, rejected = rest.stats._clocks
    result = SteadyState(
        y=layout.unpack(torch.where(steady[:, None], y, torch.nan)),
        residual=torch.where(steady, residual, torch.nan),
        t=rest.t,
        status=rest.status,
        stats=Stats(rest.stats.calls + calls, layout.rows, (evaluations + newton_calls, accepted, rejected)),
    )
    if on_failure == "raise" and not result.success:
        raise _no_steady_state(result, problem, max_time=max_time, max_steps=max_steps)
    return result


class _Integrated(NamedTuple):
    """The states at which the rows became steady, when, their status and the cost."""

    y: Shaped[Tensor, "rows features"]
    t: Float64[Tensor, " rows"]
    status: Int64[Tensor, " rows"]
    stats: Stats


def _integrate(
    problem: Problem, event: Event, moving: Bool[Tensor, " rows"], *, max_steps: int, **options: Any
) -> _Integrated:
    """Integrate until the event; rows that are not ``moving`` are steady already."""
    field, layout, rows, y0 = problem.field, problem.layout, problem.layout.rows, problem.y0.detach()
    if not bool(moving.any()) and bool(y0.isfinite().all()):
        zeros = torch.zeros(rows, device=y0.device)
        return _Integrated(y=y0, t=zeros.double(), status=zeros.long(), stats=Stats(0, rows, (0, 0, 0)))
    times = problem.t
    if problem.per_sample:
        times = torch.stack((times[:, 0], torch.where(moving, times[:, 1], 0)), 1)
    solution = solve(
        field.f if field.dtype is None else Field(field.f, field.dtype), layout.unpack(y0), times, args=field.args,
        args_dims=field.args_dims, max_steps=max_steps, per_sample=problem.per_sample, events=event,
        on_failure="return", **options,
    )  # fmt: skip
    status = solution.status.to(torch.int64)
    timed_out = (status == Status.SUCCESS) & moving  # max_time was reached without the event
    status = torch.where(status == Status.EVENT, Status.SUCCESS, status)
    status = torch.where(timed_out, Status.MAX_STEPS, status)
    t = torch.where(status == Status.SUCCESS, solution.ts[..., -1].to(y0.device).expand(rows), torch.nan)
    return _Integrated(y=layout.pack(solution.y1), t=t, status=status, stats=solution.stats)


def _check_autonomous(problem: Problem, y: Tensor) -> int:
    """Refuse an f that changes with t; return the calls of f that it took."""
    t = time_zero(problem)
    now, later = problem.field(t, y), problem.field(t + OTHER_TIME, y)
    slack = torch.finfo(now.dtype).eps ** 0.5 * (1 + now.abs())
    if bool(((now - later).abs() > slack).any()):
        raise ValueError(
            f"f changes with t (between 0 and {OTHER_TIME:.3f}, by up to {float((now - later).abs().amax()):.3g}), or "
            "draws random numbers; wanted an f(t, y, *args) that depends on y and args only."
        )
    return 2


def _no_steady_state(result: SteadyState, problem: Problem, *, max_time: float, max_steps: int) -> SolveError:
    """Return the error for rows that did not become steady."""
    failed = (result.status != Status.SUCCESS).nonzero()[:, 0].tolist()
    who = f" rows {failed[:8]} of {problem.layout.rows}" if problem.layout.has_rows else " the state"
    status = Status(int(result.status[failed[0]]))
    if status == Status.MAX_STEPS:
        why = f"still moving after max_steps={max_steps} attempts or max_time={max_time:g}"
    else:
        why = f"the integration failed with {status.name.lower()}"
    return SolveError(
        f"no steady state was reached:{who}, {why}. There may be none that attracts y0 (a periodic orbit, unbounded "
        "growth: plot solve(f, y0, …) over a long time), or the approach is slow: raise max_steps and max_time, loosen "
        "rtol and atol, or start nearer to it. The partial result is in the .solution of this error; "
        "on_failure='return' returns it.",
        result,
    )
