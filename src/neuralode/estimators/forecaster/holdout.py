"""Held-out observations of series: their ends, to be forecast, and values within, to be imputed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from neuralode.training.modules.forecasting import Pair, WindowSpec

MIN_LENGTH = 5  # observations of a series from which some are held out
GAP_FRACTION = 0.1  # of the values within a series are held out, to evaluate imputation


class HeldOutPart(NamedTuple):
    """Held-out observations of one series.

    Attributes
    ----------
    series : int
        Index of the series.
    times : array [times]
        Times of the observations.
    values : array [times, channels]
        The observations; NaN where nothing is held out.
    """

    series: int
    times: np.ndarray
    values: np.ndarray


@dataclass(frozen=True)
class HeldOut:
    """Series and the observations that are held out from them.

    Attributes
    ----------
    train : list of (times, values)
        The series without what is held out.
    ends : list of HeldOutPart
        The last observations of series.
    gaps : list of HeldOutPart
        Values within series.
    """

    train: list[Pair]
    ends: list[HeldOutPart]
    gaps: list[HeldOutPart]


def hold_out(
    series: Sequence[Pair],
    fraction: float,
    windows: WindowSpec,
    *,
    rng: np.random.Generator,
    gap_fraction: float = GAP_FRACTION,
) -> HeldOut:
    """Hold out the end of every series that is long enough, and some of the values within.

    At most as many observations are held out at an end as a window forecasts: in training, the model never forecasts
    further.

    Parameters
    ----------
    series : sequence of (times, values)
        The series; they are not changed.
    fraction : float
        Fraction of each series that is held out at its end. With 0, nothing is held out at all.
    windows : WindowSpec
        The windows that the model is trained on.
    rng : numpy.random.Generator
        Generator that selects the values within.
    gap_fraction : float, default=0.1
        Fraction of the values within that is held out.

    Examples
    --------
    >>> t = np.arange(10.0)
    >>> held = hold_out([(t, t[:, None])], 0.2, WindowSpec(10, 7), rng=np.random.default_rng(0), gap_fraction=0)
    >>> [end.times.tolist() for end in held.ends], len(held.train[0][0]), held.gaps
    ([[8.0, 9.0]], 8, [])
    """
    if not fraction:
        return HeldOut([*series], [], [])
    train, ends, gaps = [], [], []
    for index, (times, values) in enumerate(series):
        stop = len(times) - _end_length(len(times), fraction, windows)
        if stop < len(times):
            ends.append(HeldOutPart(index, times[stop:], values[stop:]))
        times, values = times[:stop], values[:stop].copy()
        hidden = _select_values(values, gap_fraction, rng)
        if hidden.any():
            rows = hidden.any(1)
            gaps.append(HeldOutPart(index, times[rows], np.where(hidden, values, np.nan)[rows]))
            values[hidden] = np.nan
            nonempty = np.isfinite(values).any(1)
            times, values = times[nonempty], values[nonempty]
        train.append((times, values))
    return HeldOut(train, ends, gaps)


def _end_length(length: int, fraction: float, windows: WindowSpec) -> int:
    """Return the number of observations to hold out at the end of a series."""
    if length < MIN_LENGTH:
        return 0
    return min(max(1, round(fraction * length)), max(1, windows.window - windows.context), length - 2)


def _select_values(values: np.ndarray, fraction: float, rng: np.random.Generator) -> np.ndarray:
    """Return a mask of the values to hold out; the first and the last observation are never among them."""
    if len(values) < 2 * MIN_LENGTH:
        return np.zeros(values.shape, dtype=bool)
    mask = np.isfinite(values) & (rng.random(values.shape) < fraction)
    mask[[0, -1]] = False
    return mask
