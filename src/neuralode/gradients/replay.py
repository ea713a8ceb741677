"""Replay: going back, take one recorded step at a time again, and its vector–Jacobian product.

Exact for the discrete map that the forward pass computed, at the memory of its states and of one step. (Discretise,
then optimise; Gholami, Keutzer & Biros, *ANODE*, 2019; Matsubara, Miyatake & Yaguchi, *Symplectic adjoint method*,
2021.)
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from torch import Tensor

from neuralode.autodiff.checkpointing import Checkpointed
from neuralode.autodiff.substitution import Substitution
from neuralode.core.field import Field
from neuralode.core.outputs import save_state
from neuralode.core.problem import Problem
from neuralode.core.record import AcceptedStep, Plan, StepBatch
from neuralode.core.status import GradientError
from neuralode.gradients.base import Solved
from neuralode.gradients.retake import outputs_at_end, outputs_at_start, places, rerun, retake


@dataclass(frozen=True)
class Replay:
    """Differentiate the accepted steps exactly, one at a time.

    Parameters
    ----------
    every : int
        Keep the state before every k-th step only, and recompute those between: less memory, one more forward pass.
    memory : {"step", "stage"}
        Keep the activations of one whole step while its product is taken, or of one evaluation of f, at the cost of
        evaluating f once more a stage.

    Examples
    --------
    >>> import torch, neuralode as node
    >>> rate = torch.tensor(0.5, dtype=torch.float64, requires_grad=True)
    >>> sol = node.solve(lambda t, y: -rate * y, torch.ones(1), (0.0, 2.0), gradient=node.Replay(every=4))
    >>> sol.y1.sum().backward()
    >>> round(rate.grad.item(), 3)  # d/dr exp(-2 r) = -2 exp(-1)
    -0.736
    """

    every: int = 1
    memory: Literal["step", "stage"] = "step"

    name = "replay"
    derivatives = 1  # that are right through an event

    def __post_init__(self) -> None:
        if isinstance(self.every, bool) or not isinstance(self.every, int) or self.every < 1:
            raise ValueError(f"Replay(every={self.every!r}); wanted a whole number of at least 1.")
        if self.memory not in ("step", "stage"):
            raise ValueError(f"Replay(memory={self.memory!r}); wanted 'step' or 'stage'.")

    def plan(self, plan: Plan) -> Plan:
        """Keep the states before the steps."""
        return replace(plan, replay=True, every=self.every)

    def check(self, method: Any, controller: Any, per_sample: bool) -> None:
        """Any method, any controller."""

    def attach(self, solved: Solved) -> list[Tensor]:
        """The leaves of the solve, differentiable."""
        return list(_Replayed.apply(self, solved, *solved.inputs))


class _Replayed(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, gradient: Replay, solved: Solved, *inputs: Tensor) -> tuple[Tensor, ...]:
        ctx.gradient, ctx.solved = gradient, solved
        ctx.save_for_backward(*inputs)
        ctx.set_materialize_grads(False)
        return tuple(leaf.clone() for leaf in solved.leaves)

    @staticmethod
    def backward(ctx: Any, *cotangents: Tensor | None) -> Any:
        solved: Solved = ctx.solved
        check_unchanged(ctx)
        if torch.is_grad_enabled():
            return None, None, *through_rerun(solved, cotangents)
        with solved.forward_context.restored():
            return None, None, *Reverse(ctx.gradient, solved, cotangents).run()


def check_unchanged(ctx: Any) -> None:
    """Refuse to go back after an input was overwritten."""
    try:
        _ = ctx.saved_tensors
    except RuntimeError as error:
        if "inplace" not in str(error) and "in-place" not in str(error):
            raise
        raise GradientError(
            "f changed between forward and backward: a tensor it uses was overwritten (parameters updated in between?)."
        ) from error


def through_rerun(solved: Solved, cotangents: tuple[Tensor | None, ...]) -> list[Tensor | None]:
    """Cotangents of the inputs that can be differentiated again: the recorded steps are re-run with a graph."""
    substitution = Substitution(solved.problem, solved.captured, linked=True)
    y0, t = solved.problem.y0, solved.problem.t
    # an f that differentiates inside finds a state that has a gradient, as in a forward pass
    ends = [y0.view_as(y0) if y0.requires_grad else y0.detach().requires_grad_(), t.view_as(t)]
    problem = replace(solved.problem, field=substitution.field, y0=ends[0], t=ends[1])
    plan = replace(solved.plan, save=substitution.around(solved.plan.save))
    with solved.forward_context.restored():
        leaves = rerun(replace(solved, problem=problem, plan=plan))
    pairs = [(x, g) for x, g in zip(leaves, cotangents, strict=True) if g is not None and x.requires_grad]
    outputs, weights = [x for x, _ in pairs], [g for _, g in pairs]
    inputs = [*ends, *substitution.inputs]
    wanted = [x for x in inputs if x.requires_grad]
    if solved.strict:
        substitution.check(outputs, *ends)
    found = iter(torch.autograd.grad(outputs, wanted, weights, create_graph=True, allow_unused=True) if pairs else [])
    grads = [next(found, None) if x.requires_grad else None for x in inputs]
    return [*grads[:2], *substitution.collect(grads[2:])]


class Reverse:
    """One walk back through the record, adding up cotangents of the inputs."""

    def __init__(self, gradient: Replay, solved: Solved, cotangents: tuple[Tensor | None, ...]) -> None:
        problem = solved.problem
        self.t = problem.t.detach().requires_grad_() if problem.t.requires_grad else None
        self.substitution = Substitution(problem, solved.captured, linked=False)
        plan = replace(solved.plan, save=self.substitution.around(solved.plan.save))
        self.solved, self.cotangents = replace(solved, plan=plan), cotangents
        self.totals: list[Tensor | None] = [None] * len(self.substitution.inputs)
        self.t_total = None if self.t is None else torch.zeros_like(self.t)
        self.deviation: Tensor | None = None
        self.lingering: list[Tensor] = []  # cotangents of what the method remembers
        self.stagewise = gradient.memory == "stage"
        self.slack = _slack(problem)
        self.inexact = _inexactness(solved)

    def run(self) -> list[Tensor | None]:
        """Cotangents of y0, t and what f uses."""
        solved, plan = self.solved, self.solved.plan
        adjoint = self.pull_saved(outputs_at_end(solved), solved.record.y, torch.zeros_like(solved.record.y))
        for step_batch in reversed(solved.record.step_batches):
            own = adjoint if step_batch.rows is None else adjoint[step_batch.rows]
            own = self.back_over(step_batch, own)
            adjoint = own if step_batch.rows is None else adjoint.index_copy(0, step_batch.rows, own)
            self.lingering = [_spread(x, step_batch.rows, adjoint) for x in self.lingering]
        adjoint = self.pull_saved(outputs_at_start(solved), solved.problem.y0.detach(), adjoint)
        if plan.steps and self.cotangents[0] is not None:
            adjoint = adjoint + self.cotangents[0][0]
        self.check_deviation()
        return [adjoint, self.t_total, *self.substitution.collect(self.totals)]

    def back_over(self, step_batch: StepBatch, adjoint: Tensor) -> Tensor:
        """Back over the steps of a chunk, in stretches that begin with a kept state."""
        following, every = step_batch.end, self.solved.plan.every
        self.lingering = [x if step_batch.rows is None else x[step_batch.rows] for x in self.lingering]
        for first in reversed(range(0, len(step_batch.steps), every)):
            steps = step_batch.steps[first : first + every]
            states = self.states(step_batch, steps)
            for n in reversed(range(len(steps))):
                adjoint = self.back(
                    step_batch, steps[n], *states[n], following if n == len(steps) - 1 else None, adjoint
                )
            following = steps[0].y
        return adjoint

    def states(self, step_batch: StepBatch, steps: list[AcceptedStep]) -> list[tuple[Tensor, Any]]:
        """What these steps begin with (state and memory), of which only the first is kept."""
        states = [(steps[0].y, steps[0].method_state)]
        if len(steps) > 1:
            field = self.field(step_batch)
            bare = replace(self.solved, plan=Plan())
            with torch.no_grad():
                for step in steps[:-1]:
                    y, method_state = states[-1]
                    again = retake(bare, field, step_batch, step._replace(step_outputs=None), y, None, method_state)
                    states.append((again.y1, again.method_state))
                    self.count(1, False, method_state)
        return states

    def field(self, step_batch: StepBatch) -> Field:
        """The field of the rows of a chunk."""
        return self.substitution.field if step_batch.rows is None else self.substitution.field.take(step_batch.rows)

    def back(
        self,
        step_batch: StepBatch,
        step: AcceptedStep,
        y: Tensor,
        method_state: Any,
        following: Tensor | None,
        adjoint: Tensor,
    ) -> Tensor:
        """The vector–Jacobian product of one step; ``following`` is the state that was recorded after it."""
        solved, substitution = self.solved, self.substitution
        with torch.enable_grad():
            y = y.detach().requires_grad_()
            memory = [] if method_state is None else [x.detach().requires_grad_() for x in method_state.states]
            method_state = None if method_state is None else method_state._replace(states=tuple(memory))
            field = Checkpointed(self.field, step_batch, substitution) if self.stagewise else self.field(step_batch)
            y1, out, left = retake(solved, field, step_batch, step, y, self.t, method_state)
        self.count(1 + self.stagewise, step.step_outputs is not None or solved.plan.dense, method_state)
        if following is not None:
            self.compare(y.detach(), y1.detach(), following)
        outputs, weights = [y1], [adjoint]
        for x, weight in zip(() if left is None else left.states, self.lingering, strict=False):
            if x.requires_grad:
                outputs.append(x)
                weights.append(weight)
        for (leaf, where), x in zip(places(solved, step_batch, step), out, strict=True):
            cotangent = self.cotangents[leaf]
            if cotangent is not None and x.requires_grad:
                outputs.append(x)
                weights.append(cotangent[where].to(x.dtype))
        if solved.strict:
            substitution.check(outputs, y, self.t, *memory)
        return self.add(outputs, weights, y, memory)

    def count(self, times: int, inside: bool, method_state: Any) -> None:
        """Note the evaluations of a step taken again so many times."""
        self.solved.backward[0] += times * self.solved.method.evaluations_again(inside, method_state)

    def pull_saved(self, output_times: Tensor, y: Tensor, adjoint: Tensor) -> Tensor:
        """Add the cotangents of outputs that are the state y itself."""
        solved, problem = self.solved, self.solved.problem
        place = output_times.nonzero(as_tuple=True)
        given = [g for g in self.cotangents[: len(self.cotangents) - solved.plan.dense] if g is not None]
        if solved.plan.steps or not given or not len(place[0]):
            return adjoint
        rows = place[1] if problem.per_sample else None
        if solved.plan.save is None:
            picked = given[0][place].to(adjoint.dtype)
            return adjoint + picked.sum(0) if rows is None else adjoint.index_add(0, rows, picked)
        times = (problem.t.detach() if self.t is None else self.t).to(y.device)
        with torch.enable_grad():
            y = y.detach().requires_grad_()
            states = y[rows] if rows is not None else y.expand(len(place[0]), *y.shape)
            own = times[place] if rows is None else times[rows, place[0]]
            kept, _ = save_state(problem, solved.plan, own, states, rows)
        pairs = [
            (x, g[place]) for x, g in zip(kept, self.cotangents, strict=False) if g is not None and x.requires_grad
        ]
        if solved.strict:
            self.substitution.check([x for x, _ in pairs], y, self.t)
        return adjoint + self.add([x for x, _ in pairs], [g for _, g in pairs], y)

    def add(self, outputs: list[Tensor], weights: list[Tensor], y: Tensor, memory: Sequence[Tensor] = ()) -> Tensor:
        """Take a product, add what it gives the inputs to the totals, and return what it gives y.

        What it gives the memory of a method with one lingers until the step before.
        """
        inputs = [y, *memory, *([] if self.t is None else [self.t]), *self.substitution.inputs]
        grads = torch.autograd.grad(outputs, inputs, weights, allow_unused=True)
        first, rest = grads[1 : 1 + len(memory)], grads[1 + len(memory) :]
        self.lingering = [torch.zeros_like(x) if g is None else g for x, g in zip(memory, first, strict=True)]
        if self.t is not None:
            if rest[0] is not None:
                self.t_total = rest[0] if self.t_total is None else self.t_total + rest[0]
            rest = rest[1:]
        self.totals = [
            total if g is None else g.clone() if total is None else total.add_(g)
            for total, g in zip(self.totals, rest, strict=True)
        ]
        return torch.zeros_like(y) if grads[0] is None else grads[0]

    def compare(self, y: Tensor, y1: Tensor, recorded: Tensor) -> None:
        """Note on the device how far a step taken again is from the recorded one, against what may be rounding."""
        if not y1.numel():
            return
        move, size = torch.dist(recorded, y, torch.inf), torch.linalg.vector_norm(recorded, torch.inf)
        rtol, atol = self.inexact
        slack = self.slack * move + 100 * torch.finfo(y.dtype).eps * size + rtol * size + atol
        slack = self.solved.plan.every * slack
        excess = torch.dist(recorded, y1, torch.inf) - slack
        self.deviation = excess if self.deviation is None else torch.maximum(self.deviation, excess)

    def check_deviation(self) -> None:
        """Refuse what was not the same function going back."""
        if self.deviation is not None and not bool(self.deviation <= 0):
            raise GradientError(
                "f changed between forward and backward: dropout, BatchNorm, parameters updated in between? The steps "
                "taken again differ from the recorded ones. Make f a function of (t, y, args) during one solve."
            )


def _spread(x: Tensor, rows: Tensor | None, like: Tensor) -> Tensor:
    """What belongs to some rows, as of all of them."""
    return x if rows is None else x.new_zeros((len(like), *x.shape[1:])).index_copy(0, rows, x)


def _inexactness(solved: Solved) -> tuple[float, float]:
    """How far, relative to a state and absolutely, a method that iterates to a tolerance may be from its own step."""
    if not solved.controller.adaptive:
        return 0.0, 0.0
    whole = (
        solved.method.inexact * max(1, solved.problem.y0.numel()) ** 0.5
    )  # the norm is a mean, this is of any number
    rtol, atol = (float(x.max()) if isinstance(x, Tensor) else x for x in solved.tolerances)
    return whole * rtol, whole * atol


def _slack(problem: Problem) -> float:
    """The relative difference in f that different kernels may make: half the digits of the coarsest dtype at work."""
    field = problem.field
    coarsest = max(torch.finfo(leaf.dtype).eps for leaf in problem.layout.leaves)
    if field.dtype is not None:
        coarsest = max(coarsest, torch.finfo(field.dtype).eps)
    for kind in {"cpu", problem.layout.device.type}:
        if torch.amp.is_autocast_available(kind) and torch.is_autocast_enabled(kind):
            coarsest = max(coarsest, torch.finfo(torch.get_autocast_dtype(kind)).eps)
    if problem.layout.device.type == "cuda" and coarsest < 2**-10 and problem.layout.dtype.to_real() == torch.float32:
        coarsest = 2**-10  # TF32 products
    return coarsest**0.5
