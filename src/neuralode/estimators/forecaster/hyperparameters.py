"""Hyperparameters of a forecaster; those that are not given are chosen from the series."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil

import numpy as np
from torch import nn

from neuralode.nn import LatentODE, Likelihood
from neuralode.training.modules.forecasting import FEWEST, Pair, WindowSpec

MAX_WINDOW = 60  # observations of a window, unless given
WINDOW_LENGTH = 3.0  # of a typical window, in units of the model's time: a field of size 1 turns once or twice in it
MAX_LATENT = 16
SMALL_TABLE = 100  # observations, below which networks have 16 units instead of 32


@dataclass(frozen=True)
class Setup:
    """The windows and the network of a forecaster.

    Parameters
    ----------
    cut : WindowSpec
        Number of observations of a window, and of those that are read.
    unit : float
        One unit of the model's time, on the clock of the table.
    spacing : float
        Typical time between successive observations, on the clock of the table.
    latent : int
        Dimension of the latent state, as in `neuralode.nn.LatentODE`.
    hidden : int
        Number of units of the recognition network.
    width : int
        Number of units in the hidden layer of the vector field.
    recognition : {'odernn', 'rnn'}, default='odernn'
        Kind of the recognition network.
    rtol : float, default=0.001
        Relative tolerance of the solver.
    atol : float, default=0.0001
        Absolute tolerance of the solver.
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
        """Return a network with initial weights from torch's global generator.

        Parameters
        ----------
        channels : int
            Number of channels.
        binary : sequence of int, default=()
            Indices of the channels whose values are 0 or 1.

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
            # A linear decoder extrapolates to states beyond those in training: on the spirals of the paper it halves
            # the error of forecasts.
            decoder=nn.Linear(self.latent, likelihood.outputs),
            likelihood=likelihood,
            rtol=self.rtol,
            atol=self.atol,
        )


def choose_setup(
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
    """Choose the hyperparameters that are not given from the number, length and spacing of the observations.

    Parameters
    ----------
    series : sequence of (times, values)
        The series to learn from.
    window, latent, hidden, width, recognition, rtol, atol
        As in `neuralode.estimators.LatentODEForecaster`.

    Examples
    --------
    >>> t = np.arange(21.0)
    >>> setup = choose_setup([(t, t[:, None])])
    >>> setup.cut, setup.unit, setup.spacing
    (WindowSpec(window=21, context=14), 6.666666666666667, 1.0)
    """
    lengths = np.array([len(times) for times, _ in series])
    window = int(min(lengths.max(), MAX_WINDOW) if window is None else window)
    gaps = np.concatenate([np.diff(times) for times, _ in series])
    durations = [_typical_duration(times, min(window, len(times))) for times, _ in series]
    duration = float(np.median([duration for duration in durations if duration > 0] or [1.0]))
    channels, units = series[0][1].shape[1], 16 if lengths.sum() < SMALL_TABLE else 32
    return Setup(
        cut=WindowSpec(window, max(FEWEST, ceil(2 * window / 3))),
        unit=duration / WINDOW_LENGTH,
        spacing=float(np.median(gaps)) if len(gaps) else 1.0,
        latent=int(latent or min(MAX_LATENT, 2 * channels + 2)),
        hidden=int(hidden or units),
        width=int(width or units),
        recognition=recognition,
        rtol=float(rtol),
        atol=float(atol),
    )


def _typical_duration(times: np.ndarray, count: int) -> float:
    """Return the median duration of ``count`` successive observations."""
    return float(np.median(times[count - 1 :] - times[: len(times) - count + 1]))
