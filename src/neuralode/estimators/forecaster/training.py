"""Training of a forecaster in stages: with held-out observations, and again on all of them."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from lightning.pytorch.callbacks import Callback

from neuralode.data.tables.scaling import Scaling
from neuralode.data.tables.series import SeriesTable
from neuralode.estimators.forecaster.holdout import HeldOutPart
from neuralode.estimators.forecaster.hyperparameters import Setup
from neuralode.estimators.forecaster.scaled_model import ScaledModel
from neuralode.estimators.isolation import forked_rng
from neuralode.estimators.serialization import to_json
from neuralode.training.fit import FitOptions, FitResult
from neuralode.training.modules.forecasting import Pair, train_latent_ode

# From the name of a stage, "first" (with held-out observations) or "refit", to Lightning callbacks.
StageCallbacks = Callable[[str], Sequence[Callback]]

WITHOUT_EFFECT = ("accelerator", "verbose")  # parameters that a resumed training may change


@dataclass(frozen=True)
class StagedTraining:
    """What the stages of a training have in common.

    Attributes
    ----------
    setup : Setup
        The windows and the network.
    binary : tuple of int
        Channels of 0 and 1, which are not scaled.
    logs : bool
        Whether to scale positive and skewed channels by their logarithm.
    options : FitOptions
        Patience and accelerator.
    seed : int
        Seed of the initial weights and of the windows that are drawn.
    arguments : mapping
        Further keyword arguments of `neuralode.training.modules.forecasting.train_latent_ode`.
    checkpoints : Path or None
        Folder of the checkpoints.
    callbacks : callable
        Lightning callbacks of each stage.
    """

    setup: Setup
    binary: tuple[int, ...]
    logs: bool
    options: FitOptions
    seed: int
    arguments: Mapping[str, Any]
    checkpoints: Path | None
    callbacks: StageCallbacks

    def run(
        self, stage: str, series: Sequence[Pair], ends: Sequence[HeldOutPart] = (), *, epochs: int
    ) -> tuple[ScaledModel, FitResult]:
        """Train a new network.

        Parameters
        ----------
        stage : str
            Name of the stage, for checkpoints and callbacks.
        series : sequence of (times, values)
            Series to learn from, in the units of the data.
        ends : sequence of HeldOutPart, default=()
            Held-out ends of the series, for early stopping; without any, training takes all epochs.
        epochs : int
            Maximum number of epochs.
        """
        values = np.concatenate([values for _, values in series])
        scaling = Scaling.fit(values, unscaled=self.binary, logs=self.logs)
        with forked_rng(self.seed):
            model = ScaledModel(self.setup.network(values.shape[1], self.binary), self.setup, scaling)
            scaled = [model.scale(pair) for pair in series]
            result = train_latent_ode(
                model.network,
                scaled,
                ends=[(scaled[end.series], model.scale((end.times, end.values))) for end in ends],
                windows=self.setup.cut,
                options=replace(self.options, epochs=epochs, patience=self.options.patience if ends else None),
                seed=self.seed,
                folder=self.checkpoints and self.checkpoints / stage,
                callbacks=self.callbacks(stage),
                **self.arguments,
            )
        return model, result


def training_digest(parameters: Mapping[str, Any], seed: int, table: SeriesTable) -> str:
    """Return a digest of a table and of the parameters of an estimator, to identify the checkpoints of a training."""
    relevant = {name: value for name, value in parameters.items() if name not in WITHOUT_EFFECT}
    settings = repr((sorted(to_json(relevant).items()), seed, table.channels, table.names))
    digest = hashlib.sha256(settings.encode())
    for array in (*table.times, *table.values):
        digest.update(array.tobytes())
    return digest.hexdigest()[:16]
