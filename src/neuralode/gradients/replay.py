"""Replay: going back, take one recorded step at a time again, and its vector–Jacobian product.

Exact for the discrete map that the forward pass computed, at the memory of its states and of one step. (Discretise, then
optimise; Gholami, Keutzer & Biros, *ANODE*, 2019; Matsubara, Miyatake & Yaguchi, *Symplectic adjoint method*, 2021.)
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from torch import Tensor
from torch.autograd.graph import Node

from neuralode.gradients.checkpoint import Checkpointed
from neuralode.gradients.solved import Solved, check_leaves, end_marks, places, rerun, retake, start_marks
from neuralode.outputs import save_state
from neuralode.problem import Problem
from neuralode.record import Chunk, Plan, Taken
from neuralode.status import GradientError


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

    def __post_init__(self) -> None:
        if isinstance(self.every, bool) or not isinstance(self.every, int) or self.every < 1:
            raise ValueError(f"Replay(every={self.every!r}); wanted a whole number of at least 1.")
        if self.memory not in ("step", "stage"):
            raise ValueError(f"Replay(memory={self.memory!r}); wanted 'step' or 'stage'.")

    def plan(self, plan: Plan) -> Plan:
        """Keep the states before the steps."""
        return replace(plan, replay=True, every=self.every)

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
        with solved.ambient.restored():
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
    with solved.ambient.restored():
        leaves = rerun(solved)
    pairs = [(x, g) for x, g in zip(leaves, cotangents, strict=True) if g is not None and x.requires_grad]
    wanted = [x for x in solved.inputs if x.requires_grad]
    found = iter(
        torch.autograd.grad([x for x, _ in pairs], wanted, [g for _, g in pairs], create_graph=True, allow_unused=True)
        if pairs
        else [None] * len(wanted)
    )
    return [next(found) if x.requires_grad else None for x in solved.inputs]


class Reverse:
    """One walk back through the record, adding up cotangents of the inputs."""

    def __init__(self, gradient: Replay, solved: Solved, cotangents: tuple[Tensor | None, ...]) -> None:
        self.solved, self.cotangents = solved, cotangents
        problem = solved.problem
        self.t = problem.t.detach().requires_grad_() if problem.t.requires_grad else None
        self.captured = [x for x in solved.captured if x.requires_grad]
        self.totals: list[Tensor | None] = [None] * len(self.captured)
        self.t_total = None if self.t is None else torch.zeros_like(self.t)
        self.known = {id(x) for x in self.captured if x.is_leaf}
        self.edges: set[Node] = {x.grad_fn for x in self.captured if x.grad_fn is not None}
        self.deviation: Tensor | None = None
        self.stagewise = gradient.memory == "stage"

    def run(self) -> list[Tensor | None]:
        """Cotangents of y0, t and what f uses."""
        solved, plan = self.solved, self.solved.plan
        adjoint = self.pull_saved(end_marks(solved), solved.record.y, torch.zeros_like(solved.record.y))
        for chunk in reversed(solved.record.chunks):
            own = adjoint if chunk.rows is None else adjoint[chunk.rows]
            for first in reversed(range(0, len(chunk.steps), plan.every)):
                own = self.back_over(chunk, chunk.steps[first : first + plan.every], own)
            adjoint = own if chunk.rows is None else adjoint.index_copy(0, chunk.rows, own)
        adjoint = self.pull_saved(start_marks(solved), solved.problem.y0.detach(), adjoint)
        if plan.steps and self.cotangents[0] is not None:
            adjoint = adjoint + self.cotangents[0][0]
        self.check_deviation()
        by_id = {id(x): g for x, g in zip(self.captured, self.totals, strict=True)}
        return [adjoint, self.t_total, *(by_id.get(id(x)) for x in solved.captured)]

    def back_over(self, chunk: Chunk, steps: list[Taken], adjoint: Tensor) -> Tensor:
        """Back over steps of which the first has its state; the others are recomputed."""
        solved = self.solved
        field = solved.problem.field
        states = [steps[0].y]
        with torch.no_grad():
            own = field if chunk.rows is None else field.take(chunk.rows)
            bare = replace(solved, plan=Plan())
            for step in steps[:-1]:
                states.append(retake(bare, own, chunk, step._replace(reads=None), states[-1], None)[0])
        for step, y in zip(reversed(steps), reversed(states), strict=True):
            adjoint = self.back(chunk, step, y, adjoint)
        return adjoint

    def back(self, chunk: Chunk, step: Taken, y: Tensor, adjoint: Tensor) -> Tensor:
        """The vector–Jacobian product of one step."""
        solved = self.solved
        field = solved.problem.field
        with torch.enable_grad():
            y = y.detach().requires_grad_()
            field = field if chunk.rows is None else field.take(chunk.rows)
            if self.stagewise:
                field = Checkpointed(field, self.captured, self.known | {id(y)}, self.edges)
            y1, out = retake(solved, field, chunk, step, y, self.t)
        self.compare(step, y.detach(), y1.detach())
        outputs, weights = [y1], [adjoint]
        for (leaf, where), x in zip(places(solved, chunk, step), out, strict=True):
            cotangent = self.cotangents[leaf]
            if cotangent is not None and x.requires_grad:
                outputs.append(x)
                weights.append(cotangent[where].to(x.dtype))
        if not self.stagewise:
            check_leaves(outputs, self.known | {id(y), id(self.t)}, self.edges)
        return self.add(outputs, weights, y)

    def pull_saved(self, marks: Tensor, y: Tensor, adjoint: Tensor) -> Tensor:
        """Add the cotangents of outputs that are the state y itself."""
        solved, problem = self.solved, self.solved.problem
        place = marks.nonzero(as_tuple=True)
        given = [g for g in self.cotangents[: len(self.cotangents) - solved.plan.dense] if g is not None]
        if solved.plan.steps or not given or not len(place[0]):
            return adjoint
        rows = place[1] if problem.per_sample else None
        if solved.plan.save is None:
            picked = given[0][place].to(adjoint.dtype)
            return adjoint + picked.sum(0) if rows is None else adjoint.index_add(0, rows, picked)
        times = problem.t.detach().to(y.device)
        with torch.enable_grad():
            y = y.detach().requires_grad_()
            states = y[rows] if rows is not None else y.expand(len(place[0]), *y.shape)
            own = times[place] if rows is None else times[rows, place[0]]
            kept, _ = save_state(problem, solved.plan, own, states, rows)
        pairs = [(x, g[place]) for x, g in zip(kept, self.cotangents, strict=False) if g is not None and x.requires_grad]
        return adjoint + self.add([x for x, _ in pairs], [g for _, g in pairs], y)

    def add(self, outputs: list[Tensor], weights: list[Tensor], y: Tensor) -> Tensor:
        """Take a product, add what it gives the inputs to the totals, and return what it gives y."""
        inputs = [y, *([] if self.t is None else [self.t]), *self.captured]
        grads = torch.autograd.grad(outputs, inputs, weights, allow_unused=True)
        rest = grads[1:]
        if self.t is not None:
            if rest[0] is not None:
                self.t_total += rest[0]
            rest = rest[1:]
        self.totals = [
            total if g is None else g.clone() if total is None else total.add_(g)
            for total, g in zip(self.totals, rest, strict=True)
        ]
        return torch.zeros_like(y) if grads[0] is None else grads[0]

    def compare(self, step: Taken, y: Tensor, y1: Tensor) -> None:
        """Note on the device how far a step taken again is from the recorded one, against what may be rounding."""
        if step.y1 is None or not y1.numel():
            return
        move, size = torch.dist(step.y1, y, torch.inf), torch.linalg.vector_norm(step.y1, torch.inf)
        slack = _slack(self.solved.problem) * move + 100 * torch.finfo(y.dtype).eps * size
        excess = torch.dist(step.y1, y1, torch.inf) - slack
        self.deviation = excess if self.deviation is None else torch.maximum(self.deviation, excess)

    def check_deviation(self) -> None:
        """Refuse what was not the same function going back."""
        if self.deviation is not None and not bool(self.deviation <= 0):
            raise GradientError(
                "f changed between forward and backward: dropout, BatchNorm, parameters updated in between? The steps "
                "taken again differ from the recorded ones. Make f a function of (t, y, args) during one solve."
            )


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
