"""Standardization of channels with missing values, some of them by their logarithm."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Table = NDArray[np.float64]

SKEWED = 0.8  # skewness from which on positive channels are modelled by their logarithm
LOWEST = -10.0  # standard deviations from the mean: the lower bound of scaled logarithms


@dataclass(frozen=True)
class Scaling:
    """Scaling of each channel to mean 0 and standard deviation 1.

    Parameters
    ----------
    mean : array [channels]
        Mean of the values, or of their logarithms.
    deviation : array [channels]
        Standard deviation of the values, or of their logarithms; 1 for constant channels.
    logged : array [channels] of bool
        Channels that are positive and skewed, and scaled by their logarithm.

    Examples
    --------
    >>> table = np.array([[1.0, 0.0], [2.0, 2.0], [4.0, np.nan], [8.0, 1.0], [99.0, 1.0]])
    >>> scaling = Scaling.fit(table)
    >>> scaling.logged.tolist()
    [True, False]
    >>> bool(np.allclose(scaling.invert(scaling.apply(table)), table, equal_nan=True))
    True
    """

    mean: Table
    deviation: Table
    logged: NDArray[np.bool_]

    @classmethod
    def fit(cls, values: Table, unscaled: tuple[int, ...] = (), logs: bool = True) -> Scaling:
        """Return the scaling of a table.

        Parameters
        ----------
        values : array [rows, channels]
            The table; NaN is a missing value.
        unscaled : tuple of int, default=()
            Channels that are not scaled.
        logs : bool, default=True
            Whether to scale positive and skewed channels by their logarithm.
        """
        channels = values.shape[1]
        mean, deviation, logged = np.zeros(channels), np.ones(channels), np.zeros(channels, bool)
        for channel in range(channels):
            x = values[np.isfinite(values[:, channel]), channel]
            if channel in unscaled or not len(x):
                continue
            if logs and x.min() > 0 and skewness(x) > SKEWED and abs(skewness(np.log(x))) < skewness(x):
                logged[channel], x = True, np.log(x)
            mean[channel] = x.mean()
            deviation[channel] = x.std() if x.std() > 1e-12 * max(1.0, abs(mean[channel])) else 1.0
        return cls(mean, deviation, logged)

    def apply(self, values: Table) -> Table:
        """Scale values, with the channels along the last axis."""
        values = np.asarray(values, np.float64)
        if self.logged.any():
            # New values may be lower than all before, even 0: bound their logarithms, which would dominate otherwise.
            logs = np.log(np.maximum(values, np.finfo(np.float64).tiny))
            values = np.where(self.logged, np.maximum(logs, self.mean + LOWEST * self.deviation), values)
        return (values - self.mean) / self.deviation

    def invert(self, scaled: Table) -> Table:
        """Return scaled values in their original units."""
        values = np.asarray(scaled, np.float64) * self.deviation + self.mean
        return np.where(self.logged, np.exp(np.where(self.logged, values, 0)), values) if self.logged.any() else values

    def to_json(self) -> dict[str, list]:
        """Return a dict that JSON can hold, for `from_json`."""
        return {name: getattr(self, name).tolist() for name in ("mean", "deviation", "logged")}

    @classmethod
    def from_json(cls, content: dict[str, list]) -> Scaling:
        """Return the scaling that `to_json` described."""
        return cls(*(np.array(content[name]) for name in ("mean", "deviation", "logged")))


def skewness(values: Table) -> float:
    """Return the third standardized moment, 0 for constant values."""
    centred = values - values.mean()
    deviation = centred.std()
    return float((centred**3).mean() / deviation**3) if deviation > 1e-12 * (1 + abs(values.mean())) else 0.0
