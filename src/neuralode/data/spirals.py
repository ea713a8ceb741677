"""The spirals of the paper: two curves, each series a noisy window on one of them.

The curves and the noise are those of the authors' published script. It has neither a split nor an error to report, so
both are written out here, and where the windows lie: see `spirals`.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from jaxtyping import Float, Float64
from torch import Tensor

from neuralode.nn import Observations

POINTS = 500  # of each whole curve, t from 0 to 6π
STOP = 6 * np.pi
WINDOW = 100  # points of a series
BEYOND = 100  # points after it, to be forecast
NOISE = 0.3
SPREAD = 0.3  # of the curves: r = 0.3 t


def curves() -> Float64[np.ndarray, "2 points 2"]:
    """The clockwise curve (inwards to outwards ever faster) and the counter-clockwise one, without noise.

    Examples
    --------
    >>> curves().shape
    (2, 500, 2)
    """
    t = np.linspace(0, STOP, POINTS)
    zeta = STOP + 1 - t
    r = 50 * SPREAD / zeta
    clockwise = np.stack((r * np.cos(zeta) - 5, r * np.sin(zeta)), -1)
    r = SPREAD * t
    counter = np.stack((r * np.cos(t) + 5, r * np.sin(t)), -1)
    return np.stack((clockwise, counter))


@dataclass(frozen=True, eq=False)
class Spirals:
    """Windows on the curves.

    Attributes
    ----------
    observed : Observations
        The noisy points that were kept of each window; the first point of a window is at time 0, and a point follows
        every 1/100.
    truth : Tensor[series, 200, 2]
        The curve without noise: 100 points of the window and the 100 beyond.
    clockwise : BoolTensor[series]
        Which curve it is.
    begin : LongTensor[series]
        The point of the curve at which the window begins.
    """

    observed: Observations
    truth: Float[Tensor, "series steps 2"]
    clockwise: Tensor
    begin: Tensor

    @cached_property
    def times(self) -> Float64[Tensor, " steps"]:
        """Of the 200 points."""
        return torch.arange(WINDOW + BEYOND, dtype=torch.float64) / WINDOW


def spirals(series: int, observed: int, *, last: int, seed: int) -> Spirals:
    """Draw series, half of them clockwise.

    Parameters
    ----------
    series : int
        How many.
    observed : int
        Points kept of the 100 of each window, drawn without replacement.
    last : int
        The last point of a curve that a series may need: windows begin anywhere from which all they need lies before
        it. A series that is only observed needs 100 points, one that is forecast 200.
    seed : int
        Of everything drawn.

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
    both = curves()
    both = np.concatenate((both, np.full((2, BEYOND, 2), np.nan)), 1)  # beyond the end of the curve there is nothing
    steps = begin[:, None] + np.arange(WINDOW + BEYOND)
    truth = both[np.where(clockwise, 0, 1)[:, None], steps]
    noisy = truth[:, :WINDOW] + NOISE * rng.standard_normal((series, WINDOW, 2))
    kept = np.sort(rng.permuted(np.tile(np.arange(WINDOW), (series, 1)), axis=1)[:, :observed], 1)
    pairs = [(kept[row] / WINDOW, noisy[row, kept[row]]) for row in range(series)]
    return Spirals(
        Observations.gather(pairs, start=0.0),
        torch.tensor(truth, dtype=torch.float32),
        torch.tensor(clockwise),
        torch.tensor(begin),
    )
