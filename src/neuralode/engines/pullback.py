"""The vector–Jacobian product of a recorded trajectory: its accepted steps, one at a time, backwards.

Exact for the discrete map that the forward pass computed, at the memory of its states and of one step. (Discretise,
then optimise; Gholami, Keutzer & Biros, *ANODE*, 2019; Matsubara, Miyatake & Yaguchi, *Symplectic adjoint method*,
2021.)
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from neuralode.autodiff.checkpointing import Checkpointed
from neuralode.autodiff.substitution import Substitution
from neuralode.core.field import Field
from neuralode.core.outputs import OutputIndex, save_states
from neuralode.core.problem import Problem
from neuralode.core.record import AcceptedStep, Plan, StepBatch
from neuralode.core.rounding import rounding_slack
from neuralode.core.status import GradientError
from neuralode.engines.base import SolveConfig, TrajectoryData
from neuralode.engines.retake import outputs_at_end, outputs_at_start, places, rerun, retake
from neuralode.methods.base import MethodState

Cotangents = Sequence[Tensor | None]


def pull_back(trajectory: TrajectoryData, cotangents: Cotangents) -> list[Tensor | None]:
    """Return the cotangents of y0, t and the captured tensors."""
    return Pullback(trajectory, cotangents).run()


def pull_back_with_graph(trajectory: TrajectoryData, cotangents: Cotangents) -> list[Tensor | None]:
    """Return the same with a graph: the recorded steps are taken again with one."""
    problem, plan = trajectory.problem, trajectory.plan
    substitution = Substitution(problem, linked=True)
    y0, t = problem.y0, problem.t
    # An f that calls `torch.autograd.grad` by y needs a y that requires grad, as in the forward pass.
    ends = [y0.view_as(y0) if y0.requires_grad else y0.detach().requires_grad_(), t.view_as(t)]
    problem = replace(problem, field=substitution.field, y0=ends[0], t=ends[1])
    plan = replace(plan, save=substitution.around(plan.save))
    leaves = rerun(replace(trajectory, problem=problem, plan=plan))
    pairs = [(x, g) for x, g in zip(leaves, cotangents, strict=True) if g is not None and x.requires_grad]
    outputs, weights = [x for x, _ in pairs], [g for _, g in pairs]
    inputs = [*ends, *substitution.inputs]
    differentiable = [x for x in inputs if x.requires_grad]
    if problem.strict:
        substitution.check(outputs, *ends)
    grads = iter(
        torch.autograd.grad(outputs, differentiable, weights, create_graph=True, allow_unused=True) if pairs else []
    )
    found = [next(grads, None) if x.requires_grad else None for x in inputs]
    return [*found[:2], *substitution.collect(found[2:])]


StepStates = list[tuple[Tensor, MethodState | None]]  # the state and method state before each of some steps


class Pullback:
    """One walk back through a record, accumulating the cotangents of the inputs."""

    def __init__(self, trajectory: TrajectoryData, cotangents: Cotangents) -> None:
        problem = trajectory.problem
        self.t = problem.t.detach().requires_grad_() if problem.t.requires_grad else None
        self.substitution = Substitution(problem, linked=False)
        plan = replace(trajectory.plan, save=self.substitution.around(trajectory.plan.save))
        self.trajectory, self.cotangents = replace(trajectory, plan=plan), cotangents
        self.totals: list[Tensor | None] = [None] * len(self.substitution.inputs)
        self.t_total = None if self.t is None else torch.zeros_like(self.t)
        self.method_state_adjoint: list[Tensor] = []
        self.stagewise = plan.memory == "stage"
        self.deviation = Deviation(problem, trajectory.config, plan.keep_every)

    def run(self) -> list[Tensor | None]:
        """Return the cotangents of y0, t and the captured tensors."""
        trajectory, record = self.trajectory, self.trajectory.record
        adjoint = self.add_saved(outputs_at_end(trajectory), record.y, torch.zeros_like(record.y))
        for batch in reversed(record.step_batches):
            own = adjoint if batch.rows is None else adjoint[batch.rows]
            own = self.back_over_batch(batch, own)
            adjoint = own if batch.rows is None else adjoint.index_copy(0, batch.rows, own)
            self.method_state_adjoint = [_in_all_rows(x, batch.rows, adjoint) for x in self.method_state_adjoint]
        adjoint = self.add_saved(outputs_at_start(trajectory), trajectory.problem.y0.detach(), adjoint)
        if trajectory.plan.save_steps and self.cotangents[0] is not None:
            adjoint = adjoint + self.cotangents[0][0]
        self.deviation.check()
        return [adjoint, self.t_total, *self.substitution.collect(self.totals)]

    def back_over_batch(self, batch: StepBatch, adjoint: Tensor) -> Tensor:
        """Go back over the steps of a batch, in stretches that begin with a kept state."""
        following, every = batch.end, self.trajectory.plan.keep_every
        if batch.rows is not None:
            self.method_state_adjoint = [x[batch.rows] for x in self.method_state_adjoint]
        for first in reversed(range(0, len(batch.steps), every)):
            steps = batch.steps[first : first + every]
            states = self.recompute_states(batch, steps)
            for n in reversed(range(len(steps))):
                last = n == len(steps) - 1
                adjoint = self.back_over_step(
                    batch, steps[n], states[n], following=following if last else None, adjoint=adjoint
                )
            following = steps[0].y
        return adjoint

    def recompute_states(self, batch: StepBatch, steps: list[AcceptedStep]) -> StepStates:
        """Recompute the states before these steps from the one that was kept, before the first."""
        states: StepStates = [(steps[0].y, steps[0].method_state)]
        if len(steps) > 1:
            field = self.field(batch)
            bare = replace(self.trajectory, plan=Plan())
            with torch.no_grad():
                for step in steps[:-1]:
                    y, method_state = states[-1]
                    step = step._replace(step_outputs=None)
                    again = retake(bare, batch, step, field=field, y=y, t=None, method_state=method_state)
                    states.append((again.y1, again.method_state))
                    self.count(1, dense=False, method_state=method_state)
        return states

    def field(self, batch: StepBatch) -> Field:
        """Return the field of the rows of a batch."""
        field = self.substitution.field
        return field if batch.rows is None else field.take(batch.rows)

    def back_over_step(
        self,
        batch: StepBatch,
        step: AcceptedStep,
        before: tuple[Tensor, MethodState | None],
        *,
        following: Tensor | None,
        adjoint: Tensor,
    ) -> Tensor:
        """Return the adjoint before a step from the one after it; ``following`` is the state recorded after it."""
        trajectory, substitution = self.trajectory, self.substitution
        y, method_state = before
        with torch.enable_grad():
            y = y.detach().requires_grad_()
            memory = [] if method_state is None else [x.detach().requires_grad_() for x in method_state.states]
            if method_state is not None:
                method_state = method_state._replace(states=tuple(memory))
            field = Checkpointed(self.field, batch, substitution) if self.stagewise else self.field(batch)
            again = retake(trajectory, batch, step, field=field, y=y, t=self.t, method_state=method_state)
        dense = step.step_outputs is not None or trajectory.plan.dense
        self.count(1 + self.stagewise, dense=dense, method_state=method_state)
        if following is not None:
            self.deviation.note(y.detach(), again.y1.detach(), following)
        outputs, weights = [again.y1], [adjoint]
        after = () if again.method_state is None else again.method_state.states
        for x, weight in zip(after, self.method_state_adjoint, strict=False):
            if x.requires_grad:
                outputs.append(x)
                weights.append(weight)
        for (leaf, place), x in zip(places(trajectory, batch, step), again.leaves, strict=True):
            cotangent = self.cotangents[leaf]
            if cotangent is not None and x.requires_grad:
                outputs.append(x)
                weights.append(cotangent[place].to(x.dtype))
        if trajectory.problem.strict:
            substitution.check(outputs, *(y, self.t, *memory))
        return self.accumulate(outputs, weights, y=y, memory=memory)

    def count(self, times: int, *, dense: bool, method_state: MethodState | None) -> None:
        """Count the evaluations of a step that is taken again ``times`` times."""
        method = self.trajectory.config.method
        self.trajectory.calls.add(times * method.evaluations_again(dense, method_state))

    def add_saved(self, chosen: Tensor, y: Tensor, adjoint: Tensor) -> Tensor:
        """Add the cotangents of the outputs that are the state y."""
        plan, problem = self.trajectory.plan, self.trajectory.problem
        place = chosen.nonzero(as_tuple=True)
        given = [g for g in self.cotangents[: len(self.cotangents) - plan.dense] if g is not None]
        if plan.save_steps or not given or not len(place[0]):
            return adjoint
        rows = place[1] if problem.per_sample else None
        if plan.save is None:
            picked = given[0][place].to(adjoint.dtype)
            return adjoint + picked.sum(0) if rows is None else adjoint.index_add(0, rows, picked)
        times = (problem.t.detach() if self.t is None else self.t).to(y.device)
        with torch.enable_grad():
            y = y.detach().requires_grad_()
            states = y[rows] if rows is not None else y.expand(len(place[0]), *y.shape)
            own = OutputIndex(place[0], rows).times(times)
            saved = save_states(problem, plan, t=own, y=states, rows=rows).leaves
        pairs = [
            (x, g[place]) for x, g in zip(saved, self.cotangents, strict=False) if g is not None and x.requires_grad
        ]
        outputs, weights = [x for x, _ in pairs], [g for _, g in pairs]
        if problem.strict:
            self.substitution.check(outputs, y, self.t)
        return adjoint + self.accumulate(outputs, weights, y=y)

    def accumulate(
        self, outputs: list[Tensor], weights: list[Tensor], *, y: Tensor, memory: Sequence[Tensor] = ()
    ) -> Tensor:
        """Take a vector–Jacobian product, add the cotangents of the inputs to the totals, return that of y.

        The cotangents of the method state are kept for the step before.
        """
        times = [] if self.t is None else [self.t]
        inputs = [y, *memory, *times, *self.substitution.inputs]
        grads = list(torch.autograd.grad(outputs, inputs, weights, allow_unused=True))
        of_y, of_memory, rest = grads[0], grads[1 : 1 + len(memory)], grads[1 + len(memory) :]
        self.method_state_adjoint = [
            torch.zeros_like(x) if g is None else g for x, g in zip(memory, of_memory, strict=True)
        ]
        if self.t_total is not None:
            of_t, *rest = rest
            self.t_total = self.t_total if of_t is None else self.t_total + of_t
        self.totals = [
            total if g is None else g.clone() if total is None else total.add_(g)
            for total, g in zip(self.totals, rest, strict=True)
        ]
        return torch.zeros_like(y) if of_y is None else of_y


def _in_all_rows(x: Tensor, rows: Tensor | None, like: Tensor) -> Tensor:
    """Return values of some rows as values of all rows, zero elsewhere."""
    return x if rows is None else x.new_zeros((len(like), *x.shape[1:])).index_copy(0, rows, x)


class Deviation:
    """How far steps that are taken again are from the recorded ones, compared with rounding.

    Kept on the device, so that the host waits once.
    """

    def __init__(self, problem: Problem, config: SolveConfig, steps: int) -> None:
        self.slack = rounding_slack_of_f(problem)
        self.rtol, self.atol = _iteration_error(problem, config)
        self.steps = steps
        self.excess: Tensor | None = None

    def note(self, y: Tensor, y1: Tensor, recorded: Tensor) -> None:
        """Compare a step from y to y1 with the recorded state after it."""
        if not y1.numel():
            return
        move, size = torch.dist(recorded, y, torch.inf), torch.linalg.vector_norm(recorded, torch.inf)
        slack = self.slack * move + 100 * torch.finfo(y.dtype).eps * size + self.rtol * size + self.atol
        excess = torch.dist(recorded, y1, torch.inf) - self.steps * slack
        self.excess = excess if self.excess is None else torch.maximum(self.excess, excess)

    def check(self) -> None:
        """Refuse an f that was not the same function in the backward pass."""
        if self.excess is not None and not bool(self.excess <= 0):
            raise GradientError(
                "f changed between forward and backward: dropout, BatchNorm, parameters updated in between? The steps "
                "taken again differ from the recorded ones. Make f a function of (t, y, args) during one solve."
            )


def _iteration_error(problem: Problem, config: SolveConfig) -> tuple[float, float]:
    """Return the relative and absolute error up to which a method that iterates solves its own equations."""
    if not config.controller.adaptive:
        return 0.0, 0.0
    # The norm that the iteration controls is a mean; one number can deviate by the root of their count.
    factor = config.method.inexact * max(1, problem.y0.numel()) ** 0.5
    rtol, atol = (float(x.max()) if isinstance(x, Tensor) else x for x in (config.norm.rtol, config.norm.atol))
    return factor * rtol, factor * atol


def rounding_slack_of_f(problem: Problem) -> float:
    """Return the relative difference that kernels may make to f: half of the digits of the coarsest dtype in use."""
    field, layout = problem.field, problem.layout
    dtypes = [leaf.dtype for leaf in layout.leaves]
    if field.dtype is not None:
        dtypes.append(field.dtype)
    dtypes += [
        torch.get_autocast_dtype(kind)
        for kind in {"cpu", layout.device.type}
        if torch.amp.is_autocast_available(kind) and torch.is_autocast_enabled(kind)
    ]
    slack = max(rounding_slack(dtype) for dtype in dtypes)
    if layout.device.type == "cuda" and layout.dtype.to_real() == torch.float32:
        slack = max(slack, 2**-5)  # TF32 products have eps 2^-10
    return slack
