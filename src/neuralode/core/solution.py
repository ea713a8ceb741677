"""The result of a solve."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import reduce

import torch
from torch import Tensor
from torch.utils._pytree import tree_flatten, tree_leaves, tree_map

from neuralode.core.clock import Number
from neuralode.core.dense_output import DenseOutput
from neuralode.core.record import CallCount
from neuralode.core.status import MAX_STEPS
from neuralode.core.times import Times
from neuralode.core.types import PyTree


@dataclass(frozen=True)
class Stats:
    """The cost of a solve.

    Attributes
    ----------
    evaluations : Tensor[rows]
        Evaluations of f that each row took part in: those before the first step, and the declared cost of attempts.
    accepted, rejected : Tensor[rows]
        Accepted and rejected attempts of each row.
    calls : int
        Calls of f, each for a whole batch, including those that check f.
    """

    calls: int
    _rows: int = field(repr=False)
    _clocks: tuple[Number, Number, Number] = field(repr=False)  # evaluations, accepted, rejected of each clock
    _backward: tuple[CallCount, ...] = field(default=(), repr=False)  # grow while gradients are taken

    @property
    def evaluations(self) -> Tensor:
        """Evaluations of f that each row took part in."""
        return torch.as_tensor(self._clocks[0]).expand(self._rows)

    @property
    def accepted(self) -> Tensor:
        """Accepted attempts of each row."""
        return torch.as_tensor(self._clocks[1]).expand(self._rows)

    @property
    def rejected(self) -> Tensor:
        """Rejected attempts of each row."""
        return torch.as_tensor(self._clocks[2]).expand(self._rows)

    @property
    def backward_evaluations(self) -> int:
        """Evaluations of f that gradients of this solve have made so far."""
        return sum(count.value for count in self._backward)


@dataclass(frozen=True)
class Occurrences:
    """The zeros of an event function.

    Attributes
    ----------
    t : Tensor[N]
        Times in float64, ordered by row and time.
    y : pytree
        The states there: each leaf has a leading axis of length N. With ``per_sample`` each entry is one row.
    rows : Tensor[N] or None
        The row of each zero, with ``per_sample``.
    """

    t: Tensor
    y: PyTree
    rows: Tensor | None = None

    def __len__(self) -> int:
        return len(self.t)


@dataclass(frozen=True)
class Solution:
    """The states at the output times, with status and statistics.

    Attributes
    ----------
    ts : Tensor[T] or Tensor[rows, T]
        Output times in float64. Those after a terminal event are its time.
    ys : pytree
        Each leaf has a leading axis of length T and then the shape of its leaf in y0; ``ys[0]`` is y0 itself. With
        ``save=function``, the values of the function, stacked in the same way.
    status : Tensor[rows]
        A `Status` for each row (a single one if the state has no rows).
    stats : Stats
        Evaluations and steps.
    events : tuple of Occurrences
        The zeros of each event function.

    Examples
    --------
    >>> import torch, neuralode as node
    >>> sol = node.solve(lambda t, y: -y, torch.ones(2, 1), (0.0, 1.0), dense=True)
    >>> sol.success, sol.ys.shape
    (True, torch.Size([2, 2, 1]))
    >>> abs(sol(0.5)[0].item() - 0.60653) < 1e-3
    True
    """

    ts: Tensor
    ys: PyTree
    status: Tensor
    stats: Stats
    events: tuple[Occurrences, ...] = ()
    dense: DenseOutput | None = field(default=None, repr=False)
    _continue: Callable[[PyTree, Times], Solution] | None = field(default=None, repr=False)

    @property
    def success(self) -> bool:
        """Whether every row reached its end or a terminal event."""
        return bool((self.status < MAX_STEPS).all())

    @property
    def y1(self) -> PyTree:
        """The last output."""
        return tree_map(lambda leaf: leaf[-1], self.ys)

    def __call__(self, t: float | Tensor) -> PyTree:
        """Evaluate the solution at any time between its ends, with the dense output of the method.

        Parameters
        ----------
        t : float, Tensor[], Tensor[Q] or (per sample) Tensor[rows, Q]
            Times within the span.

        Returns
        -------
        pytree
            States; with a leading axis Q unless ``t`` is a single time.

        Raises
        ------
        ValueError
            If the solve had no ``dense=True``, or a time lies outside of its span.
        """
        if self.dense is None:
            raise ValueError("this solution has no dense output; wanted solve(..., dense=True).")
        times = torch.as_tensor(t)
        if not times.is_floating_point() and not isinstance(t, int):
            raise TypeError(f"t has dtype {times.dtype}; wanted floating times.")
        times = times.to(device=self.ts.device, dtype=torch.float64)
        self._check_span(times)
        y = self.dense(times.reshape(1) if times.dim() == 0 else times)
        return self.dense.layout.unpack(y[0] if times.dim() == 0 else y)

    def _check_span(self, times: Tensor) -> None:
        ends = self.ts.detach()[..., [0, -1]]
        low, high = ends.amin(-1), ends.amax(-1)
        if times.dim() == 2 or low.dim():
            low, high = low.reshape(-1, 1), high.reshape(-1, 1)
        if bool(((times < low) | (times > high)).any()):
            raise ValueError(
                f"t={times.tolist()} lies outside the span of the solution, {low.flatten().tolist()} to "
                f"{high.flatten().tolist()}; wanted times within, or sol.extend(t2) first."
            )

    def extend(self, t2: float | Tensor) -> Solution:
        """Continue the solve to ``t2`` with the last step size, and return the solution at old and new times.

        Parameters
        ----------
        t2 : float, Tensor[] or Tensor[T2]
            One or several further times, in the direction of the solve.

        Returns
        -------
        Solution
            The outputs and statistics of both; dense over both if this one is dense.

        Examples
        --------
        >>> import torch, neuralode as node
        >>> sol = node.solve(lambda t, y: -y, torch.ones(1, dtype=torch.float64), (0.0, 1.0))
        >>> sol.extend(2.0).ts.tolist()
        [0.0, 1.0, 2.0]
        """
        if self._continue is None:
            raise ValueError(
                "this solution cannot be extended; wanted a successful solve with states as outputs (save=None) and "
                "another controller than Given."
            )
        end = self.ts[..., -1:]
        if isinstance(t2, (int, float)):
            t2 = torch.tensor(float(t2), dtype=torch.float64)
        if not isinstance(t2, Tensor) or not t2.is_floating_point():
            raise TypeError(f"t2 is {t2!r}; wanted a number or a floating tensor of further times.")
        t2 = t2.to(device=end.device, dtype=torch.float64)
        further = t2.reshape(1) if t2.dim() == 0 else t2
        if end.dim() == 2 and further.dim() == 1:
            further = further.expand(len(end), -1)
        times = self.ts.detach()
        span, ahead = times[..., -1] - times[..., 0], (further - end).detach()
        if bool((ahead * span.sign()[..., None] < 0).any()):
            raise ValueError(f"t2={t2.tolist()} lies before the end {end.tolist()}; wanted times beyond it.")
        return join([self, self._continue(self.y1, torch.cat((end, further), -1))])


def join(parts: Sequence[Solution]) -> Solution:
    """Join solutions, each of which begins where the one before ends."""
    first, *others = parts
    ys = [tree_leaves(part.ys) for part in others]
    leaves, spec = tree_flatten(first.ys)
    dense = [part.dense for part in parts if part.dense is not None]
    return Solution(
        ts=torch.cat((first.ts, *(part.ts[..., 1:] for part in others)), -1),
        ys=spec.unflatten([torch.cat((x, *(y[n][1:] for y in ys))) for n, x in enumerate(leaves)]),
        status=parts[-1].status,
        events=tuple(reduce(_concatenated, found) for found in zip(*(part.events for part in parts), strict=True)),
        stats=_total([part.stats for part in parts]),
        dense=dense[0].then(*dense[1:]) if len(dense) == len(parts) else None,
        _continue=parts[-1]._continue,
    )


def _concatenated(first: Occurrences, second: Occurrences) -> Occurrences:
    """Concatenate occurrences, ordered by row where rows have clocks."""
    t, y = torch.cat((first.t, second.t)), tree_map(lambda a, b: torch.cat((a, b)), first.y, second.y)
    if first.rows is None or second.rows is None:
        return Occurrences(t, y)
    rows = torch.cat((first.rows, second.rows))
    order = rows.argsort(stable=True)
    return Occurrences(t[order], tree_map(lambda x: x[order], y), rows[order])


def _total(parts: Sequence[Stats]) -> Stats:
    """Add up statistics."""
    evaluations, accepted, rejected = zip(*(part._clocks for part in parts), strict=True)
    return Stats(
        calls=sum(part.calls for part in parts),
        _rows=parts[0]._rows,
        _clocks=(sum(evaluations), sum(accepted), sum(rejected)),
        _backward=tuple(count for part in parts for count in part._backward),
    )
