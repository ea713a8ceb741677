"""Evaluating f with stand-ins for what it uses, so that partial derivatives come out and nothing is counted twice.

A tensor that f uses may be computed from another that f uses, or from y0 (an encoder's output and its weights, say).
Differentiating by both would count the path between them twice: once here, once by autograd outside. So arguments are
replaced by stand-ins, and tensors that f holds by itself are replaced as they enter a torch function.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from typing import Any

from torch import Tensor
from torch.autograd.graph import Node
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves, tree_map

from neuralode.problem import Problem


class Substitute(TorchFunctionMode):
    """While it is on, torch functions are given stand-ins for some tensors."""

    def __init__(self, stand_ins: dict[int, Tensor]) -> None:
        super().__init__()
        self.stand_ins = stand_ins

    def __torch_function__(self, func: Callable, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        args, kwargs = tree_map(self.swap, (args, kwargs or {}))
        return func(*args, **kwargs)

    def swap(self, x: Any) -> Any:
        """The stand-in for ``x``, or ``x``."""
        return self.stand_ins.get(id(x), x) if isinstance(x, Tensor) else x


class Isolation:
    """The stand-ins for the tensors that f uses.

    With ``linked`` every tensor gets an alias that autograd follows back to it (for derivatives that are differentiated
    again). Without, arguments and computed tensors get leaves of their own, and leaves stand for themselves.
    """

    def __init__(self, problem: Problem, captured: tuple[Tensor, ...], linked: bool) -> None:
        self.captured = captured
        self.inputs: list[Tensor] = []
        self.owners: list[int] = []
        passed = {id(x) for x in tree_leaves(problem.field.args) if isinstance(x, Tensor)}
        held: dict[int, Tensor] = {}
        arguments: dict[int, Tensor] = {}
        for owner, x in enumerate(captured):
            if linked or not x.is_leaf:
                held[id(x)] = _stand_in(x, linked)
            self.add(owner, held.get(id(x), x))
            if id(x) in passed:
                arguments[id(x)] = _stand_in(x, linked)
                self.add(owner, arguments[id(x)])
        self.field = replace(problem.field, args=tree_map(Substitute(arguments).swap, problem.field.args))
        self.mode = Substitute(held) if held else None
        self.known = {id(x) for x in self.inputs if x.is_leaf}
        self.edges: set[Node] = {x.grad_fn for x in self.inputs if x.grad_fn is not None}

    def add(self, owner: int, x: Tensor) -> None:
        """Differentiate by ``x`` on behalf of a captured tensor."""
        self.inputs.append(x)
        self.owners.append(owner)

    def on(self) -> AbstractContextManager:
        """Within, f meets the stand-ins."""
        return nullcontext() if self.mode is None else self.mode

    def collect(self, grads: Any) -> list[Tensor | None]:
        """Cotangents of the captured tensors from those of the inputs."""
        found: list[Tensor | None] = [None] * len(self.captured)
        for owner, g in zip(self.owners, grads, strict=True):
            if g is not None:
                found[owner] = g if found[owner] is None else found[owner] + g
        return found


def _stand_in(x: Tensor, linked: bool) -> Tensor:
    return x.view_as(x) if linked else x.detach().requires_grad_()
