"""Find the control inputs that f uses, and the times at which they break."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from functools import partial
from types import FunctionType, MethodType

from torch import nn
from torch.utils._pytree import tree_leaves

from neuralode.core.types import UserFunction
from neuralode.inputs.interpolation import Breakpoints, Interpolation
from neuralode.inputs.interpolation_queries import Quantity, Query
from neuralode.inputs.transformed_tensors import unwrapped

HOLDERS = (Interpolation, FunctionType, MethodType, partial, nn.Module)


def find_breakpoints(f: UserFunction, args: tuple, queries: Sequence[Query]) -> list[Breakpoints]:
    """Return the breakpoints of all interpolations that f evaluates or holds.

    Parameters
    ----------
    f : callable
        The function that was evaluated once.
    args : tuple
        Its further arguments.
    queries : sequence of Query
        Evaluations of interpolations, recorded during that evaluation. An interpolation that f holds and did not
        evaluate may be evaluated later, in either way.
    """
    used: dict[int, set[Quantity]] = {}
    interpolations = {id(u.key): u for u in held_interpolations(f, args)}
    for u, quantity in queries:
        used.setdefault(id(u.key), set()).add(quantity)
        if unwrapped(u.times) is not None:  # otherwise it is a batched copy of one that f holds
            interpolations.setdefault(id(u.key), u)
    return [u.breakpoints(used.get(key, {"value", "derivative"})) for key, u in interpolations.items() if u.stops]


def held_interpolations(f: UserFunction, args: tuple) -> list[Interpolation]:
    """Return the interpolations in ``args``, and those that f has as attributes, bound by `partial` or closes over."""
    interpolations, seen, pending = _in_tree(args), set(), [f]
    while pending:
        x = pending.pop()
        if id(x) in seen:
            continue
        seen.add(id(x))
        if isinstance(x, partial):
            pending += [x.func, *_in_tree((x.args, x.keywords))]
        elif isinstance(x, Interpolation):
            interpolations.append(x)
        elif isinstance(x, FunctionType):
            pending += [value for value in _closure(x) if isinstance(value, HOLDERS)]
        elif isinstance(x, MethodType):
            pending += [x.__self__, x.__func__]
        elif isinstance(x, nn.Module):
            pending += [v for module in x.modules() for v in vars(module).values() if isinstance(v, HOLDERS)]
        elif hasattr(x, "__dict__"):
            pending += [value for value in vars(x).values() if isinstance(value, HOLDERS)]
    return interpolations


def _in_tree(tree: object) -> list[Interpolation]:
    leaves = tree_leaves(tree, is_leaf=lambda x: isinstance(x, Interpolation))
    return [x for x in leaves if isinstance(x, Interpolation)]


def _closure(f: FunctionType) -> list[object]:
    """Return the objects that a function closes over, except names that are not bound yet."""
    values = []
    for cell in f.__closure__ or ():
        with suppress(ValueError):
            values.append(cell.cell_contents)
    return values
