"""The spirals of the paper: noisy observations of windows on two curves.

The curves and the noise are those of the authors' published script. The script defines neither a split nor an error
measure; `spirals` documents ours.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from jaxtyping import Float, Float64
from torch import Tensor

from neuralode.nn import Observations

POINTS = 500  # of each curve, for t from 0 to 6π
STOP = 6 * np.pi
WINDOW = 100  # points of the window of a series
BEYOND = 100  # points after the window, to be forecast
NOISE = 0.3  # standard deviation
GROWTH = 0.3  # of the radius with the angle


def curves() -> Float64[np.ndarray, "2 points 2"]:
    """Return the clockwise and the counter-clockwise curve, without noise.

    The radius of the counter-clockwise curve grows linearly with the angle, that of the clockwise one ever faster.

    Examples
    --------
    >>> curves().shape
    (2, 500, 2)
    """
    t = np.linspace(0, STOP, POINTS)
    zeta = STOP + 1 - t
    r = 50 * GROWTH / zeta
    clockwise = np.stack((r * np.cos(zeta) - 5, r * np.sin(zeta)), -1)
    r = GROWTH * t
    counterclockwise = np.stack((r * np.cos(t) + 5, r * np.sin(t)), -1)
    return np.stack((clockwise, counterclockwise))


@dataclass(frozen=True, eq=False)
class Spirals:
    """Series from windows on the curves.

    Attributes
    ----------
    observed : Observations
        The noisy observations. A window starts at time 0, and its points are 1/100 apart.
    truth : Tensor[series, 200, 2]
        The curve without noise: the 100 points of the window and the 100 points after it; NaN beyond its end.
    clockwise : BoolTensor[series]
        Whether the curve is the clockwise one.
    begin : LongTensor[series]
        Index of the point of the curve at which the window starts.
    """

    observed: Observations
    truth: Float[Tensor, "series steps 2"]
    clockwise: Tensor
    begin: Tensor

    @cached_property
    def times(self) -> Float64[Tensor, " steps"]:
        """Return the times of the 200 points."""
        return torch.arange(WINDOW + BEYOND, dtype=torch.float64) / WINDOW


def spirals(series: int, observed: int, *, last: int, seed: int) -> Spirals:
    """Draw series, half of them clockwise.

    Parameters
    ----------
    series : int
        Number of series.
    observed : int
        Number of observations of a series, drawn without replacement from the 100 points of its window.
    last : int
        Last point of a curve at which a window may start. A series that is observed needs 100 points of a curve, one
        that is forecast as well needs 200.
    seed : int
        Seed of everything that is random.

    Raises
    ------
    ValueError
        If ``observed`` is not between 1 and 100.

    Examples
    --------
    >>> drawn = spirals(10, 30, last=300, seed=0)
    >>> drawn.observed.values.shape, drawn.truth.shape, int(drawn.clockwise.sum())
    (torch.Size([10, 30, 2]), torch.Size([10, 200, 2]), 5)
    """
    if not 1 <= observed <= WINDOW:
        raise ValueError(f"observed={observed}; wanted 1 to {WINDOW} of the points of a window.")
    rng = np.random.default_rng(seed)
    clockwise = np.arange(series) % 2 == 0
    begin = rng.integers(0, last + 1, series)
    both = np.concatenate((curves(), np.full((2, BEYOND, 2), np.nan)), 1)  # nothing beyond the ends of the curves
    points = begin[:, None] + np.arange(WINDOW + BEYOND)
    truth = both[np.where(clockwise, 0, 1)[:, None], points]
    noisy = truth[:, :WINDOW] + NOISE * rng.standard_normal((series, WINDOW, 2))
    selected = np.sort(rng.permuted(np.tile(np.arange(WINDOW), (series, 1)), axis=1)[:, :observed], 1)
    pairs = [(selected[row] / WINDOW, noisy[row, selected[row]]) for row in range(series)]
    return Spirals(
        observed=Observations.gather(pairs, start=0.0),
        truth=torch.tensor(truth, dtype=torch.float32),
        clockwise=torch.tensor(clockwise),
        begin=torch.tensor(begin),
    )
