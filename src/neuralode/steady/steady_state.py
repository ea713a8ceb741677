"""Steady states: where f(y) = 0, followed there in time, polished by Newton, differentiated without the path.

With f(y*, θ) = 0 the implicit function theorem gives dy* = −J⁻¹ ∂f/∂θ dθ, J = ∂f/∂y. One linear solve with Jᵀ turns a
cotangent of y* into one of f, which one evaluation of f hands on to everything that it uses.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from neuralode.core.field import Field
from neuralode.core.problem import Problem, make_problem
from neuralode.core.registry import pick
from neuralode.core.solution import Stats
from neuralode.core.status import GradientError, SolveError, Status
from neuralode.inputs.events import Event
from neuralode.inputs.steady_state_event import until_steady
from neuralode.methods.implicit.linear import pack
from neuralode.solver.probe import first_evaluation
from neuralode.solver.row_independence import check_alone
from neuralode.solver.solve import solve
from neuralode.steady.linear_systems import Dense, Products, System

SOME_TIME = math.sqrt(3) / 2  # f is asked at 0 and here, whether it changes with t


@dataclass(frozen=True)
class SteadyState:
    """Where f is zero.

    Attributes
    ----------
    y : pytree
        The state; NaN in rows that did not come to rest. Differentiable by what f uses, not by y0.
    residual : Tensor[rows]
        Root mean square of f there.
    t : Tensor[rows]
        How long it took to within the tolerance, float64; NaN in rows that did not come to rest.
    status : Tensor[rows]
        `Status.SUCCESS`, or why not: ``MAX_STEPS`` also stands for the end of ``max_time``.
    stats : Stats
        What following and polishing cost.
    """

    y: Any
    residual: Tensor
    t: Tensor
    status: Tensor
    stats: Stats

    @property
    def success(self) -> bool:
        """Whether every row came to rest."""
        return bool((self.status == Status.SUCCESS).all())


def steady_state(
    f: Callable[..., Any],
    y0: Any,
    *,
    args: tuple = (),
    args_dims: Any = None,
    method: Any = "kvaerno5",
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
    """The steady state that dy/dt = f(t, y) comes to from y0, differentiable at the memory of one evaluation.

    Parameters
    ----------
    f : callable
        ``f(t, y, *args)`` as for `solve`; it must not change with t, which is checked.
    y0 : pytree of Tensor
        Where to begin. Decides which steady state is found; by itself it gets no gradient.
    args, args_dims
        As for `solve`. Tensors in ``args``, parameters of f and tensors that it closes over receive gradients.
    method : str, Tableau or method
        An adaptive one. Near a steady state an explicit method is held up by the fastest mode, and may tremble there
        above the tolerance, so it is implicit unless given. For networks without fast modes "tsit5" is quicker.
    rtol, atol : float
        Steady is where |f| ≤ atol + rtol · |y| (see `until_steady`); the way there is followed to the same tolerances.
    per_sample : bool
        Let every row come to rest by itself.
    max_time, max_steps : float, int
        How long to follow, in time and in attempts.
    polish : int
        Newton steps at most from there. Each is kept in the rows where it makes |f| smaller.
    dense_limit : int
        Size of a system up to which Jacobians are formed; larger ones are solved by GMRES.
    derivatives : {1, 2}
        How many orders of derivatives are to be right. The second costs one evaluation more.
    on_failure : {"raise", "return"}
        Raise `SolveError` where a row does not come to rest, or return NaN there, with the status beside it.

    Returns
    -------
    SteadyState

    Raises
    ------
    TypeError, ValueError
        For bad arguments, and for an f that changes with t.
    SolveError
        Where no steady state is reached; ``solution`` is what was found.
    GradientError
        In backward, where the Jacobian is singular: y* is then no function of what f uses.

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
    pick("on_failure", on_failure, {"raise": None, "return": None}, ())
    event = until_steady(f, rtol=rtol, atol=atol)
    problem = make_problem(f, y0, (0.0, float(max_time)), args, args_dims, per_sample, endless=True)
    layout, y = problem.layout, problem.y0.detach()
    with torch.no_grad():
        first_evaluation(problem)
        problem, calls = check_alone(problem)
        calls += 2 + _check_constant(problem, y)
        moving = _movement(problem, event, y) > 0
        y, t, status, stats = _follow(problem, event, y, moving, method, rtol, atol, max_steps)
        found = status == Status.SUCCESS
        y = torch.where(found[:, None], y, problem.y0.detach())
        y, slope, more = _polished(problem, y, found, polish, dense_limit)
        calls += more + _check_constant(problem, y)
    residual = slope.abs().square().mean(1).sqrt() if layout.features else slope.new_zeros(layout.rows)
    rest = _attached(problem, y, found, derivatives, dense_limit) if torch.is_grad_enabled() else y
    rest = torch.where(found[:, None], rest, torch.nan)
    residual = torch.where(found, residual, torch.nan)
    evaluations, *steps = stats._clocks
    stats = Stats(stats.calls + calls, layout.rows, (evaluations + more, *steps))
    answer = SteadyState(layout.unpack(rest), residual, t, status, stats)
    if on_failure == "raise" and not answer.success:
        raise _complaint(answer, problem, max_time, max_steps)
    return answer


def _movement(problem: Problem, event: Event, y: Tensor) -> Tensor:
    """The logarithm of how fast it moves, in units of what is tolerated: one number a row."""
    return event(problem.field, problem.start, y).expand(problem.layout.rows)


def _follow(
    problem: Problem, event: Event, y: Tensor, moving: Tensor, method: Any, rtol: float, atol: float, max_steps: int
) -> tuple[Tensor, Tensor, Tensor, Stats]:
    """Where the rows came to rest, when, how that went and what it cost."""
    rows, layout = problem.layout.rows, problem.layout
    status = torch.zeros(rows, dtype=torch.int64, device=y.device)
    t = torch.zeros(rows, dtype=torch.float64, device=y.device)
    if not bool(moving.any()) and bool(y.isfinite().all()):
        return y, t, status, Stats(0, rows, (0, 0, 0))
    times = problem.t
    if problem.per_sample:
        times = torch.where(torch.stack((moving, moving | True), 1), times, 0)
        times = torch.stack((times[:, 0], torch.where(moving, times[:, 1], 0)), 1)
    solution = solve(
        problem.field.f if problem.field.dtype is None else Field(problem.field.f, problem.field.dtype),
        layout.unpack(y), times, args=problem.field.args, args_dims=problem.field.args_dims, method=method,
        rtol=rtol, atol=atol, max_steps=max_steps, per_sample=problem.per_sample, events=event, on_failure="return",
    )  # fmt: skip
    reached = layout.pack(solution.y1)
    ends = solution.ts[..., -1].to(y.device).expand(rows)
    status = solution.status.to(torch.int64)
    late = (status == Status.SUCCESS) & moving  # the end of the time
    status = torch.where(status == Status.EVENT, Status.SUCCESS, status)
    ends = torch.where(status == Status.SUCCESS, ends, torch.nan).masked_fill(late, torch.nan)
    return reached, ends, torch.where(late, Status.MAX_STEPS, status), solution.stats


def _polished(problem: Problem, y: Tensor, found: Tensor, steps: int, dense_limit: int) -> tuple[Tensor, Tensor, int]:
    """The state after Newton's steps, f there, and the evaluations that it took."""
    field, t = problem.field, _zero(problem)
    slope, calls = field(t, y), 1
    for _ in range(steps):
        system = _system(problem, y, dense_limit)
        trial = y - system.solve(slope)
        after = field(t, trial)
        calls += 1 + system.calls
        better = found & (_size(after, field.coupled) < _size(slope, field.coupled))
        if not bool(better.any()):
            break
        y, slope = (torch.where(better[:, None], a, b) for a, b in ((trial, y), (after, slope)))
    return y, slope, calls


def _size(slope: Tensor, coupled: bool) -> Tensor:
    sizes = torch.linalg.vector_norm(slope, dim=1)
    return torch.linalg.vector_norm(sizes).expand(len(sizes)) if coupled else sizes


def _zero(problem: Problem) -> Tensor:
    """The time at which f is asked."""
    shape = (problem.layout.rows,) if problem.per_sample else ()
    return torch.zeros(shape, dtype=problem.field.time_dtype, device=problem.layout.device)


def _system(problem: Problem, y: Tensor, dense_limit: int) -> System:
    """The Jacobian at y, for solving with it."""
    field, t = problem.field, _zero(problem)
    blocks = 1 if field.coupled else len(y)
    numbers = y.numel() * (2 if y.is_complex() else 1) // max(blocks, 1)
    idle = _idle(problem, y, blocks) if y.is_complex() else None
    if numbers <= dense_limit:
        return Dense(field.jacobian(t, y), idle)
    return Products(field.linearised(t, y), y, blocks, idle)


def _idle(problem: Problem, y: Tensor, blocks: int) -> Tensor:
    """The imaginary parts of real leaves that lie beside complex ones: 1 at numbers that stand for nothing."""
    idle = torch.zeros_like(y)
    for leaf in problem.layout.leaves:
        if not leaf.dtype.is_complex:
            torch.view_as_real(idle)[:, leaf.start : leaf.stop, 1] = 1
    return pack([idle], blocks)


def _check_constant(problem: Problem, y: Tensor) -> int:
    """Refuse an f that changes with t; returns the evaluations that it took."""
    zero = _zero(problem)
    now, later = problem.field(zero, y), problem.field(zero + SOME_TIME, y)
    slack = torch.finfo(now.dtype).eps ** 0.5 * (1 + now.abs())
    if bool(((now - later).abs() > slack).any()):
        raise ValueError(
            f"f changes with t (between 0 and {SOME_TIME:.3f}, by up to {float((now - later).abs().amax()):.3g}), or "
            "draws random numbers; a steady state wants f(t, y, *args) that depends on y and args alone."
        )
    return 2


def _attached(problem: Problem, y: Tensor, found: Tensor, derivatives: int, dense_limit: int) -> Tensor:
    """The state with its derivatives: each round y − J⁻¹ f(y), with J held, makes one order of them right."""
    t, rest, system = _zero(problem), y, None
    for _ in range(derivatives):
        slope = problem.field(t, rest)
        if not slope.requires_grad:
            return y
        system = _system(problem, y, dense_limit) if system is None else system
        rest = rest + _Shift.apply(torch.where(found[:, None], slope, 0), system, derivatives)
    return rest


class _Shift(torch.autograd.Function):
    """−J⁻¹ f, of which only the derivatives are wanted: f is zero."""

    @staticmethod
    def forward(ctx: Any, slope: Tensor, system: System, derivatives: int) -> Tensor:
        ctx.system, ctx.derivatives = system, derivatives
        return torch.zeros_like(slope)

    @staticmethod
    def backward(ctx: Any, *cotangents: Tensor) -> Any:
        if torch.is_grad_enabled() and ctx.derivatives < 2:
            raise GradientError("steady_state(derivatives=1) has no second derivatives; wanted derivatives=2.")
        return -_Transposed.apply(cotangents[0], ctx.system), None, None


class _Transposed(torch.autograd.Function):
    """J⁻ᵀ g."""

    @staticmethod
    def forward(ctx: Any, g: Tensor, system: System) -> Tensor:
        ctx.system = system
        return system.transposed(g)

    @staticmethod
    def backward(ctx: Any, *cotangents: Tensor) -> Any:
        return ctx.system.solve(cotangents[0]), None


def _complaint(answer: SteadyState, problem: Problem, max_time: float, max_steps: int) -> SolveError:
    failed = (answer.status != Status.SUCCESS).nonzero()[:, 0].tolist()
    first = failed[0]
    who = f" rows {failed[:8]} of {problem.layout.rows}" if problem.layout.has_rows else " the state"
    status = Status(int(answer.status[first]))
    if status == Status.MAX_STEPS:
        why = f"after max_steps={max_steps} attempts or max_time={max_time:g} it still moves"
    else:
        why = f"the way there failed with {status.name.lower()}"
    return SolveError(
        f"no steady state was reached:{who}, {why}. There may be none that attracts y0 (a periodic orbit, "
        "unbounded growth: look at solve(f, y0, …) over a long time), or it is approached slowly: raise max_steps and "
        "max_time, loosen rtol and atol, or begin nearer to it. What was found is in the .solution of this error; "
        "on_failure='return' returns it.",
        answer,
    )
