"""Find the tensors and modules that f uses."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator
from functools import partial
from types import CellType

import torch
from torch import Tensor, nn
from torch._C._functorch import is_functorch_wrapped_tensor
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_iter

from neuralode.core.separable import Separable
from neuralode.core.types import PyTree


def modules_of(f: object) -> list[nn.Module]:
    """Return the modules of f: f itself, the owner of a bound method, or those in its closure."""
    while isinstance(f, partial):
        f = f.func
    if isinstance(f, Separable):
        parts = [part for part in (f.velocity, f.force) if not isinstance(part, nn.Module)]
        return [f, *(module for part in parts for module in modules_of(part))]
    if isinstance(f, nn.Module):
        return [f]
    if isinstance(owner := getattr(f, "__self__", None), nn.Module):
        return [owner]
    cells: tuple[CellType, ...] = getattr(f, "__closure__", None) or ()
    try:
        contents = [cell.cell_contents for cell in cells]
    except ValueError:  # a name that is not bound yet
        return []
    return [x for x in contents if isinstance(x, nn.Module)]


def watch(evaluate: Callable[[], PyTree]) -> tuple[PyTree, list[Tensor]]:
    """Evaluate without a graph; return the result and the differentiable tensors that the evaluation used."""
    with torch.no_grad(), Watch() as mode:
        result = evaluate()
    for x in tree_iter(result):
        if isinstance(x, Tensor):
            mode.add(x)  # a tensor that is returned unchanged has entered no torch function
    return result, list(mode.captured.values())


class Watch(TorchFunctionMode):
    """Collect the differentiable tensors that torch functions receive, except results of functions in this mode."""

    def __init__(self) -> None:
        super().__init__()
        self.inside: dict[int, Tensor] = {}  # results, kept alive so that their ids are not reused
        self.captured: dict[int, Tensor] = {}

    def __torch_function__(
        self, func: Callable, types: Collection[type], args: tuple = (), kwargs: dict[str, object] | None = None
    ) -> PyTree:
        for x in _tensors((*args, *kwargs.values()) if kwargs else args):
            self.add(x)
        result = func(*args, **(kwargs or {}))
        for x in _tensors((result,)):
            if id(x) not in self.captured:
                self.inside[id(x)] = x
        return result

    def add(self, x: Tensor) -> None:
        """Collect a tensor if it is differentiable and was made outside of this mode."""
        if id(x) not in self.inside and x.requires_grad and not is_functorch_wrapped_tensor(x):
            self.captured[id(x)] = x


def _tensors(values: Iterable[PyTree]) -> Iterator[Tensor]:
    """Yield the tensors among arguments, and those in containers."""
    for x in values:
        if isinstance(x, Tensor):
            yield x
        elif isinstance(x, (list, tuple, dict)):
            yield from (leaf for leaf in tree_iter(x) if isinstance(leaf, Tensor))
