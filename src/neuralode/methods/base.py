"""The contract of methods: one step of dy/dt = f(t, y) on packed rows.

A solver calls `Method.step` for every attempt, `Method.interpolate` or `Method.interpolant` for output times within an
accepted step, and `Method.retake` to differentiate one. Any object with the members of `Method` is accepted wherever
the name of a method is. `neuralode.methods.one_step.OneStepMethod` is a base class with defaults.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, Protocol, TypeAlias

from jaxtyping import Float
from torch import Tensor

from neuralode.core.clock import Flag, Number, real_dtype, stage_times
from neuralode.core.jacobians import Linearised

Rows: TypeAlias = Float[Tensor, "rows features"]  # packed states or slopes, real or complex
Evaluate: TypeAlias = Callable[[Tensor, Tensor], Tensor]  # (t, y) -> dy/dt, on packed rows
ErrorNorm: TypeAlias = Callable[[Tensor, Tensor, Tensor], Tensor]  # (error, y, y1) -> ratio; at most 1 is tolerated


class JacobianField(Protocol):
    """A slope function with Jacobians, as implicit methods receive it."""

    @property
    def coupled(self) -> bool:
        """Whether rows of f depend on other rows of y."""
        ...

    def __call__(self, t: Tensor, y: Rows) -> Rows:
        """Return f(t, y)."""
        ...

    def jacobian(self, t: Tensor, y: Rows) -> Float[Tensor, "blocks n n"]:
        """Return ∂f/∂y without a graph: a block for each row, or one for all rows if they are coupled."""
        ...

    def linearised(self, t: Tensor, y: Rows) -> Linearised:
        """Return f around (t, y), for products with its Jacobian."""
        ...


PairSlope: TypeAlias = Callable[[Tensor, Tensor, Tensor], Tensor]  # (t, q, p) -> dq/dt or dp/dt, on packed rows


class PairField(Protocol):
    """A slope function of pairs (q, p), as partitioned methods receive it."""

    @property
    def halves(self) -> tuple[PairSlope, PairSlope]:
        """The slopes of q and of p."""
        ...

    def __call__(self, t: Tensor, y: Rows) -> Rows:
        """Return the slope of both."""
        ...


class StepStart(NamedTuple):
    """Where a step starts, and its size.

    Parameters
    ----------
    f : callable
        ``f(t, y) -> dy/dt`` on packed rows: ``y`` and the result are [rows, features], ``t`` is a tensor in the real
        dtype of ``y``, 0-d on a shared clock and [rows] otherwise. Implicit methods receive a `JacobianField`,
        partitioned methods a `PairField`.
    t : float or Tensor[rows]
        The time at the start, in float64.
    y : Tensor[rows, features]
        The state at the start.
    h : float or Tensor[rows]
        The signed step size, in float64. Rows with ``h = 0`` do not take part in the step.
    method_state : default=None
        The method state that the previous step, a rejected attempt or `Method.begin` returned. None: start without one.
    """

    f: Evaluate
    t: Number
    y: Rows
    h: Number
    method_state: Any = None

    def times(self, nodes: tuple[float, ...]) -> Sequence[Tensor]:
        """Return ``t + c h`` for each node c as f receives it, computed in float64."""
        return stage_times(self.t, self.h, nodes, dtype=real_dtype(self.y.dtype), device=self.y.device)

    def slope(self, node: float, y: Rows) -> Rows:
        """Return ``f(t + node · h, y)``."""
        (time,) = self.times((node,))
        return self.f(time, y)


class Step(NamedTuple):
    """The result of one attempted step.

    Parameters
    ----------
    y1 : Tensor[rows, features]
        The state at ``t + h``, in the dtype of ``y``.
    error : Tensor[rows, features], pair of such, or None
        The estimated error of ``y1``, with its sign and in the units of ``y``: not scaled by tolerances. A pair holds
        an estimate and one of lower order that corrects it, as DOP853 has them. None from fixed-step methods.
    method_state
        For the next step if this one is accepted. See `Method`.
    method_state_if_rejected
        For the next attempt from the same ``t`` and ``y`` if this one is rejected.
    stages
        Whatever `Method.interpolate` and `Method.interpolant` need; the solver does not read it.
    ok : bool or Tensor[rows] of bool
        False rejects the step whatever its error, as where Newton's iteration failed. Then ``error`` must be inf, so
        that the controller shortens the step; on a fixed step ``y1`` must be NaN and ``ok`` True, since a shorter
        attempt is not made.
    evaluations : int or Tensor[rows] of int64
        Evaluations of f, by clock. A Jacobian counts as one.
    calls : int
        Calls of f, each for all rows at once.
    """

    y1: Rows
    error: Rows | tuple[Rows, Rows] | None
    method_state: Any
    method_state_if_rejected: Any
    stages: Any
    ok: Flag
    evaluations: Number
    calls: int


class Retaken(NamedTuple):
    """An accepted step, computed again.

    Parameters
    ----------
    y1 : Tensor[rows, features]
        The state at ``t + h``, with a graph if gradients are enabled.
    stages
        As those of `Step`.
    method_state : MethodState or None
        For the next step, of a method with memory; None of a memoryless one.
    """

    y1: Rows
    stages: Any
    method_state: MethodState | None


class MethodState(NamedTuple):
    """The method state of a method with memory, such as a multistep method.

    Parameters
    ----------
    states : tuple of Tensor[rows, features], default=()
        The part that gradients flow through, such as past slopes.
    rest : default=()
        Constants: a pytree of numbers and of tensors that lead with rows.
    """

    states: tuple[Rows, ...] = ()
    rest: Any = ()


class QuadratureNode(NamedTuple):
    """A node at which a step integrates: ∫ g(t, y) dt over the step is about the sum of h · weight · g(t, y).

    Parameters
    ----------
    weight : float
        The share of the node; all weights of a step add up to 1.
    t : Tensor
        The time, as f receives it: 0-d on a shared clock, [rows] otherwise.
    y : Tensor[rows, features]
        The state there.
    """

    weight: float
    t: Tensor
    y: Rows


class DeclaredProperties(Protocol):
    """The properties that every method declares. The solver reads these and never the class of a method."""

    @property
    def name(self) -> str:
        """The name, as messages and statistics show it."""
        ...

    @property
    def family(self) -> str:
        """The kind of method, such as "explicit Runge–Kutta"."""
        ...

    @property
    def order(self) -> int:
        """The order p of the solution: the error of one step is O(h^(p + 1))."""
        ...

    @property
    def error_order(self) -> int:
        """The order q of the error estimate, which is O(h^(q + 1)); 0 without one.

        The step size controller and the first step size rely on it.
        """
        ...

    @property
    def interpolant_order(self) -> int:
        """The order of the dense output: within a step its error is O(h^(order + 1))."""
        ...

    @property
    def stages(self) -> int:
        """The number of stages of a step."""
        ...

    @property
    def adaptive(self) -> bool:
        """Whether `Step.error` is an estimate. False: steps are fixed, and a step size or a grid is required."""
        ...

    @property
    def implicit(self) -> bool:
        """Whether steps solve systems of equations; ``StepStart.f`` is then a `JacobianField`."""
        ...

    @property
    def partitioned(self) -> bool:
        """Whether states must be pairs (q, p); ``StepStart.f`` is then a `PairField`.

        Such a method is a `PartitionedMethod`.
        """
        ...

    @property
    def one_call(self) -> bool:
        """Whether the method crosses a span of time in one call: it is then a `OneCallMethod` and takes no steps."""
        ...

    @property
    def memoryless(self) -> bool:
        """Whether a step depends on (t, y, h) alone.

        True: the method state may save work but changes results at most within `inexact`; the solver may drop it at any
        time. False: the method state is a `MethodState`, and is recorded with the steps. ``jump_t`` with
        ``per_sample=True``, and a grid of explicit steps, need True.
        """
        ...

    @property
    def inexact(self) -> float:
        """How closely an adaptive step solves its own equations, in units of the step's tolerance; 0.0 for formulas.

        Replayed steps may differ from the recorded ones by as much.
        """
        ...

    @property
    def evaluations_per_step(self) -> int:
        """Evaluations of f in a usual step, the first one of a solve excepted."""
        ...

    @property
    def dense_evaluations(self) -> int:
        """Further evaluations of f in one call of `Method.interpolate` or `Method.interpolant`."""
        ...

    def begin(self, f0: Rows) -> Any:
        """Return the method state before the first step, given ``f0 = f(t0, y0)``, [rows, features].

        Called before a solve, and after a jump of f with the slope to its right. If the method state is a tensor it
        must be a function of ``f0`` alone: where f is discontinuous the solver replaces it, row by row, by that of the
        right limit of the slope.
        """
        ...


class Method(DeclaredProperties, Protocol):
    """One step of an ODE solver on packed rows.

    A method is immutable data and pure functions: one instance serves many solves, in several threads.

    *Shapes and dtypes.* States are [rows, features], real or complex, of any float precision; rows are the samples of a
    batch, or one row where the state has no batch. Times and step sizes are clock numbers in float64 (see
    `neuralode.core.clock`): Python floats on a shared clock, tensors [rows] where every row has its own. The same code
    serves both if it uses operators and functions such as `core.clock.scaled`, ``column_times`` and ``stage_times``,
    which rounds times to the dtype of f. Either kind may be a 0-d tensor where the solve is differentiated by its time
    span.

    *Purity.* Never write into an argument, into a result of f, or into a tensor that f has received. Results of f may
    be returned unchanged and may be views.

    *Rows are independent.* Row i of every result depends on row i of the arguments alone, bit by bit; the exception is
    an implicit method where f couples rows (``f.coupled``). A row with ``h = 0`` returns ``y1 = y`` and ``error = 0``,
    provided that f is finite. A row that overflows returns inf or NaN and must not affect others; nothing is raised.

    *Method state.* A pytree of tensors that lead with rows, or None. The solver gathers its rows when rows finish, and
    merges the states of accepted and rejected rows, which therefore have the same structure (or are None). It may pass
    None at any step: then the step starts without one.

    *Derivatives.* `step` and `quadrature` are called without gradient mode. `retake`, `interpolate` and `interpolant`
    are called with and without it, and must be differentiable in ``y``, in ``t`` and ``h`` where these are tensors, and
    in all tensors that f uses.
    """

    def evaluations_again(self, dense: bool, method_state: Any = None) -> int:
        """Return the evaluations of f in `retake` from this method state; if ``dense``, with those of dense output."""
        ...

    def step(self, start: StepStart, error_norm: ErrorNorm | None = None) -> Step:
        """Attempt one step.

        Parameters
        ----------
        start : StepStart
            Where the step starts, and its size.
        error_norm : callable, default=None
            ``error_norm(error, y, y1) -> ratio`` measures an error against the tolerances, by clock; 1 is just
            tolerated. For methods that iterate. None where steps are fixed: then iterate to rounding.

        Returns
        -------
        Step
            The new state, its error estimate and method states.
        """
        ...

    def retake(self, start: StepStart, *, dense: bool, derivatives: int = 1) -> Retaken:
        """Compute an accepted step again, without its error estimate, to differentiate it.

        Parameters
        ----------
        start : StepStart
            As for `step`. The method state is None for memoryless methods and the recorded one for others.
        dense : bool
            Whether `interpolate` or `interpolant` will be called with the stages.
        derivatives : int, default=1
            How often the result will be differentiated. A formula ignores it; implicit methods iterate accordingly.

        Returns
        -------
        Retaken
            ``y1`` equals that of `step` up to rounding, or up to `inexact`.
        """
        ...

    def interpolate(self, start: StepStart, stages: Any, thetas: Sequence[float]) -> Tensor:
        """Return the states at ``t + θ h``, 0 ≤ θ ≤ 1, for each θ: [θ, rows, features].

        ``stages`` are those of `step` or of ``retake(..., dense=True)`` from the same ``start``. θ = 1 gives ``y1`` up
        to rounding.
        """
        ...

    def interpolant(self, start: StepStart, stages: Any) -> Tensor:
        """Return coefficients C with ``y(t + θ h) = Σ C[j] θ^j``: [degree + 1, rows, features].

        Arguments as for `interpolate`. ``C[0]`` is ``y``. The degree is the same for all steps.
        """
        ...

    def quadrature(self, start: StepStart) -> Sequence[QuadratureNode]:
        """Return the nodes at which an accepted step integrates, of the order of the method.

        `Adjoint` integrates the gradients of parameters along a backward solve by them. Arguments as for `retake`.
        """
        ...


class PartitionedMethod(Method, Protocol):
    """A method for pairs (q, p), whose steps move q and p in turn."""

    @property
    def general(self) -> str:
        """The name of a method for states that are no pairs, such as that of the adjoint equation."""
        ...


class Span(NamedTuple):
    """A span of time that a method crosses in one call.

    Parameters
    ----------
    f : callable
        As that of `StepStart`, on a shared clock.
    t : float
        Where the span starts.
    y : Tensor[rows, features]
        The state there.
    ends : sequence of float
        The times at which states are returned, in the direction of integration; the last one ends the span.
    norm : Norm
        The tolerances ``rtol`` and ``atol``: floats, or tensors that broadcast with ``y``.
    controller : Controller
        The bounds ``first_step``, ``min_step`` and ``max_step``: floats or None.
    """

    f: Evaluate
    t: float
    y: Rows
    ends: Sequence[float]
    norm: Any
    controller: Any


class Crossed(NamedTuple):
    """The result of crossing a span.

    Parameters
    ----------
    states : Tensor[ends, rows, features]
        The states at ``Span.ends``; NaN from where the method failed.
    succeeded : bool
        Whether the end was reached.
    calls : int
        Evaluations of f.
    """

    states: Tensor
    succeeded: bool
    calls: int


class OneCallMethod(DeclaredProperties, Protocol):
    """A method that crosses a span of time in one call, such as one of another library.

    It works on a shared clock and has no dense output, events or stop times; gradients are those of `Adjoint`.
    """

    def cross(self, span: Span) -> Crossed:
        """Return the states at ``span.ends``. Called without gradient mode."""
        ...
