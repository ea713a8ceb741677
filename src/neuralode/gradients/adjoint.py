r"""Adjoint: solve the adjoint equation backwards in time, with memory independent of the number of steps.

With :math:`\lambda = \partial L/\partial y(t)`: :math:`\dot\lambda = -\lambda^\top \partial f/\partial y` and
:math:`\partial L/\partial\theta = -\int_{t_1}^{t_0} \lambda^\top \partial f/\partial\theta\,dt`, with y solved
backwards along with them (Chen, Rubanova, Bettencourt & Duvenaud, *Neural Ordinary Differential Equations*, 2018,
algorithm 1). The seminorm, which leaves out the parameters, is due to Kidger, Chen & Lyons, *"Hey, that's not an ODE"*,
2021.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, cast

import torch
from torch import Tensor

from neuralode.autodiff.context import ForwardContext
from neuralode.controllers import CONTROLLERS, PID, Controller, Fixed, find_controller
from neuralode.core.record import Plan
from neuralode.core.registry import check_members
from neuralode.core.status import GradientError
from neuralode.engines import find_engine
from neuralode.engines.base import Observer, SolveConfig, Trajectory, backward_config
from neuralode.gradients.adjoint_sweep import AdjointNorm, AdjointSweep, BackwardSolve
from neuralode.gradients.base import check_unchanged
from neuralode.methods import find_method
from neuralode.methods.base import Method, PartitionedMethod


@dataclass(frozen=True)
class Adjoint:
    """The adjoint gradient of Chen et al. (2018): correct to tolerance, with constant memory.

    Parameters
    ----------
    rtol, atol : float, default=None
        Tolerances of the backward solve; those of the forward solve if None.
    method : str or Method, default=None
        Method of the backward solve; that of the forward solve if None ("rk4" after a `Partitioned` one).
    step_size : float, default=None
        Step size of a fixed backward method; that of the forward solve if None.
    norm : {"seminorm", "full"} or callable, default="seminorm"
        Whether the cotangents of parameters count in the error. They do not enter the equation, so the seminorm saves
        steps; per-row clocks support no other. A callable takes the scaled errors of (y, λ, parameters), the first two
        with the structure of y0, and returns a number.
    controller : Controller or str, default=None
        Controller of the backward solve, which goes from output to output; that of the forward solve if None.
    observer : Observer, default=None
        Receives every attempt of the backward solve, as the ``observer`` of `solve`.

    Raises
    ------
    ValueError
        For an unknown norm, numbers that are not positive, or both of ``step_size`` and ``controller``.

    Examples
    --------
    >>> import torch, neuralode as node
    >>> rate = torch.tensor(0.5, dtype=torch.float64, requires_grad=True)
    >>> y0 = torch.ones(1, dtype=torch.float64)
    >>> sol = node.solve(lambda t, y: -rate * y, y0, (0.0, 2.0), gradient=node.Adjoint(rtol=1e-8, atol=1e-10))
    >>> sol.y1.sum().backward()
    >>> round(rate.grad.item(), 3)
    -0.736
    """

    rtol: float | None = None
    atol: float | None = None
    method: str | Method | None = None
    step_size: float | None = None
    norm: AdjointNorm = "seminorm"
    controller: str | Controller | None = None
    observer: Observer | None = None

    name = "adjoint"
    derivatives = 1

    def __post_init__(self) -> None:
        if self.norm not in ("seminorm", "full") and not callable(self.norm):
            raise ValueError(f"Adjoint(norm={self.norm!r}); wanted 'seminorm', 'full' or a callable.")
        if self.controller is not None and self.step_size is not None:
            raise ValueError("Adjoint(step_size=..., controller=...) were both given; wanted one of them.")
        for name in ("rtol", "atol", "step_size"):
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise ValueError(f"Adjoint({name}={value!r}); wanted a positive number.")
        if self.observer is not None:
            check_members("Adjoint: observer", self.observer, Observer, named=False)

    def check(self, config: SolveConfig, per_sample: bool) -> None:
        """Raise ValueError if the backward solve is not possible."""
        if per_sample and self.norm != "seminorm":
            raise ValueError(
                f"Adjoint(norm={self.norm!r}) with per_sample=True: parameters belong to no row, so only a shared "
                "clock can count them in the error. Wanted norm='seminorm'."
            )
        self.backwards(config)

    def plan(self, plan: Plan) -> Plan:
        """Keep only the outputs, as states."""
        if plan.dense or plan.save_steps:
            what = "dense=True" if plan.dense else "save='steps'"
            raise ValueError(f"gradient='adjoint' cannot differentiate {what}; wanted gradient='replay' or 'direct'.")
        return replace(plan, save=None)

    def attach(self, trajectory: Trajectory, context: ForwardContext) -> list[Tensor]:
        """Return the outputs with the adjoint solve as their derivative."""
        sweep = AdjointSweep(trajectory, self.backwards(trajectory.config))
        return list(AdjointFunction.apply(sweep, context, *trajectory.problem.inputs))

    def backwards(self, config: SolveConfig) -> BackwardSolve:
        """Return the settings of the backward solve after a forward solve."""
        method = self._method(config.method)
        rtol, atol = config.norm.rtol, config.norm.atol
        return BackwardSolve(
            config=backward_config(
                config,
                method=method,
                engine=find_engine(config.engine, method),
                controller=self._controller(config, method),
                stops=config.stops.reversed(),
                observer=self.observer,
            ),
            rtol=rtol if self.rtol is None else self.rtol,
            atol=atol if self.atol is None else self.atol,
            norm=self.norm,
        )

    def _method(self, forward: Method) -> Method:
        """Return the method of the backward solve: (y, λ) is no pair (q, p), even if y is one."""
        method = forward if self.method is None else find_method(self.method)
        if not method.partitioned:
            return method
        general = cast(PartitionedMethod, method).general
        if self.method is not None:
            raise ValueError(
                f"Adjoint(method={method.name!r}): the adjoint equation is no pair (q, p), which that method "
                f"requires. Wanted a general method, such as {general!r}."
            )
        return find_method(general)

    def _controller(self, config: SolveConfig, method: Method) -> Controller:
        """Return the controller of the backward solve by a method."""
        if self.controller is not None:
            return find_controller(self.controller, method, None)
        if method.adaptive and self.step_size is not None:
            raise ValueError(
                f"Adjoint(step_size={self.step_size!r}) with the adaptive method {method.name!r}; wanted rtol, atol."
            )
        if method.adaptive:
            controller = config.controller
            if isinstance(controller, PID):
                return replace(controller, first_step=None, norm="rms")
            return controller if controller.adaptive else CONTROLLERS["i"]
        size = self.step_size or getattr(config.controller, "step_size", None)
        if size is None:
            raise ValueError(
                f"gradient='adjoint' would solve backwards by the fixed method {method.name!r} after a forward "
                f"solve by {config.method.name!r} without a step size; wanted Adjoint(step_size=...) or "
                "Adjoint(method='tsit5')."
            )
        return Fixed(size)


class AdjointFunction(torch.autograd.Function):
    """The outputs of a solve, differentiated by an `AdjointSweep`."""

    @staticmethod
    def forward(ctx: Any, sweep: AdjointSweep, context: ForwardContext, *inputs: Tensor) -> tuple[Tensor, ...]:
        """Return copies of the outputs: users may write into them, and backward reads the originals."""
        ctx.sweep, ctx.context = sweep, context
        ctx.save_for_backward(*inputs)
        return (sweep.outputs.clone(),)

    @staticmethod
    def backward(ctx: Any, *cotangents: Tensor) -> tuple[Tensor | None, ...]:
        """Solve the adjoint equation."""
        check_unchanged(ctx)
        if torch.is_grad_enabled():
            raise GradientError(
                "gradient='adjoint' has no second derivatives; wanted gradient='replay' or gradient='direct'."
            )
        with ctx.context.restored():
            return None, None, *ctx.sweep.run(cotangents[0])
