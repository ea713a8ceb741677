"""Evaluate forecasts of spirals, and the error that remains for a perfect model."""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from neuralode.data.spirals import BEYOND, WINDOW, Spirals, curves
from neuralode.tasks.spirals.data import LAST_TEST


def errors(forecast: Float[Tensor, "series 200 2"], test: Spirals) -> dict[str, float]:
    """Return root mean squared errors per coordinate against the curve without noise, beyond the window and within.

    Examples
    --------
    >>> from neuralode.data.spirals import spirals
    >>> test = spirals(4, 30, last=300, seed=0)
    >>> errors(test.truth + 0.5, test)["test_rmse"]
    0.5
    """
    square = (forecast - test.truth).square()

    def root(part: Tensor) -> float:
        return round(float(part.mean().sqrt()), 6)

    return {
        "test_rmse": root(square[:, WINDOW:]),
        "test_rmse_clockwise": root(square[test.clockwise, WINDOW:]),
        "test_rmse_counterclockwise": root(square[~test.clockwise, WINDOW:]),
        "window_rmse": root(square[:, :WINDOW]),
    }


def best_forecasts(test: Spirals) -> Float[Tensor, "series 200 2"]:
    """Return maximum likelihood forecasts, given the curves and the range of starting points.

    Their error is due to noise only, and thus a lower bound for any model.

    Examples
    --------
    >>> from neuralode.data.spirals import spirals
    >>> test = spirals(20, 100, last=300, seed=0)
    >>> errors(best_forecasts(test), test)["test_rmse"] < 0.1
    True
    """
    starts = np.arange(LAST_TEST + 1)[:, None] + np.arange(WINDOW + BEYOND)
    candidates = torch.tensor(np.concatenate(curves()[:, starts]), dtype=torch.float32)
    points = (test.observed.times * WINDOW).round().long()
    best = [
        int((candidates[:, at] - values).square().sum((1, 2)).argmin())
        for at, values in zip(points, test.observed.values, strict=True)
    ]
    return candidates[best]
