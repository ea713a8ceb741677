"""A layer whose output is the solution of a differential equation."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn

from neuralode.solver.solve import solve

if TYPE_CHECKING:
    from neuralode.core.solution import Stats


class NeuralODE(nn.Module):
    """A layer that solves ``dy/dt = f(t, y, *args)`` and returns the final state.

    Parameters
    ----------
    f : Module or callable
        The field ``f(t, y, *args) -> dy/dt``, with the structure and shapes of y. The parameters of a Module are found
        under ``f.`` in `state_dict`. Tensors of a plain function are not, but gradients reach them all the same.
    t : tuple of float, default=(0.0, 1.0)
        Start and end time, unless `forward` receives output times.
    method : str, Tableau or method, default="tsit5"
        As in `neuralode.solve`, like the following. All are plain attributes: ``layer.rtol = 1e-2`` trades precision
        for speed at any time.
    controller : {"i", "pi", "pid"} or controller, default=None
        How steps are chosen.
    rtol : float, Tensor or pytree, default=1e-4
        Relative tolerance.
    atol : float, Tensor or pytree, default=1e-6
        Absolute tolerance.
    step_size : float, default=None
        The step size of a method with fixed steps.
    max_steps : int, default=100_000
        Attempts allowed to each row.
    per_sample : bool, default=False
        Give every row its own time and step size.
    args_dims : int, None, or tuple of these, default=None
        The row axis of each of ``args``.
    gradient : {"replay", "adjoint", "direct"} or gradient, default="replay"
        How derivatives are computed.
    engine : str or engine, default="eager"
        What repeats the step.

    Attributes
    ----------
    stats : Stats or None
        The counts of the last solve (``layer.stats.evaluations`` and so on); not part of copies, pickles and
        `state_dict`.

    Raises
    ------
    TypeError
        If f is not callable.

    Examples
    --------
    >>> import torch
    >>> from torch import nn
    >>> class Field(nn.Module):
    ...     def __init__(self):
    ...         super().__init__()
    ...         self.linear = nn.Linear(2, 2)
    ...
    ...     def forward(self, t, y):
    ...         return torch.tanh(self.linear(y))
    >>> layer = NeuralODE(Field(), rtol=1e-3)
    >>> list(layer.state_dict())
    ['f.linear.weight', 'f.linear.bias']
    >>> model = nn.Sequential(nn.Linear(3, 2), layer, nn.Linear(2, 1))
    >>> model(torch.ones(5, 3)).shape
    torch.Size([5, 1])

    With output times, the states at all of them are returned, stacked along a new first axis:

    >>> layer(torch.ones(5, 2), t=torch.linspace(0.0, 1.0, 4)).shape
    torch.Size([4, 5, 2])
    """

    def __init__(
        self,
        f: Callable[..., Any],
        t: tuple[float, float] = (0.0, 1.0),
        *,
        method: Any = "tsit5",
        controller: Any = None,
        rtol: float | Tensor = 1e-4,
        atol: float | Tensor = 1e-6,
        step_size: float | None = None,
        max_steps: int = 100_000,
        per_sample: bool = False,
        args_dims: Any = None,
        gradient: Any = "replay",
        engine: Any = "eager",
    ) -> None:
        super().__init__()
        if not callable(f):
            raise TypeError(f"f must be a Module or a function f(t, y, *args), not {type(f).__name__}.")
        self.f = f
        self.t = t
        self.method = method
        self.controller = controller
        self.rtol = rtol
        self.atol = atol
        self.step_size = step_size
        self.max_steps = max_steps
        self.per_sample = per_sample
        self.args_dims = args_dims
        self.gradient = gradient
        self.engine = engine
        self.stats: Stats | None = None

    def forward(self, y0: Any, *args: Any, t: Tensor | tuple[float, float] | None = None) -> Any:
        """Solve from ``y0``.

        Parameters
        ----------
        y0 : pytree of Tensor
            The state at the first time.
        *args
            Further arguments of ``f``; gradients reach every tensor in them.
        t : tuple of float, Tensor[T], or Tensor[rows, T] with ``per_sample``, default=None
            Output times; None solves from start to end of the ``t`` of the layer.

        Returns
        -------
        pytree of Tensor
            The final state, shaped as ``y0``; with output times, leaves [T, ...].
        """
        solution = solve(
            self.f,
            y0,
            self.t if t is None else t,
            args=args,
            args_dims=self.args_dims,
            method=self.method,
            controller=self.controller,
            rtol=self.rtol,
            atol=self.atol,
            step_size=self.step_size,
            max_steps=self.max_steps,
            per_sample=self.per_sample,
            gradient=self.gradient,
            engine=self.engine,
        )
        self.stats = solution.stats
        return solution.y1 if t is None else solution.ys

    def extra_repr(self) -> str:
        """Return the settings of the solver, for printing."""
        steps = f"rtol={self.rtol}, atol={self.atol}" if self.step_size is None else f"step_size={self.step_size}"
        clock = ", per_sample=True" if self.per_sample else ""
        return f"t={self.t}, method={self.method!r}, {steps}{clock}, gradient={self.gradient!r}, engine={self.engine!r}"

    def __getstate__(self) -> dict[str, Any]:
        # Counts belong to this object, not to its copies: a layer pickles alike before and after it has run.
        return {**self.__dict__, "stats": None}


def ode_blocks(model: nn.Module) -> list[NeuralODE]:
    """Return every `NeuralODE` in a model, the model itself included, to change settings or read counts.

    Examples
    --------
    >>> len(ode_blocks(nn.Sequential(nn.Linear(2, 2), NeuralODE(lambda t, y: -y))))
    1
    """
    return [module for module in model.modules() if isinstance(module, NeuralODE)]
