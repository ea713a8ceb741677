"""Evaluations of f that keep their arguments only, and are made again when their product is asked for."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from neuralode.autodiff.substitution import Substitution
from neuralode.core.field import Field
from neuralode.core.record import StepBatch


class Checkpointed:
    """The field of a chunk, whose graph holds time and state of each evaluation, and none of its activations."""

    def __init__(self, field: Callable[[StepBatch], Field], step_batch: StepBatch, substitution: Substitution) -> None:
        self.field, self.step_batch, self.substitution = field, step_batch, substitution
        own = field(step_batch)
        # what an implicit method asks for without a graph
        self.jacobian, self.linearised, self.coupled = own.jacobian, own.linearised, own.coupled

    def within(self, *bounds: Any) -> Checkpointed:
        """The same, asked at times within bounds only."""
        return Checkpointed(
            lambda step_batch: self.field(step_batch).within(*bounds), self.step_batch, self.substitution
        )

    @property
    def halves(self) -> tuple[Callable[..., Tensor], Callable[..., Tensor]]:
        """What a method for pairs asks for, in the same way."""
        return (
            lambda *point: self._ask(lambda field: field.halves[0], *point),
            lambda *point: self._ask(lambda field: field.halves[1], *point),
        )

    def __call__(self, t: Tensor, y: Tensor) -> Tensor:
        """Evaluate without a graph inside."""
        return self._ask(lambda field: field, t, y)

    def _ask(self, of: Callable[[Field], Callable[..., Tensor]], *point: Tensor) -> Tensor:
        """One function of the field at time and state."""
        return _Evaluation.apply(
            lambda: of(self.field(self.step_batch)), self.substitution, len(point), *point, *self.substitution.inputs
        )


class _Evaluation(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, function: Callable[[], Callable[..., Tensor]], substitution: Substitution, count: int, *inputs: Tensor
    ) -> Tensor:
        ctx.function, ctx.substitution = function, substitution
        point = inputs[:count]
        ctx.save_for_backward(*point)
        return function()(*(x.detach() for x in point))  # as in a forward pass: nothing to differentiate

    @staticmethod
    def backward(ctx: Any, *cotangents: Tensor) -> Any:
        substitution: Substitution = ctx.substitution
        with torch.enable_grad():
            point = tuple(x.detach().requires_grad_(x.requires_grad) for x in ctx.saved_tensors)
            answer = ctx.function()(*point)
        inputs = (*point, *substitution.inputs)
        if not answer.requires_grad:
            return None, None, None, *(None for _ in inputs)
        substitution.check([answer], *point)
        wanted = [x for x in inputs if x.requires_grad]
        grads = iter(torch.autograd.grad(answer, wanted, cotangents, allow_unused=True))
        return None, None, None, *(next(grads) if x.requires_grad else None for x in inputs)
