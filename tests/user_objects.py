"""A method, a controller, engines, gradients and an observer as users write them, for the tests of their contracts.

None of them has a class of this library as its base, except for the method that is written by the base class. Each
imitates a built-in object.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

import neuralode
from neuralode.controllers.base import AttemptOutcome, SolveStart, StepDecision, StepProposal, StepRequest
from neuralode.controllers.initial_step import estimate_initial_step
from neuralode.core.clock import maximum, minimum, power, scaled, where
from neuralode.core.record import CallCount, Record
from neuralode.core.status import SUCCESS
from neuralode.engines.eager import Eager
from neuralode.engines.grid import equal_steps, integrate_grid
from neuralode.gradients.base import check_unchanged
from neuralode.methods import OneStepMethod, Step, StepStart

H = 0.125  # size of the steps that are known beforehand


class Midpoint:
    """The explicit midpoint rule, with all members of a method."""

    name, family, order, error_order, interpolant_order, stages = "own_midpoint", "mine", 2, 0, 2, 2
    adaptive, implicit, partitioned, one_call, memoryless, inexact = False, False, False, False, True, 0.0
    evaluations_per_step, dense_evaluations = 2, 0

    def begin(self, f0: Tensor) -> None:
        return None

    def evaluations_again(self, dense: bool, method_state: Any = None) -> int:
        return 2

    def _stages(self, start: StepStart) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        f, t, y, h, _ = start
        k1 = f(torch.as_tensor(t, dtype=y.dtype), y)
        k2 = f(torch.as_tensor(t + h / 2, dtype=y.dtype), scaled(y, h / 2, k1))
        return scaled(y, h, k2), (k1, k2)

    def step(self, start: StepStart, error_norm: Any = None) -> Step:
        y1, stages = self._stages(start)
        return Step(y1, None, None, None, stages=stages, ok=True, evaluations=2, calls=2)

    def retake(self, start: StepStart, *, dense: bool, derivatives: int = 1) -> tuple[Tensor, Any, None]:
        return *self._stages(start), None

    def interpolate(self, start: StepStart, stages: Any, thetas: Sequence[float]) -> Tensor:
        c = self.interpolant(start, stages)
        return torch.stack([c[0] + theta * c[1] + theta**2 * c[2] for theta in thetas])

    def interpolant(self, start: StepStart, stages: Any) -> Tensor:
        zero, (k1, k2) = torch.zeros_like(start.y), stages
        return torch.stack((start.y, scaled(zero, start.h, k1), scaled(zero, start.h, k2 - k1)))

    def quadrature(self, start: StepStart) -> list[tuple[float, Tensor, Tensor]]:
        f, t, y, h, _ = start
        middle = scaled(y, h / 2, f(torch.as_tensor(t, dtype=y.dtype), y))
        return [(1.0, torch.as_tensor(t + h / 2, dtype=y.dtype), middle)]


class Heun(OneStepMethod):
    """Heun's method by the base class, with Euler's as an estimate of its error."""

    name, order, error_order, adaptive = "own_heun", 2, 1, True
    evaluations_per_step, weights = 2, (0.5, 0.5)

    def step(self, start: StepStart, error_norm: Any = None) -> Step:
        k1 = start.slope(0.0, start.y)
        euler = scaled(start.y, start.h, k1)
        k2 = start.slope(1.0, euler)
        y1 = scaled(start.y, start.h, k1 / 2 + k2 / 2)
        return self.result(start, y1=y1, error=y1 - euler)


class Elementary:
    """The elementary controller, "i": the history is whether the step may grow."""

    adaptive, norm, min_step = True, "rms", None

    def start(self, t0: Any, t1: Any) -> Any:
        return t0 == t0

    def initial_step(self, start: SolveStart) -> tuple[Any, int]:
        return estimate_initial_step(start)

    def propose(self, request: StepRequest, history: Any) -> StepProposal:
        t, h, end, direction = request
        rest = end - t
        left = rest * direction
        reaches_end = h * 1.01 >= left
        clipped = reaches_end | (2 * h > left)
        signed = where(reaches_end, rest, where(clipped, rest / 2, h * direction))
        return StepProposal(signed, where(reaches_end, end, t + signed), reaches_end, clipped=clipped)

    def decide(self, outcome: AttemptOutcome, history: Any) -> StepDecision:
        assert outcome.ratio is not None
        accept = outcome.ratio <= 1
        ratio = where(outcome.ratio == outcome.ratio, outcome.ratio, float("inf"))
        factor = 0.9 * power(maximum(ratio, 1e-10), -1 / outcome.order)
        largest = where(accept, where(history, 10.0, 1.0), 0.9)
        following = outcome.h * maximum(minimum(factor, largest), 0.2)
        following = where(accept & outcome.clipped, maximum(following, outcome.planned), following)
        return StepDecision(accept, following, accept)

    def resume(self, h: Any) -> Any:
        return neuralode.I().resume(h)


class Everywhere:
    """A controller of given steps: all of one size, which divides the span."""

    adaptive, norm, min_step = False, "rms", None

    def start(self, t0: Any, t1: Any) -> None:
        return None

    def initial_step(self, start: SolveStart) -> tuple[Any, int]:
        return H + 0 * start.problem.end, 0

    def propose(self, request: StepRequest, history: Any) -> StepProposal:
        reaches_end = abs(request.end - request.t) < 1.5 * H
        t1 = where(reaches_end, request.end, request.t + request.direction * H)
        return StepProposal(t1 - request.t, t1, reaches_end, clipped=reaches_end)

    def decide(self, outcome: AttemptOutcome, history: Any) -> StepDecision:
        return StepDecision(outcome.h == outcome.h, outcome.planned, None)

    def resume(self, h: Any) -> Everywhere:
        return self


class Forwarded:
    """A trajectory that is no `RecordedTrajectory`: it forwards to one, and counts pullbacks."""

    def __init__(self, trajectory: Any) -> None:
        self.trajectory, self.pulled = trajectory, 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self.trajectory, name)

    def pullback(self, cotangents: Any) -> Any:
        self.pulled += 1
        return self.trajectory.pullback(cotangents)


class Delegating:
    """An engine that keeps what it has solved, and delegates."""

    name = "own_delegating"

    def __init__(self) -> None:
        self.trajectories: list[Forwarded] = []
        self.advanced = 0

    def supports(self, problem: Any, config: Any, plan: Any) -> str | None:
        return Eager().supports(problem, config, plan)

    def integrate(self, problem: Any, config: Any, plan: Any) -> Any:
        self.trajectories.append(Forwarded(Eager().integrate(problem, config, plan)))
        return self.trajectories[-1]

    def advance(self, context: Any, state: Any, budget: int) -> Any:
        self.advanced += 1
        return Eager().advance(context, state, budget)


class GridTrajectory:
    """A trajectory without a record of its steps, differentiated by backpropagation."""

    def __init__(self, problem: Any, config: Any, plan: Any) -> None:
        self.problem, self.config, self.plan = problem, config, plan
        self.spec, self.calls = None, CallCount()
        with torch.no_grad():
            self.leaves = (self.solve(problem.y0.detach()),)
        steps = round(abs(problem.end - problem.start) / H)
        self.record = Record(
            y=self.leaves[0][-1], t=problem.end, h=H, status=SUCCESS, attempts=steps, accepted=steps,
            evaluations=4 * steps, calls=1 + 4 * steps,
        )  # fmt: skip

    def solve(self, y: Tensor) -> Tensor:
        states = [y]
        for start, end in pairwise(self.problem.times):
            steps = equal_steps(start, end, round(abs(end - start) / H))
            states.append(integrate_grid(self.problem.field, states[-1], steps, method=self.config.method))
        return torch.stack(states)

    def pullback(self, cotangents: Any, graph: bool = False) -> list[Tensor | None]:
        with torch.enable_grad():
            y0 = self.problem.y0
            y = y0.view_as(y0) if graph else y0.detach().requires_grad_()
            outputs = self.solve(y)
        inputs = [y, *self.problem.captured]
        grads = torch.autograd.grad(outputs, inputs, cotangents[0], allow_unused=True, create_graph=graph)
        return [grads[0], None, *grads[1:]]

    def pullback_with_graph(self, cotangents: Any) -> list[Tensor | None]:
        return self.pullback(cotangents, graph=True)

    def rerun(self) -> list[Tensor]:
        return [self.solve(self.problem.y0)]


class Grid:
    """An engine that shares no code with the built-in ones: equal steps of an explicit method, on a shared clock."""

    name = "own_grid"

    def supports(self, problem: Any, config: Any, plan: Any) -> str | None:
        if problem.per_sample or config.events or plan.dense or plan.save_steps or plan.on_batch or config.stops:
            return "engine 'own_grid' solves to given times on a shared clock; wanted engine='eager'."
        return None

    def integrate(self, problem: Any, config: Any, plan: Any) -> GridTrajectory:
        return GridTrajectory(problem, config, plan)


class PulledBack(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, trajectory: Any, context: Any, *inputs: Tensor) -> tuple[Tensor, ...]:
        ctx.trajectory, ctx.context = trajectory, context
        ctx.save_for_backward(*inputs)
        return tuple(leaf.clone() for leaf in trajectory.leaves)

    @staticmethod
    def backward(ctx: Any, *cotangents: Tensor) -> Any:
        check_unchanged(ctx)
        pull = ctx.trajectory.pullback_with_graph if torch.is_grad_enabled() else ctx.trajectory.pullback
        with ctx.context.restored():
            return None, None, *pull(cotangents)


class Pullback:
    """A gradient by the pullback of the trajectory, as "replay"."""

    name, derivatives = "own_pullback", 1

    def check(self, config: Any, per_sample: bool) -> None:
        pass

    def plan(self, plan: Any) -> Any:
        return replace(plan, pullback=True)

    def attach(self, trajectory: Any, context: Any) -> list[Tensor]:
        return list(PulledBack.apply(trajectory, context, *trajectory.problem.inputs))


class Rerun:
    """A gradient that takes the steps again with a graph, as "direct"."""

    name, derivatives = "own_rerun", 2

    def check(self, config: Any, per_sample: bool) -> None:
        pass

    def plan(self, plan: Any) -> Any:
        return replace(plan, keep_states=True)

    def attach(self, trajectory: Any, context: Any) -> list[Tensor]:
        with torch.enable_grad():
            return trajectory.rerun()


class Recording:
    """An observer that records the start and the size of every attempt, and its outcome."""

    def __init__(self) -> None:
        self.attempts: list[tuple[float, float]] = []
        self.outcomes: list[bool] = []

    def attempted(self, t: Any, y: Tensor, h: Any) -> None:
        assert y.dim() == 2
        assert not y.requires_grad
        self.attempts.append((float(t), float(h)))

    def accepted(self, t: Any, y: Tensor, h: Any) -> None:
        self.outcomes.append(True)

    def rejected(self, t: Any, y: Tensor, h: Any) -> None:
        self.outcomes.append(False)
