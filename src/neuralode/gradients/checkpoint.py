"""Evaluations of f that keep their arguments only, and are made again when their product is asked for."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.graph import Node

from neuralode.gradients.solved import check_leaves


class Checkpointed:
    """A field whose graph holds (t, y) of each evaluation, and none of its activations."""

    def __init__(self, field: Any, captured: list[Tensor], known: set[int], edges: set[Node]) -> None:
        self.field, self.captured, self.known, self.edges = field, captured, known, edges

    def __call__(self, t: Tensor, y: Tensor) -> Tensor:
        """Evaluate without a graph inside."""
        return _Evaluation.apply(self, t, y, *self.captured)


class _Evaluation(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, field: Checkpointed, t: Tensor, y: Tensor, *captured: Tensor) -> Tensor:
        ctx.field = field
        ctx.save_for_backward(t, y)
        return field.field(t, y)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, cotangent: Tensor) -> Any:
        field: Checkpointed = ctx.field
        with torch.enable_grad():
            t, y = (x.detach().requires_grad_(x.requires_grad) for x in ctx.saved_tensors)
            answer = field.field(t, y)
        check_leaves([answer], field.known | {id(t), id(y)}, field.edges)
        inputs = [x for x in (t, y, *field.captured) if x.requires_grad]
        grads = (
            iter(torch.autograd.grad(answer, inputs, cotangent, allow_unused=True))
            if answer.requires_grad
            else iter([None] * len(inputs))
        )
        return None, *(next(grads) if x.requires_grad else None for x in (t, y, *field.captured))
