"""Sensible sizes for a forecaster, read off the series it is to learn from; and which observations it holds out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil
from typing import Any

import numpy as np
from torch import nn

from neuralode.estimators.parameters import check_above_zero, check_not_below_zero, check_share, check_whole, given
from neuralode.nn import LatentODE, Likelihood
from neuralode.nn.series.latent_ode import RECOGNITION
from neuralode.training.modules.forecasting import FEWEST, Pair, WindowSpec

WINDOW = 60  # observations, at most, unless more are asked for
UNITS = 3.0  # of time in a window: over so much, a field of size 1 turns once or twice
LATENT_MAX = 16
SHORTEST = 5  # observations of a series from which some are held out
HIDDEN = 0.1  # of the values within a series, to see how well they are filled in


@dataclass(frozen=True)
class Setup:
    """What windows are like, and what the network is made of.

    Parameters
    ----------
    cut : WindowSpec
        Observations of a window, and how many of them are read.
    unit : float
        One unit of the model's time, on the clock of the table.
    spacing : float
        Typical time from one observation to the next.
    latent, hidden, width, recognition, rtol, atol
        As in `neuralode.nn.LatentODE`.
    """

    cut: WindowSpec
    unit: float
    spacing: float
    latent: int
    hidden: int
    width: int
    recognition: str = "odernn"
    rtol: float = 1e-3
    atol: float = 1e-4

    def network(self, channels: int, binary: Sequence[int] = ()) -> LatentODE:
        """The network, its weights by torch's random state.

        Examples
        --------
        >>> Setup(WindowSpec(6, 4), unit=1.0, spacing=1.0, latent=3, hidden=4, width=4).network(2, binary=[1]).decoder
        Linear(in_features=3, out_features=2, bias=True)
        """
        likelihood = Likelihood(channels, binary=binary)
        return LatentODE(
            channels,
            self.latent,
            hidden=self.hidden,
            width=self.width,
            recognition=self.recognition,
            # what is seen is a view of the state, so that a state far from those seen in training looks like more of
            # the same: on the spirals of the paper this halves the error of forecasts
            decoder=nn.Linear(self.latent, likelihood.outputs),
            likelihood=likelihood,
            rtol=self.rtol,
            atol=self.atol,
        )


def set_up(
    series: Sequence[Pair],
    *,
    window: int | None = None,
    latent: int | None = None,
    hidden: int | None = None,
    width: int | None = None,
    recognition: str = "odernn",
    rtol: float = 1e-3,
    atol: float = 1e-4,
) -> Setup:
    """Choose what was not asked for.

    Examples
    --------
    >>> t = np.arange(21.0)
    >>> setup = set_up([(t, t[:, None])])
    >>> setup.cut, setup.unit, setup.spacing
    (WindowSpec(window=21, context=14), 6.666666666666667, 1.0)
    """
    lengths = np.array([len(times) for times, _ in series])
    most = int(min(lengths.max(), WINDOW) if window is None else window)
    gaps = np.concatenate([np.diff(times) for times, _ in series])
    spacing = float(np.median(gaps)) if len(gaps) else 1.0
    spans = [_span(times, min(most, len(times))) for times, _ in series]
    span = float(np.median([span for span in spans if span > 0] or [1.0]))
    channels, size = series[0][1].shape[1], 16 if lengths.sum() < 100 else 32
    return Setup(
        WindowSpec(most, max(FEWEST, ceil(2 * most / 3))),
        span / UNITS,
        spacing,
        int(latent or min(LATENT_MAX, 2 * channels + 2)),
        int(hidden or size),
        int(width or size),
        recognition,
        float(rtol),
        float(atol),
    )


def _span(times: np.ndarray, count: int) -> float:
    """Of time, that so many observations in a row typically take."""
    return float(np.median(times[count - 1 :] - times[: len(times) - count + 1]))


def check_parameters(estimator: Any) -> None:
    """Raise a ValueError for the first parameter of a forecaster that cannot be.

    Examples
    --------
    >>> from neuralode.estimators import LatentODEForecaster
    >>> check_parameters(LatentODEForecaster(window=1))
    Traceback (most recent call last):
    ...
    ValueError: window=1; wanted a whole number of at least 2.
    """
    asked = estimator.get_params(deep=False)
    check_whole(asked, *given(asked, "window"), least=2)
    check_whole(asked, *given(asked, "latent", "hidden", "width"), "batch_size", "max_epochs", "patience", "samples")
    check_above_zero(asked, "learning_rate", "rtol", "atol")
    check_not_below_zero(asked, "kl_weight")
    check_share(asked, "holdout")
    if asked["recognition"] not in RECOGNITION:
        raise ValueError(f"recognition={asked['recognition']!r}; wanted one of {', '.join(map(repr, RECOGNITION))}.")


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


def hold_out(
    series: Sequence[Pair], fraction: float, cut: WindowSpec, rng: np.random.Generator, hidden: float = HIDDEN
) -> HeldOut:
    """Hold out the end of every series that is long enough, and some of the values within; nothing for fraction 0.

    At most as many observations are held out at an end as a window leaves to be forecast, since no more are ever asked
    of the model in training.

    Examples
    --------
    >>> t = np.arange(10.0)
    >>> held = hold_out([(t, t[:, None])], 0.2, WindowSpec(10, 7), np.random.default_rng(0), hidden=0)
    >>> [times.tolist() for _, times, _ in held.ends], len(held.train[0][0]), held.gaps
    ([[8.0, 9.0]], 8, [])
    """
    if not fraction:
        return HeldOut([*series], [], [])
    train, ends, gaps = [], [], []
    for number, (times, values) in enumerate(series):
        last = 0
        if len(times) >= SHORTEST:
            last = min(max(1, round(fraction * len(times))), max(1, cut.window - cut.context), len(times) - 2)
        stop = len(times) - last
        if last:
            ends.append((number, times[stop:], values[stop:]))
        times, values = times[:stop], values[:stop].copy()
        if len(times) >= 2 * SHORTEST:
            away = np.isfinite(values) & (rng.random(values.shape) < hidden)
            away[[0, -1]] = False
            if away.any():
                asked = away.any(1)
                gaps.append((number, times[asked], np.where(away, values, np.nan)[asked]))
                values[away] = np.nan
                kept = np.isfinite(values).any(1)
                times, values = times[kept], values[kept]
        train.append((times, values))
    return HeldOut(train, ends, gaps)
