"""Batches of irregular series: each with its own times, and with missing values."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Float, Float64, Int64
from torch import Tensor


@dataclass(frozen=True, eq=False)
class Observations:
    """A batch of irregular series, padded at their ends.

    Parameters
    ----------
    times : Float64Tensor[series, steps]
        Times, increasing along each row; padding repeats the last time.
    values : Tensor[series, steps, channels]
        Values; 0 where they are missing.
    seen : BoolTensor[series, steps, channels]
        Which values are present; none in the padding.
    lengths : LongTensor[series]
        The number of times of each row, at least 1.
    start : Float64Tensor[series]
        When each series begins, not after its first time.
    static : Tensor[series, covariates], default=None
        Covariates that do not change along a series.

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
            Arrays, tensors or lists, all with the same channels. NaN marks a missing value.
        start : float or sequence of float, default=None
            When the series begin: one number for all, or one for each; None is the first time of each.
        static : Tensor[series, covariates], default=None
            Covariates that do not change along a series.
        dtype : torch.dtype, default=torch.float32
            The dtype of the values.

        Returns
        -------
        Observations
            The batch.

        Raises
        ------
        ValueError
            If there is no series or an empty one; lengths or channels differ; values are infinite; times do not
            increase; or a series begins after its first time.
        """
        if not len(series):
            raise ValueError("series is empty; wanted at least one (times, values) pair.")
        clocks = [torch.as_tensor(times, dtype=torch.float64) for times, _ in series]
        tables = [torch.as_tensor(values, dtype=dtype) for _, values in series]
        for row, (times, values) in enumerate(zip(clocks, tables, strict=True)):
            _check_series(row, times, values, first=tables[0])
        lengths = torch.tensor([len(times) for times in clocks], device=clocks[0].device)
        steps = int(lengths.max())
        times = torch.stack([torch.cat((t, t[-1:].expand(steps - len(t)))) for t in clocks])
        values = torch.nn.utils.rnn.pad_sequence(tables, batch_first=True, padding_value=torch.nan)
        if static is not None and (static.dim() != 2 or len(static) != len(times)):
            raise ValueError(f"static has shape {list(static.shape)}; wanted [{len(times)}, covariates].")
        seen = values.isfinite()
        return cls(
            times=times,
            values=torch.where(seen, values, 0),
            seen=seen,
            lengths=lengths,
            start=_start_times(start, first=times[:, 0]),
            static=static,
        )

    def __len__(self) -> int:
        """Return the number of series."""
        return len(self.lengths)

    @property
    def channels(self) -> int:
        """The number of channels."""
        return self.values.shape[-1]

    @property
    def inside(self) -> Bool[Tensor, "series steps"]:
        """Which steps are not padding."""
        return torch.arange(self.times.shape[1], device=self.times.device) < self.lengths[:, None]

    def to(self, *args: object, **kwargs: object) -> Observations:
        """Move the batch, or cast values and covariates; arguments as in `torch.Tensor.to`."""
        values = self.values.to(*args, **kwargs)  # type: ignore[call-overload]
        parts = {name: getattr(self, name).to(values.device) for name in ("times", "seen", "lengths", "start")}
        static = None if self.static is None else self.static.to(values)
        return replace(self, values=values, static=static, **parts)

    def __getitem__(self, rows: slice | Tensor | int) -> Observations:
        """Return a batch of some of the series, or of one, without padding that they do not need."""
        if isinstance(rows, int):
            rows = torch.arange(len(self))[rows][None]  # raises IndexError at the end, which ends iteration
        lengths = self.lengths[rows]
        steps = int(lengths.max()) if len(lengths) else 0
        return Observations(
            times=self.times[rows, :steps],
            values=self.values[rows, :steps],
            seen=self.seen[rows, :steps],
            lengths=lengths,
            start=self.start[rows],
            static=None if self.static is None else self.static[rows],
        )

    def keeping(self, keep: Bool[Tensor, "series steps"]) -> Observations:
        """Return the batch with these steps only.

        Raises
        ------
        ValueError
            If a series keeps no step.
        """
        keep = keep & self.inside
        lengths = keep.sum(1)
        if not bool((lengths > 0).all()):
            raise ValueError("keep leaves a series without any step; wanted at least one of each.")
        order = (~keep).long().argsort(dim=1, stable=True)[:, : int(lengths.max())]
        place = torch.minimum(torch.arange(order.shape[1], device=order.device), lengths[:, None] - 1)
        order = order.gather(1, place)  # padding repeats the last kept step
        kept = replace(self, times=self.times.gather(1, order), lengths=lengths)
        wide = order[..., None].expand(-1, -1, self.channels)
        seen = self.seen.gather(1, wide) & kept.inside[..., None]
        return replace(kept, values=torch.where(seen, self.values.gather(1, wide), 0), seen=seen)

    def reversed(self) -> Observations:
        """Return every series from its last observation to its first: times decrease, padding stays at the end."""
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
        """Return the last value of each channel before or at each step, and the time since then.

        Where a channel has no value yet, these are 0 and the time since ``start``.

        Examples
        --------
        >>> nan = float("nan")
        >>> batch = Observations.gather([([0.0, 1.0, 3.0], [[5.0], [nan], [nan]])])
        >>> [x.flatten().tolist() for x in batch.carried()]
        [[5.0, 5.0, 5.0], [0.0, 1.0, 3.0]]
        """
        steps = torch.arange(self.times.shape[1], device=self.times.device)[:, None]
        latest = torch.where(self.seen, steps, -1).cummax(1).values
        present, latest = latest >= 0, latest.clamp(min=0)
        values = torch.where(present, self.values.gather(1, latest), 0)
        times = self.times[..., None].expand(-1, -1, self.channels)
        when = torch.where(present, times.gather(1, latest), self.start[:, None, None])
        return values, (times - when).abs()


def _check_series(row: int, times: Tensor, values: Tensor, *, first: Tensor) -> None:
    """Refuse a series whose parts do not fit together, or are not finite where they must be."""
    if times.dim() != 1 or values.dim() != 2 or len(times) != len(values) or not len(times):
        raise ValueError(
            f"series {row} has times {list(times.shape)} and values {list(values.shape)}; wanted [n] and [n, channels] "
            "with n of at least 1."
        )
    if not bool(times.isfinite().all()) or bool((times.diff() <= 0).any()):
        raise ValueError(f"the times of series {row} do not increase, or are not finite.")
    if values.shape[1] != first.shape[1]:
        raise ValueError(f"series {row} has {values.shape[1]} channels, series 0 has {first.shape[1]}; wanted as many.")
    if bool(values.isinf().any()):
        raise ValueError(f"series {row} has an infinite value in {values.dtype}; wanted numbers, or NaN for a gap.")


def _start_times(start: float | Sequence[float] | None, *, first: Float64[Tensor, " series"]) -> Tensor:
    """Return when each series begins, given their first times."""
    if start is None:
        return first.clone()
    begin = torch.as_tensor(start, dtype=torch.float64, device=first.device)
    if begin.shape not in ((), (1,), (len(first),)):
        raise ValueError(f"start has shape {list(begin.shape)}; wanted a number, or one for each series.")
    begin = begin.expand(len(first)).clone()
    if not bool((begin.isfinite() & (begin <= first)).all()):
        raise ValueError(
            f"start={start!r} is not finite or lies after the first time of a series; wanted one not after it."
        )
    return begin
