"""A latent ODE in the units of the data."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from neuralode.data.tables.scaling import Scaling
from neuralode.estimators.forecaster.hyperparameters import Setup
from neuralode.estimators.forecaster.prediction import Draws, predict, sample_prior
from neuralode.nn import LatentODE
from neuralode.training.modules.forecasting import Pair


@dataclass(frozen=True, eq=False)
class ScaledModel:
    """A network with the scales of values and time.

    Attributes
    ----------
    network : LatentODE
        The network, on its own scales.
    setup : Setup
        The unit of time, and the number of observations that a prediction reads.
    scaling : Scaling
        The scaling of the channels.
    """

    network: LatentODE
    setup: Setup
    scaling: Scaling

    def scale(self, pair: Pair) -> Pair:
        """Return times and values on the scales of the network."""
        times, values = pair
        return times / self.setup.unit, self.scaling.apply(values)

    def predict(self, series: Sequence[Pair], targets: Sequence[np.ndarray], *, samples: int, seed: int) -> list[Draws]:
        """Return draws for each series at its target times, as `neuralode.estimators.forecaster.prediction.predict`."""
        scaled = predict(
            self.network,
            [self.scale(pair) for pair in series],
            [times / self.setup.unit for times in targets],
            context=self.setup.cut.context,
            samples=samples,
            seed=seed,
            growth=np.where(self.scaling.logged, self.scaling.deviation, 0.0),
        )
        return [Draws(self.scaling.invert(draws.means), self.scaling.invert(draws.values)) for draws in scaled]

    def sample_prior(self, count: int, times: np.ndarray, *, seed: int) -> np.ndarray:
        """Return ``count`` new series at times since their start, as an array [count, times, channels]."""
        return self.scaling.invert(sample_prior(self.network, count, times / self.setup.unit, seed=seed))
