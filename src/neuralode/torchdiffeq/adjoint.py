"""`odeint_adjoint`: solve, with the gradient by the adjoint equation."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor, nn

from neuralode.core.layout import Layout, lay_out
from neuralode.methods import Method, Tableau
from neuralode.torchdiffeq.adjoint_equation import BackwardSolve, largest_norm, solve_adjoint_by_odeint
from neuralode.torchdiffeq.arguments import (
    Arguments,
    EventFunction,
    Function,
    State,
    Tolerance,
    check_arguments,
    check_options,
    check_parameters,
    find_solver,
    tightest_tolerance,
)
from neuralode.torchdiffeq.external_solvers import flatten
from neuralode.torchdiffeq.fixed_grid import without_interpolation
from neuralode.torchdiffeq.odeint import exclude_from_compile
from neuralode.torchdiffeq.options import SINGLE_STEP, SolverOptions, read_options
from neuralode.torchdiffeq.solve import AdjointGradient, GradientOptions, solve
from neuralode.torchdiffeq.solvers import SOLVERS, as_solver
from neuralode.torchdiffeq.user_function import Observer, make_observer

SMALLEST_TOLERANCE = 1e-300  # stands for 0: the solver's adjoint requires positive tolerances


@exclude_from_compile
def odeint_adjoint(
    func: Function,
    y0: State,
    t: Tensor,
    *,
    rtol: Tolerance | None = 1e-7,
    atol: Tolerance | None = 1e-9,
    method: str | Method | Tableau | None = None,
    options: dict[str, Any] | None = None,
    event_fn: EventFunction | None = None,
    adjoint_rtol: Tolerance | None = None,
    adjoint_atol: Tolerance | None = None,
    adjoint_method: str | Method | Tableau | None = None,
    adjoint_options: dict[str, Any] | None = None,
    adjoint_params: Iterable[Tensor] | None = None,
) -> Any:
    """Solve as `odeint`, with the gradient by the adjoint equation: constant memory, correct to the tolerances.

    Parameters
    ----------
    func : callable
        ``func(t, y)``, as in `odeint`; a `torch.nn.Module`, unless ``adjoint_params`` are given.
    y0 : Tensor or tuple of Tensor
        The state at ``t[0]``.
    t : Tensor[T]
        Output times, strictly increasing or decreasing.
    rtol : float, Tensor or sequence, default=1e-7
        Relative tolerance, as in `odeint`.
    atol : float, Tensor or sequence, default=1e-9
        Absolute tolerance, as in `odeint`.
    method : str, Method or Tableau, default=None
        A name in `SOLVERS`, or a method object of `neuralode`; None stands for "dopri5".
    options : dict, default=None
        Options of the method.
    event_fn : callable, default=None
        ``event_fn(t, y)``, as in `odeint`.
    adjoint_rtol : float, Tensor or sequence, default=None
        Relative tolerance of the backward solve, the smallest if there are several; None stands for ``rtol``.
    adjoint_atol : float, Tensor or sequence, default=None
        Absolute tolerance of the backward solve, likewise; None stands for ``atol``.
    adjoint_method : str, Method or Tableau, default=None
        Method of the backward solve; None stands for ``method``.
    adjoint_options : dict, default=None
        Options of the backward solve; None stands for ``options`` without ``norm``. ``norm`` may be "seminorm", which
        leaves the parameters out, or a callable of the scaled errors of (t, y, λ, parameters).
    adjoint_params : iterable of Tensor, default=None
        The tensors that receive gradients besides y0 and t, exclusively; None stands for the parameters of func.

    Returns
    -------
    Tensor or tuple of Tensor
        As `odeint`.

    Raises
    ------
    AssertionError, ValueError, TypeError
        For invalid arguments and for solves that fail, with the types that torchdiffeq raises.

    Examples
    --------
    >>> import torch
    >>> from neuralode.torchdiffeq import odeint_adjoint
    >>> func = torch.nn.Linear(2, 2, bias=False).double()
    >>> class Field(torch.nn.Module):
    ...     def __init__(self):
    ...         super().__init__()
    ...         self.linear = func
    ...     def forward(self, t, y):
    ...         return torch.tanh(self.linear(y))
    >>> ys = odeint_adjoint(Field(), torch.ones(5, 2, dtype=torch.float64), torch.tensor([0.0, 1.0]))
    >>> ys[-1].sum().backward()
    >>> func.weight.grad.shape
    torch.Size([2, 2])
    """
    if adjoint_params is None:
        if not isinstance(func, nn.Module):
            raise ValueError(
                "func must be an instance of nn.Module to specify the adjoint parameters, and is a "
                f"{type(func).__name__}; or pass the tensors that receive gradients as `adjoint_params`: "
                "`adjoint_params=()` if only y0 and t do."
            )
        adjoint_params = find_parameters(func)
    if adjoint_method is None:
        adjoint_method = method
    inherited = adjoint_options is None
    if inherited and adjoint_method != method and options is not None:
        raise ValueError(
            "If `adjoint_method != method` then we cannot infer `adjoint_options` from `options`, which are those of "
            f"{method!r}: pass adjoint_options={{...}} for {adjoint_method!r}."
        )
    arguments = check_arguments(
        func,
        y0,
        t,
        rtol=rtol,
        atol=atol,
        method=as_solver(method),
        options=options,
        event_fn=event_fn,
        solvers=SOLVERS,
    )
    if inherited:
        adjoint_options = {name: value for name, value in arguments.options.items() if name != "norm"}
    adjoint_options = check_options(adjoint_options)
    parameters = check_parameters(adjoint_params, adjoint_options.get("norm"))
    backward = _read_backward_solve(
        arguments,
        None if adjoint_method is method else as_solver(adjoint_method),
        adjoint_options,
        rtol=tightest_tolerance("adjoint_rtol", adjoint_rtol),
        atol=tightest_tolerance("adjoint_atol", adjoint_atol),
        inherited=inherited,
    )
    if not _solver_adjoint_applies(arguments, backward):
        return solve_adjoint_by_odeint(arguments, backward, parameters)
    build = partial(_build_gradient, arguments, backward, parameters=parameters)
    return solve(arguments, GradientOptions(build, parameters))


def find_parameters(module: nn.Module) -> list[Tensor]:
    """Return the parameters of a module; of a `torch.nn.DataParallel` replica its differentiable tensors.

    Examples
    --------
    >>> import torch
    >>> [tuple(p.shape) for p in find_parameters(torch.nn.Linear(3, 2))]
    [(2, 3), (2,)]
    """
    assert isinstance(module, nn.Module), f"module is a {type(module).__name__}; wanted a torch.nn.Module."
    if not getattr(module, "_is_replica", False):
        return list(module.parameters())
    tensors = {
        id(x): x
        for part in module.modules()
        for x in part.__dict__.values()
        if isinstance(x, Tensor) and x.requires_grad
    }
    return list(tensors.values())


def _read_backward_solve(
    arguments: Arguments,
    method: Any,
    options: dict[str, Any],
    *,
    rtol: float | None,
    atol: float | None,
    inherited: bool,
) -> BackwardSolve:
    """Read the settings of the backward solve; ``inherited`` options are those of the forward solve.

    ``method`` is a name or a `Solver`; None stands for that of the forward solve.
    """
    method = arguments.method if method is None else method
    solver = find_solver(method, SOLVERS)
    norm = options.pop("norm", None)
    if norm is not None and norm != "seminorm" and not callable(norm):
        raise TypeError(f"adjoint_options['norm']={norm!r}; wanted 'seminorm' or a callable.")
    if inherited and not getattr(options.get("controller"), "adaptive", True):
        raise ValueError(
            "options['controller'] takes given steps, which are those of the forward solve; pass adjoint_options={...} "
            "for the backward solve, for example {'step_size': 0.1}."
        )
    if inherited and solver is arguments.solver:  # the forward solve warns about unknown options
        options = {name: value for name, value in options.items() if name in getattr(solver, "options", options)}
    tolerances = {
        "rtol": arguments.rtol if rtol is None else rtol,
        "atol": arguments.atol if atol is None else atol,
    }
    changed = replace(arguments, method=method, solver=solver, options=options, event_fn=None, **tolerances)
    return BackwardSolve(changed, rtol=rtol, atol=atol, norm=norm)


def _solver_adjoint_applies(arguments: Arguments, backward: BackwardSolve) -> bool:
    """Return whether the solver's own adjoint supports this backward solve.

    It stops at the stop times of the forward solve. Its derivative with respect to the start time is that of the exact
    flow, which differs from torchdiffeq's for fixed steps.
    """
    options, backward_options = arguments.options, backward.arguments.options
    if not (arguments.native and backward.arguments.native) or backward_options.get("grid_constructor") is not None:
        return False
    if arguments.t.requires_grad and not backward.arguments.solver.adaptive and arguments.event_fn is None:
        return False
    return all(_same_option(options.get(name), backward_options.get(name)) for name in ("step_t", "jump_t", "perturb"))


def _same_option(a: Any, b: Any) -> bool:
    if a is None or b is None:
        return a is b
    return torch.equal(torch.as_tensor(a), torch.as_tensor(b))


def _build_gradient(
    arguments: Arguments, backward: BackwardSolve, layout: Layout, *, parameters: tuple[Tensor, ...]
) -> AdjointGradient:
    """Return the solver's adjoint with torchdiffeq's norm and callbacks."""
    options = read_options(backward.arguments, "_adjoint")
    return AdjointGradient(
        rtol=None if backward.rtol is None else max(backward.rtol, SMALLEST_TOLERANCE),
        atol=None if backward.atol is None else max(backward.atol, SMALLEST_TOLERANCE),
        method=without_interpolation(options.method),
        norm=_adjoint_norm(arguments, backward.norm),
        controller=SINGLE_STEP if options.grid_at_outputs else options.controller,
        observer=_adjoint_observer(arguments, backward, options, layout=layout, parameters=parameters),
    )


def _adjoint_norm(
    arguments: Arguments, norm: str | Callable[..., Any] | None
) -> Literal["full", "seminorm"] | Callable[..., Tensor]:
    """Return the norm of the backward solve as the solver's adjoint takes it: of (y, λ, parameters)."""
    state_norm = arguments.options.get("norm")
    if not callable(norm) and state_norm is None and isinstance(arguments.y0, Tensor):
        return "full" if norm is None else "seminorm"

    def norm_with_time(errors: tuple[Any, Any, tuple[Tensor, ...]]) -> Tensor:
        y, adjoint, parameters = errors
        t = flatten(y).new_zeros(())
        if not callable(norm):
            return largest_norm(state_norm, (t, y, adjoint, *parameters), with_parameters=norm is None)
        parts = (y, adjoint) if isinstance(y, Tensor) else (*y, *adjoint)
        return torch.as_tensor(norm((t, *parts, *parameters))).abs()

    return norm_with_time


def _adjoint_observer(
    arguments: Arguments,
    backward: BackwardSolve,
    options: SolverOptions,
    *,
    layout: Layout,
    parameters: tuple[Tensor, ...],
) -> Observer | None:
    """Return the observer of the backward solve; callbacks receive (∂L/∂t, y, λ, ∂L/∂θ)."""
    reversed_arguments = replace(backward.arguments, t=arguments.t.detach().flip(0))
    packed = torch.zeros(layout.rows, layout.features, dtype=layout.dtype, device=layout.device)
    with_parameters = lay_out((packed, packed, *parameters), False)
    without_parameters = lay_out((packed, packed), False)

    def unpack(rows: Tensor) -> tuple[Tensor, ...]:
        # an implicit method adds up the cotangents of the parameters outside of its state
        has_parameters = rows.numel() == with_parameters.rows * with_parameters.features
        y, adjoint, *cotangents = (with_parameters if has_parameters else without_parameters).unpack(rows)
        return rows.new_zeros(()), *(flatten(layout.unpack(x)) for x in (y, adjoint)), *cotangents

    return make_observer(reversed_arguments, options.callbacks, limit=options.limit, unpack=unpack)
