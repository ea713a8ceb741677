"""What a solve returns."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import reduce
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_flatten, tree_leaves, tree_map

from neuralode.core.dense_output import DenseOutput
from neuralode.core.status import Status


@dataclass(frozen=True)
class Stats:
    """What a solve cost.

    Attributes
    ----------
    evaluations : Tensor[rows]
        Evaluations of f that each row took part in, from the declared costs of first step and attempts.
    accepted, rejected : Tensor[rows]
        Steps kept, and attempts that were not.
    calls : int
        Calls of f, each of a whole batch, those that checked f included.
    """

    calls: int
    _rows: int = field(repr=False)
    _clocks: tuple[Any, Any, Any] = field(repr=False)  # evaluations, accepted, rejected: one for all, or one a row
    _backward: tuple[list[int], ...] = field(default=(), repr=False)  # counted into by the gradients

    @property
    def evaluations(self) -> Tensor:
        """Evaluations of f that each row took part in."""
        return torch.as_tensor(self._clocks[0]).expand(self._rows)

    @property
    def accepted(self) -> Tensor:
        """Steps kept, by row."""
        return torch.as_tensor(self._clocks[1]).expand(self._rows)

    @property
    def rejected(self) -> Tensor:
        """Attempts not kept, by row."""
        return torch.as_tensor(self._clocks[2]).expand(self._rows)

    @property
    def backward_evaluations(self) -> int:
        """Evaluations of f that gradients of this solve made so far."""
        return sum(count for (count,) in self._backward)


@dataclass(frozen=True)
class Occurrences:
    """When and where an event function was zero.

    Attributes
    ----------
    t : Tensor[N]
        Times, float64; of each row in order, row by row.
    y : pytree
        The states there: each leaf has a leading axis of length N; per sample that of one row.
    rows : Tensor[N] or None
        Whose they are, per sample.
    """

    t: Tensor
    y: Any
    rows: Tensor | None = None

    def __len__(self) -> int:
        return len(self.t)


@dataclass(frozen=True)
class Solution:
    """The states at the output times, and how it went.

    Attributes
    ----------
    ts : Tensor[T] or Tensor[rows, T]
        Output times, float64. Those behind a terminal event are its time.
    ys : pytree
        Each leaf has the shape of its leaf in y0 behind a leading axis of length T; ``ys[0]`` is y0 itself. With
        ``save=function``, what the function returned, stacked alike.
    status : Tensor[rows]
        A `Status` for each row (one, if the state has no rows).
    stats : Stats
        Evaluations and steps.
    events : tuple of Occurrences
        When and where each event function was zero.

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
    ys: Any
    status: Tensor
    stats: Stats
    events: tuple[Occurrences, ...] = ()
    dense: DenseOutput | None = field(default=None, repr=False)
    _continue: Callable[..., Solution] | None = field(default=None, repr=False)

    @property
    def success(self) -> bool:
        """Whether every row arrived (or met an event)."""
        return bool((self.status < Status.MAX_STEPS).all())

    @property
    def y1(self) -> Any:
        """The last output."""
        return tree_map(lambda leaf: leaf[-1], self.ys)

    def __call__(self, t: Any) -> Any:
        """The solution at any time between the ends, by the method's own dense output.

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
            If the solve was not asked for ``dense=True``, or a time lies outside of its span.
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
                f"t={times.tolist()} leaves the span of the solution, {low.flatten().tolist()} to "
                f"{high.flatten().tolist()}; wanted times within, or sol.extend(t2) first."
            )

    def extend(self, t2: Any) -> Solution:
        """Solve on to ``t2``, beginning with the step size reached; returns the solution over old and new times.

        Parameters
        ----------
        t2 : float, Tensor[] or Tensor[T2]
            One further time, or several; in the direction of the solve.

        Returns
        -------
        Solution
            With the outputs of both, the costs of both, and if this one is dense, dense over both.

        Examples
        --------
        >>> import torch, neuralode as node
        >>> sol = node.solve(lambda t, y: -y, torch.ones(1, dtype=torch.float64), (0.0, 1.0))
        >>> sol.extend(2.0).ts.tolist()
        [0.0, 1.0, 2.0]
        """
        if self._continue is None:
            raise ValueError(
                "this solution cannot be extended: that wants a solve that arrived, with outputs of the state itself "
                "(save=None) and steps that are not Given."
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
        span, ahead = self.ts.detach()[..., -1] - self.ts.detach()[..., 0], (further - end).detach()
        if bool((ahead * span.sign()[..., None] < 0).any()):
            raise ValueError(f"t2={t2.tolist()} lies behind the end {end.tolist()}; wanted times further on.")
        return join([self, self._continue(self.y1, torch.cat((end, further), -1))])


def _both(first: Occurrences, second: Occurrences) -> Occurrences:
    """One after the other; per sample row by row."""
    t, y = torch.cat((first.t, second.t)), tree_map(lambda a, b: torch.cat((a, b)), first.y, second.y)
    if first.rows is None or second.rows is None:
        return Occurrences(t, y)
    rows = torch.cat((first.rows, second.rows))
    order = rows.argsort(stable=True)
    return Occurrences(t[order], tree_map(lambda x: x[order], y), rows[order])


def join(parts: Sequence[Solution]) -> Solution:
    """One solution from several of which each begins where the one before ends."""
    first, *others = parts
    ys = [tree_leaves(part.ys) for part in others]
    leaves, spec = tree_flatten(first.ys)
    costs, dense = [part.stats for part in parts], [part.dense for part in parts if part.dense is not None]
    evaluations, accepted, rejected = zip(*(cost._clocks for cost in costs), strict=True)
    return Solution(
        ts=torch.cat((first.ts, *(part.ts[..., 1:] for part in others)), -1),
        ys=spec.unflatten([torch.cat((x, *(y[n][1:] for y in ys))) for n, x in enumerate(leaves)]),
        status=parts[-1].status,
        events=tuple(reduce(_both, met) for met in zip(*(part.events for part in parts), strict=True)),
        stats=Stats(
            sum(cost.calls for cost in costs),
            first.stats._rows,
            (sum(evaluations), sum(accepted), sum(rejected)),
            tuple(count for cost in costs for count in cost._backward),
        ),
        dense=dense[0].then(*dense[1:]) if len(dense) == len(parts) else None,
        _continue=parts[-1]._continue,
    )
