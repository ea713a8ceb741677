"""`odeint_adjoint`: the gradient by the adjoint equation, and what torchdiffeq lets its users say about that."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from neuralode.torchdiffeq.backwards import OdeintAdjointMethod
from neuralode.torchdiffeq.core import Gradient
from neuralode.torchdiffeq.eager import eager
from neuralode.torchdiffeq.foreign import ascending, flat, unflatten
from neuralode.torchdiffeq.inputs import Task, check, check_options, find_solver
from neuralode.torchdiffeq.solvers import SOLVERS
from neuralode.torchdiffeq.sweeping import Way, largest, sweeping
from neuralode.torchdiffeq.tasks import solve_task


@eager
def odeint_adjoint(
    func: Any,
    y0: Any,
    t: Tensor,
    *,
    rtol: Any = 1e-7,
    atol: Any = 1e-9,
    method: str | None = None,
    options: dict[str, Any] | None = None,
    event_fn: Any = None,
    adjoint_rtol: Any = None,
    adjoint_atol: Any = None,
    adjoint_method: str | None = None,
    adjoint_options: dict[str, Any] | None = None,
    adjoint_params: Iterable[Tensor] | None = None,
) -> Any:
    """`odeint` with the adjoint equation for its gradient: constant memory, correct to tolerance.

    Parameters
    ----------
    func, y0, t, rtol, atol, method, options, event_fn
        As in `odeint`. func is a `torch.nn.Module`, unless ``adjoint_params`` are given.
    adjoint_rtol, adjoint_atol : float, optional
        Tolerances of the backward solve; those of the forward one unless given. Of several the tightest is taken.
    adjoint_method : str, optional
        Method of the backward solve; that of the forward one unless given.
    adjoint_options : dict, optional
        Its options; those of the forward solve but for ``norm`` unless given. ``norm`` may be "seminorm", which leaves
        the parameters out, or a callable that is given scaled errors of (t, y, λ, parameters).
    adjoint_params : iterable of Tensor, optional
        What receives gradients besides y0 and t, and nothing else does; the parameters of func unless given.

    Returns
    -------
    Tensor or tuple of Tensor
        As `odeint`.

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
    if adjoint_params is None and not isinstance(func, nn.Module):
        raise ValueError(
            f"func must be an instance of nn.Module to specify the adjoint parameters, and is a {type(func).__name__}; "
            "or say what receives gradients by `adjoint_params`: `adjoint_params=()` if nothing does but y0 and t."
        )
    if adjoint_method is None:
        adjoint_method = method
    inherited = adjoint_options is None
    if inherited and adjoint_method != method and options is not None:
        raise ValueError(
            "If `adjoint_method != method` then we cannot infer `adjoint_options` from `options`, which are those of "
            f"{method!r}: pass adjoint_options={{...}} for {adjoint_method!r}."
        )
    task = check(func, y0, t, rtol, atol, method, options, event_fn, SOLVERS)
    if inherited:
        adjoint_options = {name: value for name, value in task.options.items() if name != "norm"}
    adjoint_options = check_options(adjoint_options)
    params = _params(find_parameters(func) if adjoint_params is None else adjoint_params, adjoint_options.get("norm"))
    way = _way(task, adjoint_rtol, adjoint_atol, adjoint_method, adjoint_options, inherited)
    if _sweepable(task, way):
        return solve_task(task, Gradient(partial(sweeping, task, way, params), params))
    return _by_odeint(task, way, params)


def find_parameters(module: nn.Module) -> list[Tensor]:
    """The parameters of a module; of a replica that `torch.nn.DataParallel` made, its differentiable tensors.

    Examples
    --------
    >>> import torch
    >>> [tuple(p.shape) for p in find_parameters(torch.nn.Linear(3, 2))]
    [(2, 3), (2,)]
    """
    assert isinstance(module, nn.Module), f"module is a {type(module).__name__}; wanted a torch.nn.Module."
    if not getattr(module, "_is_replica", False):
        return list(module.parameters())
    found = {
        id(x): x
        for part in module.modules()
        for x in part.__dict__.values()
        if isinstance(x, Tensor) and x.requires_grad
    }
    return list(found.values())


def _params(given: Iterable[Tensor], norm: Any) -> tuple[Tensor, ...]:
    """Those that gradients can flow to, each once."""
    given = tuple(given)
    for place, x in enumerate(given):
        if not isinstance(x, Tensor):
            raise TypeError(f"adjoint_params[{place}] is a {type(x).__name__}; wanted tensors.")
    found = tuple({id(x): x for x in given if x.requires_grad}.values())
    if callable(norm) and any(not x.requires_grad for x in given):
        warnings.warn(
            "An adjoint parameter was passed without requiring gradient: it is left out of the adjoint equation, and "
            "so of what the adjoint norm is given.",
            stacklevel=3,
        )
    return found


def _way(task: Task, rtol: Any, atol: Any, method: str | None, options: dict[str, Any], inherited: bool) -> Way:
    name = task.method if method is None else method
    solver = find_solver(name, SOLVERS)
    norm = options.pop("norm", None)
    if norm is not None and norm != "seminorm" and not callable(norm):
        raise TypeError(f"adjoint_options['norm']={norm!r}; wanted 'seminorm' or a callable.")
    if inherited and solver is task.solver:  # what it does not know was warned of
        options = {key: value for key, value in options.items() if key in getattr(solver, "options", options)}
    rtol, atol = _tightest("adjoint_rtol", rtol), _tightest("adjoint_atol", atol)
    tolerances = {"rtol": task.rtol if rtol is None else rtol, "atol": task.atol if atol is None else atol}
    back = replace(task, method=name, solver=solver, options=options, event_fn=None, **tolerances)
    return Way(back, rtol, atol, norm)


def _tightest(name: str, tolerance: Any) -> float | None:
    if tolerance is None:
        return None
    values = torch.cat([torch.as_tensor(x, dtype=torch.float64).reshape(-1) for x in _each(tolerance)])
    sound = (values >= 0) & values.isfinite()
    assert bool(sound.all()), f"{name}={tolerance!r}; wanted finite tolerances that are not negative."
    return float(values.min())


def _each(tolerance: Any) -> list:
    return list(tolerance) if isinstance(tolerance, (tuple, list)) else [tolerance]


def _sweepable(task: Task, way: Way) -> bool:
    """Whether the core's adjoint can go this way.

    It stops where the forward solve stops; and the derivative by the start that it gives is that of the flow, which is
    not that of torchdiffeq where steps are stated.
    """
    if not (task.native and way.task.native) or way.task.options.get("grid_constructor") is not None:
        return False
    if task.t.requires_grad and not way.task.solver.adaptive and task.event_fn is None:
        return False
    return all(_same(task.options.get(name), way.task.options.get(name)) for name in ("step_t", "jump_t", "perturb"))


def _same(a: Any, b: Any) -> bool:
    if a is None or b is None:
        return a is b
    return torch.equal(torch.as_tensor(a), torch.as_tensor(b))


def _by_odeint(task: Task, way: Way, params: tuple[Tensor, ...]) -> Any:
    """The same by way of `odeint` alone."""
    it = flat(task)
    norm = _flat_norm(it.options["norm"], way.norm, it.shapes)
    options = {**ascending(way.task.options, task.direction), "norm": norm}
    tolerances = [
        _tightest(name, own) if mine is None else mine
        for name, own, mine in (("rtol", task.rtol, way.rtol), ("atol", task.atol, way.atol))
    ]
    found = OdeintAdjointMethod.apply(
        it.shapes, it.func, it.y0, it.t, it.rtol, it.atol, task.method, it.options, it.event_fn, *tolerances,
        way.task.method, options, task.t.requires_grad, *params,
    )  # fmt: skip
    if it.event_fn is None:
        return unflatten(found, it.shapes, (len(it.t),))
    event_t, y = found
    return event_t.to(task.t) * task.direction, unflatten(y, it.shapes, (2,))


def _flat_norm(state_norm: Callable[..., Any], choice: Any, shapes: Any) -> Callable[..., Any]:
    """The norm of (t, y, λ, parameters), of which y and λ are flat."""
    if not callable(choice):
        return lambda errors: largest(state_norm, errors, choice is None)
    if shapes is None:
        return choice

    def norm(errors: tuple) -> Any:
        t, y, adjoint, *params = errors
        return choice((t, *unflatten(y, shapes), *unflatten(adjoint, shapes), *params))

    return norm
