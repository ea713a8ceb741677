"""Sensible sizes for a forecaster, read off the series it is to learn from; and which observations it holds out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil

import numpy as np

from neuralode.train.forecasting import FEWEST, Cut, Pair

WINDOW = 60  # observations, at most, unless more are asked for
UNITS = 3.0  # of time in a window: over so much, a field of size 1 turns once or twice
LATENT_MAX = 16
SHORTEST = 5  # observations of a series from which some are held out


@dataclass(frozen=True)
class Setup:
    """Sizes.

    Parameters
    ----------
    cut : Cut
        Observations of a window, and how many of them are read.
    unit : float
        One unit of the model's time, on the clock of the table.
    spacing : float
        Typical time from one observation to the next.
    latent, hidden, width : int
        Of the model.
    """

    cut: Cut
    unit: float
    spacing: float
    latent: int
    hidden: int
    width: int


def set_up(
    series: Sequence[Pair], *, window: int | None, latent: int | None, hidden: int | None, width: int | None
) -> Setup:
    """Choose what was not asked for.

    Examples
    --------
    >>> t = np.arange(21.0)
    >>> setup = set_up([(t, t[:, None])], window=None, latent=None, hidden=None, width=None)
    >>> setup.cut, setup.unit, setup.spacing
    (Cut(window=21, context=14), 6.666666666666667, 1.0)
    """
    lengths = np.array([len(times) for times, _ in series])
    most = int(min(lengths.max(), WINDOW)) if window is None else window
    gaps = np.concatenate([np.diff(times) for times, _ in series])
    spacing = float(np.median(gaps)) if len(gaps) else 1.0
    spans = [np.median(times[min(most, len(times)) - 1 :] - times[: len(times) - min(most, len(times)) + 1])
             for times, _ in series]  # fmt: skip
    span = float(np.median([span for span in spans if span > 0] or [1.0]))
    channels = series[0][1].shape[1]
    return Setup(
        Cut(most, max(FEWEST, ceil(2 * most / 3))),
        span / UNITS,
        spacing,
        latent or min(LATENT_MAX, 2 * channels + 2),
        hidden or (16 if lengths.sum() < 100 else 32),
        width or (16 if lengths.sum() < 100 else 32),
    )


@dataclass(frozen=True)
class HeldOut:
    """Series without some of their observations, and these.

    Attributes
    ----------
    train : list of (times, values)
        What is learned from.
    ends : list of (series number, times, values)
        The last observations of series, to be forecast.
    gaps : list of (series number, times, values)
        Values within series, to be filled in; NaN where nothing is asked.
    """

    train: list[Pair]
    ends: list[tuple[int, np.ndarray, np.ndarray]]
    gaps: list[tuple[int, np.ndarray, np.ndarray]]


def hold_out(series: Sequence[Pair], fraction: float, cut: Cut, rng: np.random.Generator) -> HeldOut:
    """Hold out the end of every series that is long enough, and a tenth of the values within.

    At most as many observations are held out at an end as a window leaves to be forecast, since no more are ever asked
    of the model in training.
    """
    train, ends, gaps = [], [], []
    for number, (times, values) in enumerate(series):
        last = 0
        if len(times) >= SHORTEST:
            last = min(max(1, round(fraction * len(times))), max(1, cut.window - cut.context))
        stop = len(times) - last
        if last:
            ends.append((number, times[stop:], values[stop:]))
        times, values = times[:stop], values[:stop].copy()
        if len(times) >= 2 * SHORTEST:
            hidden = np.isfinite(values) & (rng.random(values.shape) < 0.1)
            hidden[[0, -1]] = False
            if hidden.any():
                asked = hidden.any(1)
                gaps.append((number, times[asked], np.where(hidden, values, np.nan)[asked]))
                values[hidden] = np.nan
                kept = np.isfinite(values).any(1)
                times, values = times[kept], values[kept]
        train.append((times, values))
    return HeldOut(train, ends, gaps)
