"""Doses: jumps of the state at known times, read and checked; and what one of them does to a state."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float64, Int64
from torch import Tensor
from torch.utils._pytree import tree_flatten, tree_map

from neuralode.core.problem import Problem
from neuralode.core.times import read_times


@dataclass(frozen=True, eq=False)
class Dose:
    """At known times the state jumps.

    Parameters
    ----------
    t : float, sequence of float, Tensor[], Tensor[K] or (per sample) Tensor[rows, K]
        When, increasing. All within the span of the solve; in [rows, K], NaN and +inf stand for no dose.
    change : number, Tensor, pytree or callable
        What is added to the state: a number for all of it; a tensor or a pytree like y0, the same at every time; or
        one with a leading axis of length K, laid out like the outputs [K, *shape of the leaf] (or broadcasting against
        that). [K] is one number a time for the whole state, a leaf of a pytree may be any of these. Or a function
        ``change(t, y, *args)`` that returns the state after the dose, called as f is.

    Notes
    -----
    A state at the time of a dose is the one after it: in ``ys``, in the dense output, and at the last time. Only output
    0 is y0 itself, before a dose at the first time; a further output at the first time is after it. Doses of the same
    time are all given, in the order of the list they came in. Gradients reach times, amounts, and what a function uses.

    Examples
    --------
    Two doses of a drug that leaves at a rate of 1:

    >>> import torch, neuralode as node
    >>> empty = torch.zeros(1, dtype=torch.float64)
    >>> dose = node.Dose([0.0, 1.0], [2.0, 1.0])
    >>> sol = node.solve(lambda t, y: -y, empty, (0.0, 2.0), doses=dose, rtol=1e-8, atol=1e-8)
    >>> round(sol.y1.item(), 5)  # 2 exp(-2) + exp(-1)
    0.63855
    """

    t: Any
    change: Any


@dataclass(frozen=True, eq=False)
class Schedule:
    """All doses of a solve, clock by clock in the order of their times.

    Slot j of a clock is its j-th dose: when (infinite: it has none), of which `Dose`, and which of its times.
    ``amounts`` holds for each `Dose` the leaves [K, *leaf shape] that are added, or None for a function.
    """

    t: Float64[Tensor, "clocks slots"]
    which: Int64[Tensor, "clocks slots"]
    number: Int64[Tensor, "clocks slots"]
    doses: tuple[Dose, ...]
    amounts: tuple[list[Tensor] | None, ...]

    @property
    def slots(self) -> int:
        """The most doses that a clock has."""
        return self.t.shape[1]

    def given(self, slot: int, due: Tensor, t: Tensor, y: Any, problem: Problem) -> Any:
        """The state after the doses of one slot, on the clocks that have one ``due``."""
        if not problem.per_sample:
            which, number = int(self.which[0, slot]), int(self.number[0, slot])
            return self._changed(which, number, t[0], y, problem)
        which, number = self.which[:, slot].to(due.device), self.number[:, slot].to(due.device)
        for one in which[due].unique().tolist():
            mine = due & (which == one)
            new = self._changed(one, torch.where(mine, number, 0), t, y, problem)
            y = tree_map(lambda a, b, mine=mine: torch.where(by_row(mine, a), a, b), new, y)
        return y

    def _changed(self, which: int, number: Any, t: Tensor, y: Any, problem: Problem) -> Any:
        field, amounts = problem.field, self.amounts[which]
        if amounts is None:
            time = t.to(device=problem.layout.device, dtype=field.time_dtype)
            return _checked(which, self.doses[which].change(time, y, *field.args), y)
        leaves, spec = tree_flatten(y)
        rows = torch.arange(problem.layout.rows, device=problem.layout.device)
        picked = [x[number, rows] if isinstance(number, Tensor) else x[number] for x in amounts]
        return spec.unflatten([a + b for a, b in zip(leaves, picked, strict=True)])


def by_row(x: Tensor, like: Tensor) -> Tensor:
    """One entry a row, shaped to broadcast against a leaf."""
    return x.reshape(-1, *(1,) * (like.dim() - 1))


def schedule(doses: Any, problem: Problem) -> Schedule:
    """Read the doses that a user gave; refuses what cannot be given within the span."""
    found = tuple(doses) if isinstance(doses, (list, tuple)) else (doses,)
    for dose in found:
        if not isinstance(dose, Dose):
            raise TypeError(f"doses holds a {type(dose).__name__}; wanted Dose(t, change), or a list of these.")
    if problem.direction < 0:
        raise ValueError(
            "doses with decreasing t: going backwards, a jump would have to be undone. Wanted increasing times (with "
            "s = -t for time, f(t, y) becomes -f(-s, y), and a dose what undoes it)."
        )
    device = problem.t.device
    times = [_times(n, dose, problem).to(device) for n, dose in enumerate(found)]
    pairs = zip(found, times, strict=True)
    amounts = tuple(_amounts(n, dose.change, x.shape[1], problem) for n, (dose, x) in enumerate(pairs))
    counts = [x.shape[1] for x in times]
    clocks = problem.layout.rows if problem.per_sample else 1
    t = torch.cat([*times, problem.t.new_zeros((clocks, 0))], 1)
    missing = ~t.detach().isfinite()
    fixed = t.detach().masked_fill(missing, torch.inf)
    order = fixed.argsort(dim=1, stable=True)
    most = int((~missing).sum(1).max()) if t.numel() else 0
    order = order[:, :most]
    which = torch.cat([torch.full((count,), n) for n, count in enumerate(counts)] or [torch.zeros(0)]).long().to(device)
    number = torch.cat([torch.arange(count) for count in counts] or [torch.zeros(0)]).long().to(device)
    given = torch.where(missing, torch.inf, t).gather(1, order)
    return Schedule(given, which[order], number[order], found, amounts)


def _times(n: int, dose: Dose, problem: Problem) -> Tensor:
    """When: [clocks, K], checked."""
    if isinstance(dose.t, Tensor) and dose.t.shape[-1:] == (0,):
        return problem.t.new_zeros((problem.layout.rows if problem.per_sample else 1, 0))
    single = isinstance(dose.t, (int, float)) or (isinstance(dose.t, Tensor) and dose.t.dim() == 0)
    try:
        t = read_times([dose.t] if single else dose.t, problem.layout, problem.per_sample)
    except (TypeError, ValueError) as error:
        raise type(error)(f"Dose {n}: {error}") from error
    fixed = t.detach().reshape(-1, t.shape[-1])
    missing = fixed.isnan() | (fixed == torch.inf)
    own = problem.per_sample and isinstance(dose.t, Tensor) and dose.t.dim() == 2
    if not bool((fixed.isfinite() | (missing & own)).all()):
        raise ValueError(
            f"Dose {n}: t holds a time that is not finite: {fixed.tolist()}; wanted finite times (rows of their own, "
            "[rows, K] with per_sample=True, may be padded by NaN or inf)."
        )
    known = fixed.masked_fill(missing, -torch.inf)
    if bool(((known.cummax(1).values > fixed) & ~missing).any()):
        raise ValueError(f"Dose {n}: t is not sorted: {fixed.tolist()}; wanted times that increase or stay.")
    span = problem.t.detach().reshape(-1, problem.outputs).to(fixed.device)
    outside = ((fixed < span[:, :1]) | (fixed > span[:, -1:])) & ~missing
    if bool(outside.any()):
        row, place = outside.nonzero()[0].tolist()
        ends = span[row if len(span) > 1 else 0, [0, -1]].tolist()
        at = f" in row {row}" if problem.per_sample else ""
        raise ValueError(
            f"Dose {n}: t={fixed[row, place].item()}{at} lies outside of the solve, {ends[0]} to {ends[1]}; wanted "
            "doses within (rows of their own may have NaN for no dose)."
        )
    return t.reshape(-1, t.shape[-1])


def _amounts(n: int, change: Any, count: int, problem: Problem) -> list[Tensor] | None:
    """What is added, as leaves [K, *leaf shape]; None for a function."""
    if callable(change):
        return None
    layout = problem.layout
    if layout.spec.is_leaf() and isinstance(change, Sequence):
        change = _stacked(n, change)
    values = [change] * len(layout.leaves)
    if not isinstance(change, (int, float, complex, Tensor)):
        values, spec = tree_flatten(change)
        if spec != layout.spec:
            raise ValueError(
                f"Dose {n}: the change is a {type(change).__name__} whose structure is not that of y0; wanted a "
                "number, a tensor, a pytree like y0, or a function (t, y, *args)."
            )
    return [_amount(n, x, count, leaf, layout) for x, leaf in zip(values, layout.leaves, strict=True)]


def _stacked(n: int, change: Sequence[Any]) -> Tensor:
    """A list of amounts as one tensor."""
    try:
        parts = [x if isinstance(x, Tensor) else torch.as_tensor(x) for x in change]
        whole = any(x.is_complex() for x in parts)
        dtype = torch.complex128 if whole else torch.float64  # a number is not to be rounded to the default dtype
        return torch.stack([torch.as_tensor(x, dtype=dtype) for x in change])
    except (RuntimeError, TypeError, ValueError) as error:
        raise TypeError(
            f"Dose {n}: the change is a list that is no tensor ({str(error).splitlines()[0]}); wanted as many numbers, "
            "or tensors of one shape, as there are times."
        ) from error


def _amount(n: int, x: Any, count: int, leaf: Any, layout: Any) -> Tensor:
    own = (layout.rows, *leaf.shape) if layout.has_rows else tuple(leaf.shape)
    if not isinstance(x, (int, float, complex, Tensor)):
        raise TypeError(f"Dose {n}: the change holds a {type(x).__name__}; wanted numbers or tensors.")
    if not isinstance(x, Tensor):  # a number is not to be rounded to the default dtype
        x = torch.full((), x, dtype=torch.complex128 if isinstance(x, complex) else torch.float64)
    if x.is_complex() and not leaf.dtype.is_complex:
        raise TypeError(f"Dose {n}: the change is complex, the state {leaf.dtype}; wanted real amounts.")
    x = x.to(layout.dtype if x.dim() else leaf.dtype).to(device=layout.device if not x.dim() else x.device)
    each = x.dim() == len(own) + 1 and _broadcasts(x.shape, (count, *own))
    alike = x.dim() <= len(own) and _broadcasts(x.shape, own)
    numbers = x.shape == (count,) and len(own) > 0
    if numbers and alike and count > 1:
        raise ValueError(
            f"Dose {n}: a change of shape {list(x.shape)} may be one number for each of {count} times or one state "
            f"{list(own)} for all of them; wanted shape {[count, *own]}, as change.expand or change[:, None] give it."
        )
    if numbers and not alike and not each:
        x = x.reshape(-1, *(1,) * len(own))
    elif not (each or alike):
        raise ValueError(
            f"Dose {n}: the change has shape {list(x.shape)}; wanted {[count, *own]} (a leading axis for its {count} "
            f"times), {list(own)} (the same at all), [{count}], or a number."
        )
    return x.to(leaf.dtype).expand(count, *own)


def _broadcasts(shape: Sequence[int], whole: Sequence[int]) -> bool:
    try:
        return tuple(torch.broadcast_shapes(tuple(shape), tuple(whole))) == tuple(whole)
    except RuntimeError:
        return False


def _checked(n: int, answer: Any, y: Any) -> Any:
    """What a function made of the state, if it is one."""
    leaves, spec = tree_flatten(answer)
    old, wanted = tree_flatten(y)
    if spec != wanted or not all(isinstance(x, Tensor) for x in leaves):
        raise TypeError(f"Dose {n}: the function returned a {type(answer).__name__}; wanted a state like y.")
    for x, like in zip(leaves, old, strict=True):
        if x.shape != like.shape or x.dtype != like.dtype or x.device != like.device:
            raise ValueError(
                f"Dose {n}: the function returned {x.dtype} of shape {list(x.shape)} on {x.device}; wanted "
                f"{like.dtype} of shape {list(like.shape)} on {like.device}, as y has."
            )
    return answer
