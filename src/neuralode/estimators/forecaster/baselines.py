"""Forecasts and fillings that need no model: what a model has to beat."""

from __future__ import annotations

import numpy as np
from scipy.signal import find_peaks

Times = np.ndarray
Table = np.ndarray

PEAK = 0.3  # of the autocorrelation: a lower one is no season
LEAST_SEASONS = 2  # a season was seen, if it was seen twice


def last_value(times: Times, values: Table, wanted: Times) -> Table:
    """The last value seen at or before each wanted time, channel by channel; the first where none was.

    Examples
    --------
    >>> values = np.array([[1.0], [np.nan], [3.0]])
    >>> last_value(np.array([0.0, 1.0, 2.0]), values, np.array([1.5, 2.5])).flatten().tolist()
    [1.0, 3.0]
    """
    out = np.full((len(wanted), values.shape[1]), np.nan)
    for channel in range(values.shape[1]):
        t, x = _seen(times, values, channel)
        if len(t):
            out[:, channel] = x[np.clip(np.searchsorted(t, wanted, side="right") - 1, 0, None)]
    return out


def linear(times: Times, values: Table, wanted: Times) -> Table:
    """Straight lines between the values seen; beyond their ends, those."""
    out = np.full((len(wanted), values.shape[1]), np.nan)
    for channel in range(values.shape[1]):
        t, x = _seen(times, values, channel)
        if len(t):
            out[:, channel] = np.interp(wanted, t, x)
    return out


def seasonal(times: Times, values: Table, wanted: Times) -> Table:
    """What was seen one season before, where a season shows in the autocorrelation; else the straight trend.

    Examples
    --------
    >>> t = np.arange(40.0)
    >>> wave = np.sin(2 * np.pi * t / 8)[:, None]
    >>> ahead = seasonal(t[:32], wave[:32], t[32:])
    >>> bool(abs(ahead - wave[32:]).max() < 0.05)
    True
    """
    out = np.full((len(wanted), values.shape[1]), np.nan)
    for channel in range(values.shape[1]):
        t, x = _seen(times, values, channel)
        if not len(t):
            continue
        period = season(t, x)
        if period is None:
            slope, level = np.polyfit(t - t[-1], x, 1) if len(t) > 1 else (0.0, x[-1])
            out[:, channel] = level + slope * (wanted - t[-1])
        else:
            back = np.ceil(np.maximum(wanted - t[-1], 0) / period) * period
            out[:, channel] = np.interp(wanted - back, t, x)
    return out


def season(times: Times, values: np.ndarray) -> float | None:
    """The period at which the autocorrelation of values, read at even times and without their trend, peaks first."""
    if len(times) < 8:
        return None
    times = times - times[0]  # seconds since 1970 would cost digits
    grid = np.linspace(0, times[-1], len(times))
    even = np.interp(grid, times, values)
    even = even - np.polyval(np.polyfit(grid, even, 1), grid)
    if even.std() < 1e-12 * (1 + abs(values).max()):
        return None
    correlation = np.correlate(even, even, "full")[len(even) - 1 :] / (even @ even)
    peaks, _ = find_peaks(correlation[: len(even) // LEAST_SEASONS + 1], height=PEAK)
    return float(peaks[0] * (grid[1] - grid[0])) if len(peaks) else None


def _seen(times: Times, values: Table, channel: int) -> tuple[np.ndarray, np.ndarray]:
    seen = np.isfinite(values[:, channel])
    return times[seen], values[seen, channel]
