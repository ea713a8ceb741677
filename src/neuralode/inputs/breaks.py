"""The control inputs of an f: those that it holds, and where those break that it uses."""

from __future__ import annotations

from contextlib import suppress
from functools import partial
from types import FunctionType, MethodType
from typing import Any

from torch import nn
from torch.utils._pytree import tree_leaves

from neuralode.inputs.interpolation import Break, Interpolation, bare
from neuralode.inputs.queries import Queries


def breaks_of(queries: Queries, held: list[Interpolation]) -> list[Break]:
    """Where paths break that were heard of; one that f holds and was not heard of may be asked for anything later."""
    uses: dict[int, set[str]] = {}
    paths = {id(u.key): u for u in held}
    for u, use in queries:
        uses.setdefault(id(u.key), set()).add(use)
        if bare(u.times) is not None:  # else it stands for one that is held
            paths.setdefault(id(u.key), u)
    return [u.breaks(uses.get(key, {"value", "slope"})) for key, u in paths.items() if u.stops]


def paths_in(f: Any, args: Any) -> list[Interpolation]:
    """The paths in arguments of f, and those that f holds: an attribute, bound by `functools.partial`, closed over."""
    found, seen, todo = _in_tree(args), set(), [f]
    while todo:
        x = todo.pop()
        if id(x) in seen:
            continue
        seen.add(id(x))
        if isinstance(x, partial):
            todo += [x.func, *_in_tree((x.args, x.keywords))]
        elif isinstance(x, Interpolation):
            found.append(x)
        elif isinstance(x, FunctionType):
            todo += [value for value in _enclosed(x) if isinstance(value, HOLDERS)]
        elif isinstance(x, MethodType):
            todo += [x.__self__, x.__func__]
        elif isinstance(x, nn.Module):
            todo += [value for module in x.modules() for value in vars(module).values() if isinstance(value, HOLDERS)]
        elif hasattr(x, "__dict__"):
            todo += [value for value in vars(x).values() if isinstance(value, HOLDERS)]
    return found


HOLDERS = (Interpolation, FunctionType, MethodType, partial, nn.Module)


def _in_tree(tree: Any) -> list[Interpolation]:
    leaves = tree_leaves(tree, is_leaf=lambda x: isinstance(x, Interpolation))
    return [x for x in leaves if isinstance(x, Interpolation)]


def _enclosed(f: FunctionType) -> list[Any]:
    """What a function closes over, names that are not yet bound left out."""
    found = []
    for cell in f.__closure__ or ():
        with suppress(ValueError):
            found.append(cell.cell_contents)
    return found
