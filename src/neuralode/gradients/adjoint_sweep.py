"""The backward solve of `Adjoint`: the adjoint equation from output to output, and the sums of cotangents."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal, TypeAlias

import torch
from torch import Tensor

from neuralode.autodiff.substitution import Substitution
from neuralode.core.clock import column_times
from neuralode.core.field import Field
from neuralode.core.layout import Layout, lay_out
from neuralode.core.norms import Norm
from neuralode.core.problem import Problem
from neuralode.core.record import AcceptedStep, Plan, Record, StepBatch
from neuralode.core.status import MAX_STEPS, BackwardSolveError, GradientError, Status
from neuralode.core.types import PyTree
from neuralode.engines.base import SolveConfig, Trajectory
from neuralode.gradients.adjoint_equation import AdjointEquation
from neuralode.methods.base import StepStart

PackedTolerance: TypeAlias = float | Tensor
AdjointNorm: TypeAlias = Literal["seminorm", "full"] | Callable[[PyTree], Tensor | float]


@dataclass(frozen=True)
class BackwardSolve:
    """The configuration of the backward solve, and the tolerances and norm of (y, λ, parameters)."""

    config: SolveConfig
    rtol: PackedTolerance
    atol: PackedTolerance
    norm: AdjointNorm

    @property
    def adds_parameters_after_steps(self) -> bool:
        """Whether to sum the cotangents of parameters outside of the state, which would enlarge linear systems."""
        return self.config.method.implicit


class AdjointSweep:
    """A solve of the adjoint equation backwards from output to output."""

    def __init__(self, trajectory: Trajectory, backwards: BackwardSolve) -> None:
        self.trajectory, self.backwards = trajectory, backwards
        self.problem, self.outputs = trajectory.problem, trajectory.leaves[0]

    def run(self, cotangent: Tensor) -> list[Tensor | None]:
        """Return the cotangents of y0, t and the captured tensors."""
        problem = self.problem
        reached = outputs_reached(self.trajectory)
        cotangent = torch.where(reached[..., None] if problem.per_sample else reached[:, None, None], cotangent, 0)
        parameters = Substitution(problem, linked=False)
        intervals = _OutputIntervals(self.trajectory, self.backwards, parameters)
        t_total = torch.zeros_like(problem.t) if problem.t.requires_grad else None
        adjoint = torch.zeros_like(self.outputs[0])
        for i in range(problem.outputs - 1, 0, -1):
            adjoint = adjoint + cotangent[i]
            if t_total is not None:
                self.add_time(t_total, i, cotangent[i])
            adjoint = intervals.back(i, adjoint, reached[i])
        if t_total is not None:
            self.add_time(t_total, 0, -adjoint)
        return [adjoint + cotangent[0], t_total, *parameters.collect(intervals.totals)]

    def add_time(self, total: Tensor, i: int, weight: Tensor) -> None:
        """Add the cotangent of output time i: ∂y(t_i)/∂t_i = f.

        An output at the end moves with the end; one at the start does not move.
        """
        problem, times = self.problem, self.problem.t.detach()
        t, y = times[..., i], torch.where(self.outputs[i].isfinite(), self.outputs[i], 0)
        slope = problem.field(t.to(device=y.device, dtype=y.dtype.to_real()), y)
        products = (weight.conj() * slope).real.to(total.dtype)
        moves = products.nan_to_num(0.0).sum(-1) if problem.per_sample else products.sum().to(total.device)
        if i == 0:
            total[..., 0] += moves
            return
        starting, ending = t == times[..., 0], t == times[..., -1]
        total[..., 0] += torch.where(starting, moves, 0)  # cancels the term of the start
        total[..., -1] += torch.where(ending & ~starting, moves, 0)
        total[..., i] += torch.where(starting | ending, 0, moves)


def outputs_reached(trajectory: Trajectory) -> Tensor:
    """Return which outputs the forward solve reached: [outputs], or [outputs, rows]."""
    problem, record, outputs = trajectory.problem, trajectory.record, trajectory.leaves[0]
    times = problem.t.detach()
    if problem.per_sample:
        ahead = (times - torch.as_tensor(record.t)[:, None]) * problem.direction
        return ((ahead <= 0) & outputs.isfinite().all(-1).T).T
    ahead = (times - record.t) * problem.direction
    return (ahead <= 0).to(outputs.device) & outputs.isfinite().all(-1).all(-1)


class _OutputIntervals:
    """Backward solves between neighbouring outputs, and the sums of the cotangents of parameters.

    On a shared clock the cotangents are part of the state. Otherwise they are summed after each batch of steps, by the
    quadrature Σ h bᵢ λᵢᵀ ∂f/∂θ over the stages i of each step.
    """

    def __init__(self, trajectory: Trajectory, backwards: BackwardSolve, parameters: Substitution) -> None:
        self.trajectory, self.backwards, self.parameters = trajectory, backwards, parameters
        self.problem, self.outputs = trajectory.problem, trajectory.leaves[0]
        self.totals = [torch.zeros_like(x) for x in parameters.inputs]
        self.controller = backwards.config.controller
        self.by_quadrature = self.problem.per_sample or backwards.adds_parameters_after_steps
        self.equation = AdjointEquation(self.problem, parameters)

    def back(self, i: int, adjoint: Tensor, reached: Tensor) -> Tensor:
        """Solve from output i to the one before and return λ there."""
        per_sample, times = self.problem.per_sample, self.problem.t.detach()
        ends = times[..., [i, i - 1]]
        begin = torch.where(reached, ends[..., 0], ends[..., 1]) if per_sample else ends[0]
        ends = torch.stack((begin, ends[..., 1]), -1)
        if bool((ends[..., 0] == ends[..., 1]).all()) or not bool(reached.any()):
            return adjoint
        state = (self.outputs[i], adjoint, *(() if self.by_quadrature else self.totals))
        layout = lay_out(state, per_sample)
        problem = Problem(
            field=replace(self.parameters.field, f=self.equation, dtype=None, layout=layout),
            y0=layout.pack(state),
            t=ends,
            times=ends if per_sample else ends.tolist(),
            direction=-self.problem.direction,
            per_sample=per_sample,
        )
        with torch.no_grad():
            record = self.solve(problem)
        _, after, *totals = layout.unpack(record.y)
        if not self.by_quadrature:
            self.totals = totals
        return torch.where(reached[:, None], after, adjoint) if per_sample else after

    def solve(self, problem: Problem) -> Record:
        """Solve one interval, starting with the last step size of the previous one."""
        layout, config = problem.layout, self.backwards.config
        problem = replace(problem, f0=problem.initial_slope())
        norm = self.backwards.norm
        config = replace(
            config,
            controller=self.controller,
            norm=Norm(
                layout=layout,
                rtol=self.spread(self.backwards.rtol, layout),
                atol=self.spread(self.backwards.atol, layout),
                per_sample=problem.per_sample,
                reduction=self.reduction if callable(norm) else "rms",
                leaves=(0, 1) if norm == "seminorm" or self.by_quadrature else None,
            ),
        )

        def on_batch(batch: StepBatch) -> None:
            self.add_batch(batch, problem.field)

        plan = Plan(keep_states=self.by_quadrature, on_batch=on_batch if self.by_quadrature else None)
        reason = config.engine.supports(problem, config, plan)
        if reason is not None:
            raise GradientError(f"engine {config.engine.name!r} cannot solve the adjoint equation: {reason}")
        record = config.engine.integrate(problem, config, plan).record
        self.trajectory.calls.add(record.calls)
        status = torch.as_tensor(record.status)
        finite = problem.y0.isfinite().all(1) if problem.per_sample else torch.tensor(True)
        if bool(((status >= MAX_STEPS) & finite.to(status.device)).any()):
            raise BackwardSolveError(Status(int(status.max())), problem.t[..., 0].max().item())
        self.controller = self.controller.resume(record.h)
        return record

    def reduction(self, scaled: tuple[Tensor, ...]) -> Tensor:
        """Apply the user's norm to scaled errors of (y, λ, parameters)."""
        y, adjoint, *totals = scaled
        unpack = self.problem.layout.unpack
        assert callable(self.backwards.norm)
        return torch.as_tensor(self.backwards.norm((unpack(y), unpack(adjoint), tuple(totals))))

    def spread(self, tolerance: PackedTolerance, layout: Layout) -> PackedTolerance:
        """Return tolerances of (y, λ, parameters): λ has those of y, and parameters have the smallest of them."""
        if not isinstance(tolerance, Tensor):
            return tolerance
        of_y = tolerance.expand(self.outputs[0].shape)
        if layout.has_rows:
            of_parameters = of_y.min().expand(len(of_y), layout.features - 2 * of_y.shape[1])
            return torch.cat((of_y, of_y, of_parameters), 1)
        of_parameters = of_y.min().expand(layout.features - 2 * of_y.numel())
        return torch.cat((of_y.reshape(-1), of_y.reshape(-1), of_parameters))[None]

    def add_batch(self, batch: StepBatch, field: Field) -> None:
        """Add the cotangents of parameters of accepted steps: one vector–Jacobian product per stage."""
        if not self.parameters.inputs:
            return
        layout, method = field.layout, self.backwards.config.method
        assert layout is not None
        of_rows = field if batch.rows is None else field.take(batch.rows)
        for step in batch.steps:
            f = of_rows if step.edges is None else of_rows.within(step.t, step.edges)
            start = StepStart(f=f, t=step.t, y=step.y, h=step.h, method_state=step.method_state)
            nodes = method.quadrature(start)
            self.trajectory.calls.add(method.evaluations_per_step)
            for weight, t, z in nodes:
                if weight:
                    y, adjoint = layout.unpack(z)
                    self.add_product(batch, step, t=t, y=y, weighted=column_times(-weight * step.h, adjoint))

    def add_product(self, batch: StepBatch, step: AcceptedStep, *, t: Tensor, y: Tensor, weighted: Tensor) -> None:
        """Add one vector–Jacobian product by the parameters."""
        field = self.parameters.field
        with torch.enable_grad():
            field = field if batch.rows is None else field.take(batch.rows)  # with a graph through the gathered args
            field = field if step.edges is None else field.within(step.t, step.edges)
            y = y.detach().requires_grad_()  # an f that differentiates by y needs it to require a gradient
            slope = field(t, y)
        self.trajectory.calls.add(1)
        if not slope.requires_grad:
            return
        if self.problem.strict:
            self.parameters.check([slope], y)
        keep = not self.problem.strict
        grads = torch.autograd.grad(slope, self.parameters.inputs, weighted, allow_unused=True, retain_graph=keep)
        for total, g in zip(self.totals, grads, strict=True):
            if g is not None:
                total.add_(g)
