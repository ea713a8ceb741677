"""Evaluations of f that keep their arguments only, and are made again when their product is asked for."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from neuralode.core.field import Field
from neuralode.core.record import Chunk
from neuralode.gradients.substitution import Isolation


class Checkpointed:
    """The field of a chunk, whose graph holds time and state of each evaluation, and none of its activations."""

    def __init__(self, field: Callable[[Chunk], Field], chunk: Chunk, apart: Isolation) -> None:
        self.field, self.chunk, self.apart = field, chunk, apart
        own = field(chunk)
        # what an implicit method asks for without a graph
        self.jacobian, self.linearised, self.coupled = own.jacobian, own.linearised, own.coupled

    def within(self, *bounds: Any) -> Checkpointed:
        """The same, asked at times within bounds only."""
        return Checkpointed(lambda chunk: self.field(chunk).within(*bounds), self.chunk, self.apart)

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
        return _Evaluation.apply(lambda: of(self.field(self.chunk)), self.apart, len(point), *point, *self.apart.inputs)


class _Evaluation(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, function: Callable[[], Callable[..., Tensor]], apart: Isolation, count: int, *inputs: Tensor
    ) -> Tensor:
        ctx.function, ctx.apart = function, apart
        point = inputs[:count]
        ctx.save_for_backward(*point)
        return function()(*(x.detach() for x in point))  # as in a forward pass: nothing to differentiate

    @staticmethod
    def backward(ctx: Any, *cotangents: Tensor) -> Any:
        apart: Isolation = ctx.apart
        with torch.enable_grad():
            point = tuple(x.detach().requires_grad_(x.requires_grad) for x in ctx.saved_tensors)
            answer = ctx.function()(*point)
        inputs = (*point, *apart.inputs)
        if not answer.requires_grad:
            return None, None, None, *(None for _ in inputs)
        apart.check([answer], *point)
        wanted = [x for x in inputs if x.requires_grad]
        grads = iter(torch.autograd.grad(answer, wanted, cotangents, allow_unused=True))
        return None, None, None, *(next(grads) if x.requires_grad else None for x in inputs)
