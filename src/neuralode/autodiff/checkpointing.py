"""Checkpointed evaluations of f: keep the arguments only, and evaluate again for the vector–Jacobian product."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from neuralode.autodiff.substitution import Substitution
from neuralode.core.clock import Number
from neuralode.core.field import Field
from neuralode.core.record import StepBatch, StepEdges


class Checkpointed:
    """The field of some rows, whose graph holds the time and state of each evaluation but no activations."""

    def __init__(self, field: Callable[[StepBatch], Field], batch: StepBatch, substitution: Substitution) -> None:
        self.field, self.batch, self.substitution = field, batch, substitution
        plain = field(batch)
        # For implicit methods, without a graph.
        self.jacobian, self.linearised, self.coupled = plain.jacobian, plain.linearised, plain.coupled

    def within(self, t: Number, edges: StepEdges) -> Checkpointed:
        """Return the field of one step (see `Field.within`)."""
        return Checkpointed(lambda batch: self.field(batch).within(t, edges), self.batch, self.substitution)

    @property
    def halves(self) -> tuple[Callable[..., Tensor], Callable[..., Tensor]]:
        """The slopes of both halves of a pair (see `Field.halves`)."""
        return (
            lambda *point: self._evaluate(lambda field: field.halves[0], *point),
            lambda *point: self._evaluate(lambda field: field.halves[1], *point),
        )

    def __call__(self, t: Tensor, y: Tensor) -> Tensor:
        """Evaluate without storing activations."""
        return self._evaluate(lambda field: field, t, y)

    def _evaluate(self, part: Callable[[Field], Callable[..., Tensor]], *point: Tensor) -> Tensor:
        """Evaluate a function of the field at a time and state."""
        call = _Call(lambda: part(self.field(self.batch)), self.substitution, len(point))
        return _Evaluation.apply(call, *point, *self.substitution.inputs)


class _Call(NamedTuple):
    """A function that is evaluated, and the number of its arguments."""

    function: Callable[[], Callable[..., Tensor]]
    substitution: Substitution
    arguments: int


class _Evaluation(torch.autograd.Function):
    """An evaluation whose backward pass evaluates again.

    ``ctx`` is `Any` here and in other autograd functions: it holds any attribute.
    """

    @staticmethod
    def forward(ctx: Any, call: _Call, *inputs: Tensor) -> Tensor:
        ctx.call = call
        point = inputs[: call.arguments]
        ctx.save_for_backward(*point)
        return call.function()(*(x.detach() for x in point))  # without a graph

    @staticmethod
    def backward(ctx: Any, *cotangents: Tensor) -> tuple[Tensor | None, ...]:
        call: _Call = ctx.call
        with torch.enable_grad():
            point = tuple(x.detach().requires_grad_(x.requires_grad) for x in ctx.saved_tensors)
            slope = call.function()(*point)
        inputs = (*point, *call.substitution.inputs)
        if not slope.requires_grad:
            return None, *(None for _ in inputs)
        call.substitution.check([slope], *point)
        differentiable = [x for x in inputs if x.requires_grad]
        grads = iter(torch.autograd.grad(slope, differentiable, cotangents, allow_unused=True))
        return None, *(next(grads) if x.requires_grad else None for x in inputs)
