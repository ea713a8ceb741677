"""What was seen of some series: each at its own times, with gaps."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Float, Float64, Int64
from torch import Tensor


@dataclass(frozen=True, eq=False)
class Observations:
    """A batch of irregular series, each padded behind its last observation.

    Parameters
    ----------
    times : Tensor[series, steps]
        Float64, increasing along each row; behind its end a row repeats its last time.
    values : Tensor[series, steps, channels]
        Zero where nothing was seen.
    seen : BoolTensor[series, steps, channels]
        Which values there are; none behind the end of a row.
    lengths : LongTensor[series]
        Times of each row, at least 1.
    start : Tensor[series]
        Float64, when each row's story begins: not after its first time.
    static : Tensor[series, covariates], optional
        What does not change along a row.

    Examples
    --------
    >>> nan = float("nan")
    >>> batch = Observations.gather([
    ...     ([0.0, 0.5, 2.0], [[1.0, nan], [nan, 2.0], [3.0, 4.0]]),
    ...     ([1.0], [[5.0, 6.0]]),
    ... ])
    >>> batch.values.shape, batch.lengths.tolist(), batch.times[1].tolist()
    (torch.Size([2, 3, 2]), [3, 1], [1.0, 1.0, 1.0])
    >>> batch.seen[0].tolist()
    [[True, False], [False, True], [True, True]]
    """

    times: Float64[Tensor, "series steps"]
    values: Float[Tensor, "series steps channels"]
    seen: Bool[Tensor, "series steps channels"]
    lengths: Int64[Tensor, " series"]
    start: Float64[Tensor, " series"]
    static: Float[Tensor, "series covariates"] | None = None

    @classmethod
    def gather(
        cls,
        series: Sequence[tuple],
        *,
        start: float | Sequence[float] | None = None,
        static: Tensor | None = None,
        dtype: torch.dtype = torch.float32,
    ) -> Observations:
        """Pad ``(times, values)`` pairs into one batch.

        Parameters
        ----------
        series : sequence of (times [n], values [n, channels])
            Arrays, tensors or lists; a value that is NaN was not seen. All have the same channels.
        start : float or one a series, optional
            When the stories begin; each at its first time unless given.
        static : Tensor[series, covariates], optional
            What does not change along a series.
        dtype : torch.dtype
            Of the values.

        Raises
        ------
        ValueError
            For no series, an empty one, parts that disagree in length or channels, values that are infinite, times that
            do not increase, or a story that begins after its first time.
        """
        if not len(series):
            raise ValueError("series is empty; wanted at least one (times, values) pair.")
        clocks = [torch.as_tensor(times, dtype=torch.float64) for times, _ in series]
        tables = [torch.as_tensor(values, dtype=dtype) for _, values in series]
        for row, (t, x) in enumerate(zip(clocks, tables, strict=True)):
            if t.dim() != 1 or x.dim() != 2 or len(t) != len(x) or not len(t):
                raise ValueError(
                    f"series {row} has times {list(t.shape)} and values {list(x.shape)}; wanted [n] and [n, channels] "
                    "with n of at least 1."
                )
            if not bool(t.isfinite().all()) or bool((t.diff() <= 0).any()):
                raise ValueError(f"the times of series {row} do not increase, or are not finite.")
            if x.shape[1] != tables[0].shape[1]:
                raise ValueError(
                    f"series {row} has {x.shape[1]} channels, series 0 has {tables[0].shape[1]}; wanted as many."
                )
            if bool(x.isinf().any()):
                raise ValueError(f"series {row} has an infinite value in {dtype}; wanted numbers, or NaN for a gap.")
        lengths = torch.tensor([len(t) for t in clocks], device=clocks[0].device)
        steps = int(lengths.max())
        times = torch.stack([torch.cat((t, t[-1:].expand(steps - len(t)))) for t in clocks])
        values = torch.nn.utils.rnn.pad_sequence(tables, batch_first=True, padding_value=torch.nan)
        if start is None:
            begin = times[:, 0].clone()
        else:
            begin = torch.as_tensor(start, dtype=torch.float64, device=times.device)
            if begin.shape not in ((), (1,), (len(times),)):
                raise ValueError(f"start has shape {list(begin.shape)}; wanted a number, or one for each series.")
            begin = begin.expand(len(times)).clone()
            if not bool((begin.isfinite() & (begin <= times[:, 0])).all()):
                raise ValueError(
                    f"start={start!r} is not finite or lies after the first time of a series; wanted one not after it."
                )
        if static is not None and (static.dim() != 2 or len(static) != len(times)):
            raise ValueError(f"static has shape {list(static.shape)}; wanted [{len(times)}, covariates].")
        seen = values.isfinite()
        return cls(times, torch.where(seen, values, 0), seen, lengths, begin, static)

    def __len__(self) -> int:
        """How many series."""
        return len(self.lengths)

    @property
    def channels(self) -> int:
        """Values at each time."""
        return self.values.shape[-1]

    @property
    def inside(self) -> Bool[Tensor, "series steps"]:
        """Which steps are no padding."""
        return torch.arange(self.times.shape[1], device=self.times.device) < self.lengths[:, None]

    def to(self, *args: object, **kwargs: object) -> Observations:
        """The same elsewhere, or (values and covariates) in another dtype; as `torch.Tensor.to`."""
        values = self.values.to(*args, **kwargs)  # type: ignore[call-overload]
        parts = {name: getattr(self, name).to(values.device) for name in ("times", "seen", "lengths", "start")}
        static = None if self.static is None else self.static.to(values)
        return replace(self, values=values, static=static, **parts)

    def __getitem__(self, rows: slice | Tensor | int) -> Observations:
        """Some of the series, or one, without padding that only the others needed."""
        if isinstance(rows, int):
            rows = torch.arange(len(self))[rows][None]  # an IndexError beyond the last ends a loop over all
        lengths = self.lengths[rows]
        steps = int(lengths.max()) if len(lengths) else 0
        return Observations(
            self.times[rows, :steps],
            self.values[rows, :steps],
            self.seen[rows, :steps],
            lengths,
            self.start[rows],
            None if self.static is None else self.static[rows],
        )

    def keeping(self, keep: Bool[Tensor, "series steps"]) -> Observations:
        """Only these steps of each row; at least one of each."""
        keep = keep & self.inside
        lengths = keep.sum(1)
        if not bool((lengths > 0).all()):
            raise ValueError("keep leaves a series without any step; wanted at least one of each.")
        order = (~keep).long().argsort(dim=1, stable=True)[:, : int(lengths.max())]
        place = torch.minimum(torch.arange(order.shape[1], device=order.device), lengths[:, None] - 1)
        order = order.gather(1, place)  # behind the end: the last one kept, again
        kept = replace(self, times=self.times.gather(1, order), lengths=lengths)
        wide = order[..., None].expand(-1, -1, self.channels)
        seen = self.seen.gather(1, wide) & kept.inside[..., None]
        return replace(kept, values=torch.where(seen, self.values.gather(1, wide), 0), seen=seen)

    def reversed(self) -> Observations:
        """Every row from its last observation to its first: times decrease, padding stays behind."""
        steps = torch.arange(self.times.shape[1], device=self.times.device)
        order = (self.lengths[:, None] - 1 - steps).clamp(min=0)
        wide = order[..., None].expand(-1, -1, self.channels)
        inside = self.inside[..., None]
        return replace(
            self,
            times=self.times.gather(1, order),
            values=torch.where(inside, self.values.gather(1, wide), 0),
            seen=self.seen.gather(1, wide) & inside,
        )

    def carried(self) -> tuple[Float[Tensor, "series steps channels"], Float64[Tensor, "series steps channels"]]:
        """The last value seen of each channel before or at each step, and how long ago; 0 and since ``start`` if none.

        Examples
        --------
        >>> nan = float("nan")
        >>> batch = Observations.gather([([0.0, 1.0, 3.0], [[5.0], [nan], [nan]])])
        >>> [x.flatten().tolist() for x in batch.carried()]
        [[5.0, 5.0, 5.0], [0.0, 1.0, 3.0]]
        """
        steps = torch.arange(self.times.shape[1], device=self.times.device)[:, None]
        latest = torch.where(self.seen, steps, -1).cummax(1).values
        known, latest = latest >= 0, latest.clamp(min=0)
        values = torch.where(known, self.values.gather(1, latest), 0)
        times = self.times[..., None].expand(-1, -1, self.channels)
        when = torch.where(known, times.gather(1, latest), self.start[:, None, None])
        return values, (times - when).abs()
