"""Values on a common scale, and back."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Table = NDArray[np.float64]

SKEWED = 0.8  # from this skewness on, positive values are looked at by their logarithm
LOWEST = -10.0  # deviations from the mean: how low a logarithm enters, at the lowest


@dataclass(frozen=True)
class Scaling:
    """Mean 0 and standard deviation 1 for each channel, of some by their logarithm.

    Parameters
    ----------
    mean, deviation : array[channels]
        Of the values, or of their logarithms.
    logged : array[channels] of bool
        Which channels are positive and skewed, and enter by their logarithm.

    Examples
    --------
    >>> table = np.array([[1.0, 0.0], [2.0, 2.0], [4.0, np.nan], [8.0, 1.0], [99.0, 1.0]])
    >>> scaling = Scaling.of(table)
    >>> scaling.logged.tolist()
    [True, False]
    >>> bool(np.allclose(scaling.undo(scaling.apply(table)), table, equal_nan=True))
    True
    """

    mean: Table
    deviation: Table
    logged: NDArray[np.bool_]

    @classmethod
    def of(cls, values: Table, plain: tuple[int, ...] = (), logs: bool = True) -> Scaling:
        """Fit to a table [n, channels] with NaN gaps; channels in ``plain`` stay as they are."""
        channels = values.shape[1]
        mean, deviation, logged = np.zeros(channels), np.ones(channels), np.zeros(channels, bool)
        for channel in range(channels):
            seen = values[np.isfinite(values[:, channel]), channel]
            if channel in plain or not len(seen):
                continue
            if logs and seen.min() > 0 and skewness(seen) > SKEWED and abs(skewness(np.log(seen))) < skewness(seen):
                logged[channel], seen = True, np.log(seen)
            mean[channel] = seen.mean()
            deviation[channel] = seen.std() if seen.std() > 1e-12 * max(1.0, abs(mean[channel])) else 1.0
        return cls(mean, deviation, logged)

    def apply(self, values: Table) -> Table:
        """To the common scale; along the last axis."""
        values = np.asarray(values, np.float64)
        if self.logged.any():
            # at prediction time a value may be as low as none was before, even 0: it enters as very low, not as minus
            # hundreds of deviations, which would drown the others
            logs = np.log(np.maximum(values, np.finfo(np.float64).tiny))
            values = np.where(self.logged, np.maximum(logs, self.mean + LOWEST * self.deviation), values)
        return (values - self.mean) / self.deviation

    def undo(self, values: Table) -> Table:
        """Back to the scale of the data."""
        values = np.asarray(values, np.float64) * self.deviation + self.mean
        return np.where(self.logged, np.exp(np.where(self.logged, values, 0)), values) if self.logged.any() else values

    def to_json(self) -> dict[str, list]:
        """As plain lists."""
        return {name: getattr(self, name).tolist() for name in ("mean", "deviation", "logged")}

    @classmethod
    def from_json(cls, content: dict[str, list]) -> Scaling:
        """Of plain lists."""
        return cls(*(np.array(content[name]) for name in ("mean", "deviation", "logged")))


def skewness(values: Table) -> float:
    """The third standardised moment; 0 of a constant."""
    centred = values - values.mean()
    spread = centred.std()
    return float((centred**3).mean() / spread**3) if spread > 1e-12 * (1 + abs(values.mean())) else 0.0
