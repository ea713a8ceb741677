"""A layer whose output is the end of a trajectory."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn

from neuralode.solver.solve import solve

if TYPE_CHECKING:
    from neuralode.core.solution import Stats


class NeuralODE(nn.Module):
    """Solve ``dy/dt = f(t, y, *args)`` and hand on the state reached: a layer like any other.

    Parameters
    ----------
    f : Module or callable
        The field ``f(t, y, *args) -> dy/dt``, shaped as ``y``. What a Module learns is found under ``f.`` in
        `state_dict`; a plain function keeps its tensors to itself, though gradients reach them all the same.
    t : tuple of float, default (0.0, 1.0)
        Start and end of the time axis, where `forward` is given no other.
    method, controller, rtol, atol, step_size, max_steps, per_sample, args_dims, gradient, engine
        As in `neuralode.solve`. They are plain attributes: ``layer.rtol = 1e-2`` trades precision for
        speed at any time.

    Attributes
    ----------
    stats : Stats or None
        What the last solve took (``layer.stats.evaluations`` and so on). Left out of copies, pickles and `state_dict`.

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

    With output times, the state at each of them is returned, stacked along a new first axis:

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
        """Follow the field from ``y0``.

        Parameters
        ----------
        y0 : pytree of Tensor
            The state at the first time.
        *args
            Handed to ``f`` after the state; gradients reach every tensor in them.
        t : Tensor of shape [T], or [B, T] with ``per_sample``, optional
            Output times. Left out: from start to end of the layer's own ``t``.

        Returns
        -------
        pytree of Tensor
            Shaped as ``y0``: the state at the end of the layer's own ``t``. With output times, leaves ``[T, ...]``.
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
        """Say how the layer solves: printed among its parts."""
        steps = f"rtol={self.rtol}, atol={self.atol}" if self.step_size is None else f"step_size={self.step_size}"
        clock = ", per_sample=True" if self.per_sample else ""
        return f"t={self.t}, method={self.method!r}, {steps}{clock}, gradient={self.gradient!r}, engine={self.engine!r}"

    def __getstate__(self) -> dict[str, Any]:
        # The last solve belongs to this object, not to its copies: a layer that has run pickles like one that has not.
        return {**self.__dict__, "stats": None}


def ode_blocks(model: nn.Module) -> list[NeuralODE]:
    """Return every `NeuralODE` inside ``model``, itself included: to set a tolerance, or to read what was done.

    Examples
    --------
    >>> len(ode_blocks(nn.Sequential(nn.Linear(2, 2), NeuralODE(lambda t, y: -y))))
    1
    """
    return [module for module in model.modules() if isinstance(module, NeuralODE)]
