"""Forecasts and imputations without a model, as baselines for evaluation.

Each takes the times [n] and values [n, channels] of a series, with NaN where nothing was observed, and the target times
[m]. Each returns values [m, channels], NaN for channels that were never observed.
"""

from __future__ import annotations

import numpy as np
from scipy.signal import find_peaks

MIN_AUTOCORRELATION = 0.3  # of a period
MIN_PERIODS = 2  # that the observations must span
MIN_OBSERVATIONS = 8  # for a period to be estimated


def last_value(times: np.ndarray, values: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """Repeat the last value observed at or before each target; the first value before all observations.

    Examples
    --------
    >>> values = np.array([[1.0], [np.nan], [3.0]])
    >>> last_value(np.array([0.0, 1.0, 2.0]), values, np.array([1.5, 2.5])).flatten().tolist()
    [1.0, 3.0]
    """
    out = np.full((len(targets), values.shape[1]), np.nan)
    for channel in range(values.shape[1]):
        t, x = _observed(times, values[:, channel])
        if len(t):
            out[:, channel] = x[np.clip(np.searchsorted(t, targets, side="right") - 1, 0, None)]
    return out


def linear(times: np.ndarray, values: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """Interpolate linearly between observations; constant beyond the first and the last."""
    out = np.full((len(targets), values.shape[1]), np.nan)
    for channel in range(values.shape[1]):
        t, x = _observed(times, values[:, channel])
        if len(t):
            out[:, channel] = np.interp(targets, t, x)
    return out


def seasonal(times: np.ndarray, values: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """Repeat the last period where the autocorrelation shows one; else extrapolate the linear trend.

    Examples
    --------
    >>> t = np.arange(40.0)
    >>> wave = np.sin(2 * np.pi * t / 8)[:, None]
    >>> ahead = seasonal(t[:32], wave[:32], t[32:])
    >>> bool(abs(ahead - wave[32:]).max() < 0.05)
    True
    """
    out = np.full((len(targets), values.shape[1]), np.nan)
    for channel in range(values.shape[1]):
        t, x = _observed(times, values[:, channel])
        if not len(t):
            continue
        period = estimate_period(t, x)
        if period is None:
            slope, level = np.polyfit(t - t[-1], x, 1) if len(t) > 1 else (0.0, x[-1])
            out[:, channel] = level + slope * (targets - t[-1])
        else:
            shift = np.ceil(np.maximum(targets - t[-1], 0) / period) * period
            out[:, channel] = np.interp(targets - shift, t, x)
    return out


def estimate_period(times: np.ndarray, values: np.ndarray) -> float | None:
    """Return the lag of the first peak of the autocorrelation, of detrended values on an even grid; None without one.

    Parameters
    ----------
    times, values : array [n]
        Observations of one channel, without NaN.
    """
    if len(times) < MIN_OBSERVATIONS:
        return None
    times = times - times[0]  # times in seconds since 1970 would lose digits
    grid = np.linspace(0, times[-1], len(times))
    x = np.interp(grid, times, values)
    x = x - np.polyval(np.polyfit(grid, x, 1), grid)
    if x.std() < 1e-12 * (1 + abs(values).max()):
        return None
    correlation = np.correlate(x, x, "full")[len(x) - 1 :] / (x @ x)
    peaks, _ = find_peaks(correlation[: len(x) // MIN_PERIODS + 1], height=MIN_AUTOCORRELATION)
    return float(peaks[0] * (grid[1] - grid[0])) if len(peaks) else None


def _observed(times: np.ndarray, values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    observed = np.isfinite(values)
    return times[observed], values[observed]
