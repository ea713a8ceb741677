r"""Adjoint: solve the adjoint equation backwards in time, at a memory that does not grow with the steps.

With :math:`\lambda = \partial L/\partial y(t)`: :math:`\dot\lambda = -\lambda^\top \partial f/\partial y` and
:math:`\partial L/\partial\theta = -\int_{t_1}^{t_0} \lambda^\top \partial f/\partial\theta\,dt`, with y solved
backwards beside them (Chen, Rubanova, Bettencourt & Duvenaud, *Neural Ordinary Differential Equations*, 2018, algorithm
1). The norm that leaves the parameters out is Kidger, Chen & Lyons, *"Hey, that's not an ODE"*, 2021.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from torch import Tensor

from neuralode.autodiff.substitution import Substitution
from neuralode.controllers import CONTROLLERS, PID, Fixed, find_controller
from neuralode.core.clock import column_times
from neuralode.core.field import Field
from neuralode.core.layout import lay_out
from neuralode.core.norms import Norm
from neuralode.core.problem import Problem
from neuralode.core.record import Plan, Record, StepBatch
from neuralode.core.status import BackwardSolveError, GradientError, Status
from neuralode.engines.loop import solve_loop
from neuralode.gradients.base import Solved
from neuralode.gradients.replay import check_unchanged
from neuralode.methods import Method, find_method
from neuralode.methods.base import StepStart


@dataclass(frozen=True)
class Adjoint:
    """The paper's gradient: correct to tolerance, at constant memory.

    Parameters
    ----------
    rtol, atol : float, optional
        Tolerances of the backward solve; those of the forward solve unless given.
    method : str or Method, optional
        Method of the backward solve; that of the forward solve unless given ("rk4" after a `Partitioned` one).
    step_size : float, optional
        Step of a fixed backward method; that of the forward solve unless given.
    norm : {"seminorm", "full"} or callable
        Whether the parameters' cotangents count in the error. They do not feed back into the equation, so the seminorm
        saves steps; per-sample steps allow no other. A callable takes the scaled errors of (y, λ, parameters), the
        first two as y0 is, and returns a number.
    controller : optional
        Controller of the backward solve, which goes from output to output; that of the forward solve unless given.
    observer : optional
        Told of every attempt of the backward solve, as that of `solve`.

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
    norm: Literal["seminorm", "full"] | Callable[..., Any] = "seminorm"
    controller: Any = None
    observer: Any = None

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

    def plan(self, plan: Plan) -> Plan:
        """Keep the outputs, as states, and nothing else."""
        if plan.dense or plan.steps:
            what = "dense=True" if plan.dense else "save='steps'"
            raise ValueError(f"gradient='adjoint' cannot differentiate {what}; wanted gradient='replay' or 'direct'.")
        return replace(plan, save=None)

    def check(self, method: Any, controller: Any, per_sample: bool) -> None:
        """Refuse a backward solve that cannot be made."""
        if per_sample and self.norm != "seminorm":
            raise ValueError(
                f"Adjoint(norm={self.norm!r}) with per_sample=True: parameters belong to no row, so only a shared "
                "clock can count them in the error. Wanted norm='seminorm'."
            )
        self.backwards(method, controller, (1.0, 1.0))

    def attach(self, solved: Solved) -> list[Tensor]:
        """The outputs, differentiable."""
        how = self.backwards(solved.method, solved.controller, solved.tolerances)
        return list(_Adjoint.apply(solved, how, *solved.inputs))

    def backward_method(self, forward: Any) -> Any:
        """What solves backwards: the equation for (y, λ) is no pair (q, p), though y is one."""
        method: Any = forward if self.method is None else find_method(self.method)
        if not method.partitioned:
            return method
        if self.method is not None:
            raise ValueError(
                f"Adjoint(method={method.name!r}): the adjoint equation is no pair (q, p) as that method wants one. "
                f"Wanted a method for any equation, such as {method.general!r}."
            )
        return find_method(method.general)

    def backwards(self, method: Any, controller: Any, tolerances: tuple[Any, Any]) -> Backwards:
        """The method, controller and tolerances of the backward solve, after those of the forward one."""
        forward, method = method, self.backward_method(method)
        if self.controller is not None:
            controller = find_controller(self.controller, method, None)
        elif method.adaptive and self.step_size is not None:
            raise ValueError(
                f"Adjoint(step_size={self.step_size!r}) with the adaptive method {method.name!r}; wanted rtol, atol."
            )
        elif method.adaptive:
            adaptive = isinstance(controller, PID)
            controller = replace(controller, first_step=None, norm="rms") if adaptive else CONTROLLERS["i"]
        else:
            size = self.step_size or getattr(controller, "step_size", None)
            if size is None:
                raise ValueError(
                    f"gradient='adjoint' would solve backwards by the fixed method {method.name!r} after a forward "
                    f"solve by {forward.name!r} without a step size; wanted Adjoint(step_size=...) or "
                    "Adjoint(method='tsit5')."
                )
            controller = Fixed(size)
        rtol, atol = tolerances
        return Backwards(
            method,
            controller,
            rtol if self.rtol is None else self.rtol,
            atol if self.atol is None else self.atol,
            self.norm,
            self.observer,
        )


@dataclass(frozen=True)
class Backwards:
    """How to solve backwards."""

    method: Any
    controller: Any
    rtol: Any
    atol: Any
    norm: Any
    observer: Any


class _Adjoint(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, solved: Solved, how: Backwards, *inputs: Tensor) -> tuple[Tensor, ...]:
        ctx.solved, ctx.how = solved, how
        ctx.save_for_backward(*inputs)
        return (solved.leaves[0].clone(),)  # the user may write into these: backward reads the original

    @staticmethod
    def backward(ctx: Any, *cotangents: Tensor) -> Any:
        check_unchanged(ctx)
        if torch.is_grad_enabled():
            raise GradientError(
                "gradient='adjoint' has no second derivatives; wanted gradient='replay' or gradient='direct'."
            )
        solved: Solved = ctx.solved
        with solved.forward_context.restored():
            return None, None, *Sweep(solved, ctx.how, solved.leaves[0], cotangents[0]).run()


class Sweep:
    """One solve backwards from output to output."""

    def __init__(self, solved: Solved, how: Backwards, outputs: Tensor, cotangent: Tensor) -> None:
        self.solved, self.how = solved, how
        self.outputs = outputs
        problem = solved.problem
        self.problem, self.per_sample = problem, problem.per_sample
        self.substitution = Substitution(problem, solved.captured, linked=False)
        self.totals = [torch.zeros_like(x) for x in self.substitution.inputs]
        self.reached = self._reached()
        self.cotangent = torch.where(
            self.reached[..., None] if self.per_sample else self.reached[:, None, None], cotangent, 0
        )
        self.controller = how.controller
        # whether the parameters' share is added up after the steps, or carried in the state of a shared clock; there it
        # would make the linear systems of an implicit method as large as the network
        self.after = problem.per_sample or how.method.implicit

    def _reached(self) -> Tensor:
        """Which outputs the forward solve arrived at: [outputs] or [outputs, rows]."""
        times, record = self.problem.t.detach(), self.solved.record
        if self.per_sample:
            ahead = (times - record.t[:, None]) * self.problem.direction
            return ((ahead <= 0) & self.outputs.isfinite().all(-1).T).T
        ahead = (times - record.t) * self.problem.direction
        return (ahead <= 0).to(self.outputs.device) & self.outputs.isfinite().all(-1).all(-1)

    def run(self) -> list[Tensor | None]:
        """Cotangents of y0, t and what f uses."""
        times = self.problem.t.detach()
        t_total = torch.zeros_like(times) if self.problem.t.requires_grad else None
        adjoint = torch.zeros_like(self.outputs[0])
        for i in range(self.problem.outputs - 1, 0, -1):
            adjoint = adjoint + self.cotangent[i]
            if t_total is not None:
                self.add_time(t_total, i, self.cotangent[i])
            adjoint = self.back(i, adjoint)
        if t_total is not None:
            self.add_time(t_total, 0, -adjoint)
        return [adjoint + self.cotangent[0], t_total, *self.substitution.collect(self.totals)]

    def add_time(self, total: Tensor, i: int, weight: Tensor) -> None:
        """∂y(t_i)/∂t_i = f there. An output at the end moves with the end, one at the start does not move."""
        times = self.problem.t.detach()
        t, y = times[..., i], torch.where(self.outputs[i].isfinite(), self.outputs[i], 0)
        slope = self.problem.field(t.to(device=y.device, dtype=y.dtype.to_real()), y)
        products = (weight.conj() * slope).real.to(total.dtype)
        moves = products.nan_to_num(0.0).sum(-1) if self.per_sample else products.sum().to(total.device)
        if i == 0:
            total[..., 0] += moves
            return
        starting, ending = t == times[..., 0], t == times[..., -1]
        total[..., 0] += torch.where(starting, moves, 0)  # cancels what the start adds for it
        total[..., -1] += torch.where(ending & ~starting, moves, 0)
        total[..., i] += torch.where(starting | ending, 0, moves)

    def back(self, i: int, adjoint: Tensor) -> Tensor:
        """Solve from output i to the one before; returns λ there and adds up the parameters' share."""
        times = self.problem.t.detach()
        ends = times[..., [i, i - 1]]
        begin = torch.where(self.reached[i], ends[..., 0], ends[..., 1]) if self.per_sample else ends[0]
        ends = torch.stack((begin, ends[..., 1]), -1)
        idle = bool((ends[..., 0] == ends[..., 1]).all())
        if idle or not bool(self.reached[i].any()):
            return adjoint
        state = (self.outputs[i], adjoint, *(() if self.after else self.totals))
        layout = lay_out(state, self.per_sample)
        field = replace(self.substitution.field, f=self.augmented, dtype=None, layout=layout)
        direction = -self.problem.direction
        host = ends if self.per_sample else ends.tolist()
        backwards = Problem(field, layout.pack(state), ends, host, direction, self.per_sample)
        with torch.no_grad():
            record = self.solve_loop(backwards, layout)
        if self.per_sample:
            after = layout.unpack(record.y)[1]
            return torch.where((self.reached[i])[:, None], after, adjoint)
        _, adjoint, *totals = layout.unpack(record.y)
        self.totals = self.totals if self.after else totals
        return adjoint

    def solve_loop(self, problem: Problem, layout: Any) -> Record:
        """Solve one stretch, beginning with the step size that the last one reached."""
        how, field = self.how, problem.field
        start = problem.t[..., 0].to(device=problem.y0.device, dtype=problem.y0.dtype.to_real())
        f0 = field(start, problem.y0)
        rtol, atol = (self.spread(x, layout) for x in (how.rtol, how.atol))
        counted = (0, 1) if how.norm == "seminorm" or self.after else None
        reduction = self.reduction if callable(how.norm) else "rms"
        norm = Norm(layout, rtol, atol, self.per_sample, reduction, counted)
        plan = Plan(replay=self.after)
        solved = self.solved

        def on_batch(step_batch: StepBatch) -> None:
            self.gather(step_batch, field)

        record, _ = solve_loop(
            problem, f0, plan, how.method, self.controller, norm, solved.engine, solved.max_steps,
            on_batch=on_batch if self.after else None, stops=solved.stops.reversed(), observer=how.observer,
        )  # fmt: skip
        solved.backward[0] += record.calls
        status = torch.as_tensor(record.status)
        finite = problem.y0.isfinite().all(1) if self.per_sample else torch.tensor(True)
        if bool(((status >= Status.MAX_STEPS) & finite.to(status.device)).any()):
            raise BackwardSolveError(Status(int(status.max())), problem.t[..., 0].max().item())
        self.controller = self.controller.resume(record.h)
        return record

    def reduction(self, scaled: tuple) -> Tensor:
        """The user's norm of (y, λ, parameters)."""
        y, adjoint, *totals = scaled
        unpack = self.problem.layout.unpack
        return torch.as_tensor(self.how.norm((unpack(y), unpack(adjoint), tuple(totals))))

    def spread(self, tolerance: Any, layout: Any) -> Any:
        """Tolerances of (y, λ, parameters): λ has those of y, the parameters the tightest."""
        if not isinstance(tolerance, Tensor):
            return tolerance
        own = tolerance.expand(self.outputs[0].shape)
        if layout.has_rows:
            rest = own.min().expand(len(own), layout.features - 2 * own.shape[1])
            return torch.cat((own, own, rest), 1)
        rest = own.min().expand(layout.features - 2 * own.numel())
        return torch.cat((own.reshape(-1), own.reshape(-1), rest))[None]

    def augmented(self, t: Tensor, state: tuple, *args: Any) -> tuple:
        """The right-hand side of (y, λ), and on a shared clock of the parameters' cotangents."""
        y, adjoint, *totals = state
        again = torch.is_grad_enabled()  # an implicit method asks for the derivatives of this
        with torch.enable_grad():
            y = y.view_as(y) if again and y.requires_grad else y.detach().requires_grad_()
            slope = replace(self.substitution.field, args=args)(t, y)
        wanted = [y, *(self.substitution.inputs if totals else ())]
        if not slope.requires_grad:
            return slope, torch.zeros_like(y), *map(torch.zeros_like, totals)
        if self.solved.strict and not again:
            self.substitution.check([slope], y)
        # parameters that were named may lie behind a graph made before the solve, which is met at every evaluation
        keep = again or not self.solved.strict
        grads = torch.autograd.grad(slope, wanted, -adjoint, allow_unused=True, create_graph=again, retain_graph=keep)
        return slope if again else slope.detach(), *(
            torch.zeros_like(x) if g is None else g for x, g in zip(wanted, grads, strict=True)
        )

    def gather(self, step_batch: StepBatch, field: Field) -> None:
        """Add the parameters' share of accepted steps: one product a stage, weighted by row.

        The parameters' cotangents are a quadrature along (y, λ): Σ h bᵢ λᵢᵀ ∂f/∂θ over the stages i of each step.
        """
        layout, method = field.layout, self.how.method
        assert layout is not None
        own = field if step_batch.rows is None else field.take(step_batch.rows)
        for step in step_batch.steps if self.substitution.inputs else ():
            f = own if step.edges is None else own.within(step.t, *step.edges)
            nodes = method.quadrature(StepStart(f, step.t, step.y, h=step.h, method_state=step.method_state))
            self.solved.backward[0] += method.evaluations_per_step
            for weight, t, z in nodes:
                if weight:
                    y, adjoint = layout.unpack(z)
                    self.add_product(
                        t,
                        y,
                        column_times(-weight * step.h, adjoint),
                        step_batch.rows,
                        step.edges and (step.t, *step.edges),
                    )

    def add_product(self, t: Tensor, y: Tensor, weighted: Tensor, rows: Tensor | None, bounds: Any) -> None:
        """Add one vector–Jacobian product by the parameters."""
        substitution = self.substitution
        with torch.enable_grad():
            field = (
                substitution.field if rows is None else substitution.field.take(rows)
            )  # args that are gathered have a graph
            field = field if bounds is None else field.within(*bounds)
            y = y.detach().requires_grad_()  # an f that differentiates inside finds what it finds in a forward pass
            slope = field(t, y)
        self.solved.backward[0] += 1
        if not slope.requires_grad:
            return
        if self.solved.strict:
            substitution.check([slope], y)
        keep = not self.solved.strict
        grads = torch.autograd.grad(slope, substitution.inputs, weighted, allow_unused=True, retain_graph=keep)
        for total, g in zip(self.totals, grads, strict=True):
            if g is not None:
                total.add_(g)
