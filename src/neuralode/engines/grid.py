"""Take given steps, of a fixed grid or recorded by an adaptive solve, in plain tensor operations.

No step depends on a computed value, and the engine reads nothing back from the device. A solve can therefore be
compiled whole (``torch.compile(fullgraph=True)``), captured in a CUDA graph, and differentiated by backpropagation,
forward-mode differentiation and the transforms of `torch.func`. `integrate_grid` returns the final state,
`step_through` yields every step, `take_step` takes one.

Contract
--------
*State.* ``y`` is packed, [rows, features], floating or complex. On a shared clock, and without ``accept``, explicit
methods accept any shape.

*Times.* ``t`` and ``h`` of a step are floats or 0-d tensors (all rows share one clock) or tensors [rows] (one clock
for each row), in the units of the user's t. Tensors should be float64. ``h`` is signed; a row with ``h = 0`` keeps its
state if f is finite there. Steps are used as given: the end of one need not be the start of the next.

*f.* ``f(t, y) -> dy/dt`` returns the shape and dtype of y. It receives t in the real dtype of y: 0-d on a shared
clock, [rows] otherwise. It must not write into its arguments. Implicit and partitioned methods, and steps with
``edges``, need a `Field`.

*Derivatives.* Gradients flow to y, to tensors t and h, and to all tensors that f uses. Autograd keeps the activations
of all steps.

*Failure.* There is no error estimate, no status and no check for finite values: overflow propagates as inf and NaN.

*Host.* Explicit and low-storage Runge–Kutta methods never wait for the device. Other methods, which only
`step_through` and `take_step` accept, may: Newton's iteration reads a residual, multistep methods read a 0-d h.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import pairwise
from typing import NamedTuple, TypeAlias

import torch
from torch import Tensor

from neuralode.autodiff.checkpointing import Checkpointed
from neuralode.core.clock import Number
from neuralode.core.field import Field
from neuralode.core.record import StepEdges
from neuralode.methods.base import DeclaredProperties, Method, MethodState, StepStart

Slope: TypeAlias = Field | Checkpointed | Callable[[Tensor, Tensor], Tensor]


class GridStep(NamedTuple):
    """One step of a grid.

    Parameters
    ----------
    t : float, Tensor[] or Tensor[rows]
        Where the step starts.
    h : float, Tensor[] or Tensor[rows]
        Its signed size.
    accept : Tensor[rows] of bool, default=None
        Rows that take the step; the others keep their state, bit by bit. None: all rows.
    edges : StepEdges, default=None
        The end of the step, and whether f is discontinuous at its start and at its end, as floats and bools or as
        tensors [rows]. f is then evaluated strictly between discontinuous ends; see `Field.within`.
    thetas : tuple of float, default=()
        Positions within the step, from 0 to 1, at which the state is interpolated.
    dense : bool, default=False
        Whether to return the coefficients of the interpolant.
    restart : bool, default=False
        Whether to drop the method state after the step, as at a discontinuity of f.
    """

    t: Number
    h: Number
    accept: Tensor | None = None
    edges: StepEdges | None = None
    thetas: tuple[float, ...] = ()
    dense: bool = False
    restart: bool = False


class StepResult(NamedTuple):
    """The outcome of one step of a grid.

    Attributes
    ----------
    y1 : Tensor[rows, features]
        The state at ``t + h``.
    method_state : MethodState or None
        For the next step, of a method with memory; None otherwise, and after ``restart``.
    states : Tensor[thetas, rows, features] or None
        The states at ``thetas``, also of rows that did not take the step; None without ``thetas``.
    coefficients : Tensor[degree + 1, rows, features] or None
        C[j] of ``y(θ) = Σ C[j] θ^j``, θ from 0 to 1; None without ``dense``.
    """

    y1: Tensor
    method_state: MethodState | None
    states: Tensor | None = None
    coefficients: Tensor | None = None


def integrate_grid(f: Slope, y: Tensor, steps: Iterable[GridStep], *, method: Method) -> Tensor:
    """Return the state at the end of a grid.

    Parameters
    ----------
    f : Field or callable
        ``f(t, y) -> dy/dt``.
    y : Tensor[rows, features]
        The state at the first time.
    steps : iterable of GridStep
        The steps in order; none returns y.
    method : Method
        An explicit one-step method, low-storage ones included.

    Returns
    -------
    Tensor[rows, features]
        The state after the last step, with a graph if gradients are enabled.

    Raises
    ------
    ValueError
        If the method is implicit, partitioned, or has memory between steps.

    Examples
    --------
    >>> import torch
    >>> from neuralode.methods import find_method
    >>> y = torch.ones(2, 1, dtype=torch.float64)
    >>> y1 = integrate_grid(lambda t, y: -y, y, equal_steps(0.0, 1.0, 10), method=find_method("rk4"))
    >>> [round(x, 5) for x in y1.flatten().tolist()]  # exp(-1)
    [0.36788, 0.36788]
    """
    check_grid_method(method)
    for step in steps:
        y = take_step(f, y, step, method=method).y1
    return y


def step_through(
    f: Slope,
    y: Tensor,
    steps: Iterable[GridStep],
    *,
    method: Method,
    method_state: MethodState | None = None,
    derivatives: int = 1,
) -> Iterator[StepResult]:
    """Yield the result of every step, each starting from the state that the one before reached.

    Parameters
    ----------
    f : Field or callable
        ``f(t, y) -> dy/dt``.
    y : Tensor[rows, features]
        The state at the start of the first step.
    steps : iterable of GridStep
        The steps in order.
    method : Method
        Any method that takes steps. For methods other than explicit one-step methods see the contract of the module.
    method_state : MethodState, default=None
        The state of a method with memory before the first step; None starts it.
    derivatives : int, default=1
        How many times the result is to be differentiated; implicit methods converge further for more.

    Yields
    ------
    StepResult
        One for each step. Nothing is kept of earlier ones.

    Examples
    --------
    >>> import torch
    >>> from neuralode.methods import find_method
    >>> steps = [step._replace(thetas=(0.5,)) for step in steps_between((0.0, 1.0, 3.0))]
    >>> results = step_through(lambda t, y: 1 + 0 * y, torch.zeros(1, 1), steps, method=find_method("midpoint"))
    >>> [(result.states.item(), result.y1.item()) for result in results]
    [(0.5, 1.0), (2.0, 3.0)]
    """
    for step in steps:
        result = take_step(f, y, step, method=method, method_state=method_state, derivatives=derivatives)
        y, method_state = result.y1, result.method_state
        yield result


def take_step(
    f: Slope,
    y: Tensor,
    step: GridStep,
    *,
    method: Method,
    method_state: MethodState | None = None,
    derivatives: int = 1,
) -> StepResult:
    """Take one step from y; parameters as in `step_through`."""
    f = f if step.edges is None else _within(f, step)
    inside = step.dense or bool(step.thetas)
    start = StepStart(f, step.t, y, h=step.h, method_state=method_state)
    y1, stages, method_state = method.retake(start, dense=inside, derivatives=derivatives)
    if step.accept is not None:
        y1 = torch.where(step.accept[:, None], y1, y)
    result = StepResult(y1, None if step.restart else method_state)
    if not inside:
        return result
    return result._replace(
        states=method.interpolate(start, stages, step.thetas) if step.thetas else None,
        coefficients=method.interpolant(start, stages) if step.dense else None,
    )


def _within(f: Slope, step: GridStep) -> Field | Checkpointed:
    assert step.edges is not None
    if not isinstance(f, Field | Checkpointed):
        raise TypeError(f"A step with edges has a {type(f).__name__} as f; wanted a Field, which can be bounded.")
    return f.within(step.t, step.edges)


def steps_between(times: Sequence[float] | Tensor) -> list[GridStep]:
    """Return the steps from each time to the next.

    Parameters
    ----------
    times : sequence of float, Tensor[N + 1] or Tensor[rows, N + 1]
        Increasing or decreasing. Gradients flow to a tensor; its values are not read.

    Returns
    -------
    list of GridStep
        N steps.

    Examples
    --------
    >>> [(step.t, step.h) for step in steps_between((0.0, 0.5, 2.0))]
    [(0.0, 0.5), (0.5, 1.5)]
    """
    each = times.unbind(-1) if isinstance(times, Tensor) else times
    return [GridStep(start, end - start) for start, end in pairwise(each)]


def equal_steps(t0: Number, t1: Number, count: int) -> list[GridStep]:
    """Return ``count`` steps of equal size from t0 to t1: floats, 0-d tensors or tensors [rows].

    The steps start at ``t0 + n h`` with ``h = (t1 - t0) / count``, so that the last one ends at t1 up to rounding.

    Examples
    --------
    >>> [(step.t, step.h) for step in equal_steps(1.0, 0.0, 2)]
    [(1.0, -0.5), (0.5, -0.5)]
    """
    h = (t1 - t0) / count
    return [GridStep(t0 + n * h, h) for n in range(count)]


def check_grid_method(method: DeclaredProperties, otherwise: str = "") -> None:
    """Refuse a method that `integrate_grid` does not support.

    Parameters
    ----------
    method : Method
        What is checked.
    otherwise : str, default=""
        What else the caller offers, for the message.

    Raises
    ------
    ValueError
        If the method is implicit, partitioned, has memory between steps, or crosses the time span in one call.
    """
    if method.implicit or method.partitioned or not method.memoryless or method.one_call:
        raise ValueError(
            f"method {method.name!r} is not an explicit one-step method; wanted one such as 'midpoint'{otherwise}."
        )
