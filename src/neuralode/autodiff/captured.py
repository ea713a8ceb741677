"""Find the tensors and modules that f uses."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch._C._functorch import is_functorch_wrapped_tensor
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_iter

from neuralode.core.separable import Separable


def modules_of(f: Any) -> list[nn.Module]:
    """The modules that f is, is a method of, or closes over."""
    while isinstance(f, partial):
        f = f.func
    if isinstance(f, Separable):
        parts = [part for part in (f.velocity, f.force) if not isinstance(part, nn.Module)]
        return [f, *(module for part in parts for module in modules_of(part))]
    if isinstance(f, nn.Module):
        return [f]
    if isinstance(owner := getattr(f, "__self__", None), nn.Module):
        return [owner]
    cells = getattr(f, "__closure__", None) or ()
    held = [cell.cell_contents for cell in cells if cell.cell_contents is not f] if _filled(cells) else []
    return [x for x in held if isinstance(x, nn.Module)]


def _filled(cells: Any) -> bool:
    try:
        return all(cell.cell_contents is not cells for cell in cells)
    except ValueError:  # a name not yet bound
        return False


class Watch(TorchFunctionMode):
    """Notes the differentiable tensors that enter from outside while it is on.

    Tensors made while watching are not from outside.
    """

    def __init__(self) -> None:
        super().__init__()
        self.inside: dict[int, Tensor] = {}  # holding them keeps their ids from being used again
        self.found: dict[int, Tensor] = {}

    def __torch_function__(self, func: Callable, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        for x in _tensors((*args, *kwargs.values()) if kwargs else args):
            self.note(x)
        result = func(*args, **(kwargs or {}))
        for x in _tensors((result,)):
            if id(x) not in self.found:
                self.inside[id(x)] = x
        return result

    def note(self, x: Any) -> None:
        """Keep what is a differentiable tensor from outside."""
        if isinstance(x, Tensor) and id(x) not in self.inside and _differentiable(x):
            self.found[id(x)] = x


def _tensors(values: Iterable[Any]) -> Iterator[Tensor]:
    """Yield the tensors among arguments, and those in containers."""
    for x in values:
        if isinstance(x, Tensor):
            yield x
        elif isinstance(x, (list, tuple, dict)):
            yield from (leaf for leaf in tree_iter(x) if isinstance(leaf, Tensor))


def _differentiable(x: Tensor) -> bool:
    return x.requires_grad and not is_functorch_wrapped_tensor(x)


def watch(evaluate: Callable[[], Any]) -> tuple[Any, list[Tensor]]:
    """Evaluate without a graph; also return the differentiable tensors that it used."""
    with torch.no_grad(), Watch() as seen:
        answer = evaluate()
    for x in tree_iter(answer):
        seen.note(x)  # what is returned as it is has met no operation
    return answer, list(seen.found.values())
