"""Evaluations of f that keep their arguments only, and are made again when their product is asked for."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from neuralode.gradients.isolation import Isolation
from neuralode.gradients.solved import check_leaves
from neuralode.problem import Field
from neuralode.record import Chunk


class Checkpointed:
    """The field of a chunk, whose graph holds (t, y) of each evaluation, and none of its activations."""

    def __init__(self, field: Callable[[Chunk], Field], chunk: Chunk, apart: Isolation) -> None:
        self.field, self.chunk, self.apart = field, chunk, apart
        own = field(chunk)
        # what an implicit method asks for without a graph
        self.jacobian, self.linearised, self.coupled = own.jacobian, own.linearised, own.coupled

    def within(self, *bounds: Any) -> Checkpointed:
        """The same, asked at times within bounds only."""
        return Checkpointed(lambda chunk: self.field(chunk).within(*bounds), self.chunk, self.apart)

    def __call__(self, t: Tensor, y: Tensor) -> Tensor:
        """Evaluate without a graph inside."""
        return _Evaluation.apply(self, t, y, *self.apart.inputs)


class _Evaluation(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, point: Checkpointed, t: Tensor, y: Tensor, *inputs: Tensor) -> Tensor:
        ctx.point = point
        ctx.save_for_backward(t, y)
        return point.field(point.chunk)(t.detach(), y.detach())  # as in a forward pass: nothing to differentiate

    @staticmethod
    def backward(ctx: Any, *cotangents: Tensor) -> Any:
        point: Checkpointed = ctx.point
        apart = point.apart
        with torch.enable_grad(), apart.on():
            t, y = (x.detach().requires_grad_(x.requires_grad) for x in ctx.saved_tensors)
            answer = point.field(point.chunk)(t, y)
        if not answer.requires_grad:
            return None, *(None for _ in (t, y, *apart.inputs))
        check_leaves([answer], apart.known | {id(t), id(y)}, apart.edges)
        inputs = (t, y, *apart.inputs)
        wanted = [x for x in inputs if x.requires_grad]
        grads = iter(torch.autograd.grad(answer, wanted, cotangents, allow_unused=True))
        return None, *(next(grads) if x.requires_grad else None for x in inputs)
