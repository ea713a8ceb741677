"""Evaluate f with proxies for the tensors that it uses, so that partial derivatives count nothing twice.

A tensor that f uses may be computed from another one that f uses, or from y0 (an encoder's output and its weights).
Differentiating by both would count the path between them twice: once here and once by autograd outside. Therefore
arguments are replaced by proxies, and tensors that f holds are replaced when they enter a torch function.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import replace
from typing import overload

import torch
from torch import Tensor
from torch.autograd.graph import Node
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves, tree_map

from neuralode.core.problem import Problem
from neuralode.core.separable import Separable
from neuralode.core.status import GradientError
from neuralode.core.types import PyTree, UserFunction

# Types without tensors: returned without a search.
PLAIN = (int, float, str, type(None), type(...), slice, torch.dtype, torch.device)


class Substitute(TorchFunctionMode):
    """Replace some tensors by proxies in every torch function."""

    def __init__(self, proxies: dict[int, Tensor]) -> None:
        super().__init__()
        self.proxies = proxies

    def __torch_function__(
        self, func: Callable, types: Collection[type], args: tuple = (), kwargs: dict[str, object] | None = None
    ) -> PyTree:
        if kwargs:
            return func(*map(self.swap, args), **{name: self.swap(x) for name, x in kwargs.items()})
        return func(*map(self.swap, args))

    def swap(self, x: PyTree) -> PyTree:
        """Return the proxy of ``x``, ``x`` itself, or a container with proxies."""
        if isinstance(x, Tensor):
            return self.proxies.get(id(x), x)
        if isinstance(x, PLAIN):  # a fast path: called for every argument of every operation of f
            return x
        return type(x)(map(self.swap, x)) if type(x) in (tuple, list) else tree_map(self._leaf, x)

    def _leaf(self, x: object) -> object:
        return self.proxies.get(id(x), x) if isinstance(x, Tensor) else x


class Substitution:
    """The proxies of the tensors that f uses.

    Parameters
    ----------
    problem : Problem
        The problem, whose ``captured`` tensors get proxies.
    linked : bool
        Whether proxies are views with a graph, for second derivatives. Otherwise arguments and computed tensors get new
        leaves as proxies, and leaves are their own proxies.
    """

    def __init__(self, problem: Problem, *, linked: bool) -> None:
        captured = problem.captured or ()
        self.captured = captured
        self.inputs: list[Tensor] = []
        self.owners: list[int] = []
        passed = {id(x) for x in tree_leaves(problem.field.args) if isinstance(x, Tensor)}
        held: dict[int, Tensor] = {}
        arguments: dict[int, Tensor] = {}
        for owner, x in enumerate(captured):
            if linked or not x.is_leaf:
                held[id(x)] = _proxy(x, linked)
            self.add(owner, held.get(id(x), x))
            if id(x) in passed:
                arguments[id(x)] = _proxy(x, linked)
                self.add(owner, arguments[id(x)])
        self.mode = Substitute(held) if held else None
        args = tuple(map(Substitute(arguments).swap, problem.field.args))
        self.field = replace(problem.field, f=self.around(problem.field.f), args=args)
        self.known = {id(x) for x in self.inputs if x.is_leaf}
        self.edges: set[Node] = {x.grad_fn for x in self.inputs if x.grad_fn is not None}
        self.originals: set[Node] = {x.grad_fn for x in captured if x.grad_fn is not None}

    def add(self, owner: int, x: Tensor) -> None:
        """Differentiate by ``x`` for a captured tensor."""
        self.inputs.append(x)
        self.owners.append(owner)

    @overload
    def around(self, function: UserFunction) -> UserFunction: ...
    @overload
    def around(self, function: None) -> None: ...
    def around(self, function: UserFunction | None) -> UserFunction | None:
        """Wrap a function of the user so that it uses the proxies; None stays None."""
        mode = self.mode
        if function is None or mode is None:
            return function
        if isinstance(function, Separable):
            return Separable(self.around(function.velocity), self.around(function.force))

        def with_proxies(*args: PyTree) -> PyTree:
            with mode:
                return mode.swap(function(*args))  # a tensor that is returned unchanged has entered no torch function

        return with_proxies

    def check(self, outputs: Iterable[Tensor], *others: Tensor | None) -> None:
        """Refuse a graph that reaches a tensor which is neither an input nor one of ``others``."""
        known = self.known | {id(x) for x in others}
        edges = self.edges | {x.grad_fn for x in others if x is not None and x.grad_fn is not None}
        check_graph(outputs, known=known, edges=edges, originals=self.originals)

    def collect(self, grads: Sequence[Tensor | None]) -> list[Tensor | None]:
        """Return the cotangents of the captured tensors from those of the inputs."""
        totals: list[Tensor | None] = [None] * len(self.captured)
        for owner, g in zip(self.owners, grads, strict=True):
            if g is not None:
                total = totals[owner]
                totals[owner] = g if total is None else total + g
        return totals


def _proxy(x: Tensor, linked: bool) -> Tensor:
    return x.view_as(x) if linked else x.detach().requires_grad_()


def check_graph(outputs: Iterable[Tensor], *, known: set[int], edges: set[Node], originals: set[Node]) -> None:
    """Refuse a graph that would give a wrong gradient.

    It is wrong if the graph reaches a leaf that is not ``known`` (its gradient would be lost), or one of the
    ``originals``, nodes of tensors that f should have received as proxies (their inputs would be counted twice).
    """
    todo = [x.grad_fn for x in outputs if x.grad_fn is not None]
    seen = set(todo)
    while todo:
        node = todo.pop()
        if node in originals and node not in edges:
            raise GradientError(
                "f passes a tensor that was computed before the solve to a function that is not one of torch, such as "
                "the apply of a torch.autograd.Function, where it cannot be followed. Pass it in args=(...)."
            )
        leaf = getattr(node, "variable", None)
        if leaf is not None and id(leaf) not in known:
            raise GradientError(
                f"f uses a differentiable tensor of shape {list(leaf.shape)} that it did not use at the first "
                "evaluation, so its gradient would be lost. Pass it in args=(...), or make f a torch.nn.Module that "
                "holds it."
            )
        for following, _ in node.next_functions:
            if following is not None and following not in seen and following not in edges:
                seen.add(following)
                todo.append(following)
