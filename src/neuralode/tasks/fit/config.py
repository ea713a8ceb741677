"""Options of `neuralode fit`."""

from __future__ import annotations

from dataclasses import dataclass

RUN_TASKS = ("series",)  # entry "task" of the config.json of such runs


@dataclass(frozen=True)
class SeriesConfig:
    """Options of a training on the series of a table.

    Parameters
    ----------
    data : str
        A .csv, .tsv or .parquet file.
    series : str, default=None
        Column of series ids. None is a single series.
    time : str, default=None
        Column of times. None uses row numbers.
    values : tuple of str, default=None
        Columns of measurements. None uses all others.
    window : int, default=None
        As in `neuralode.LatentODEForecaster`.
    latent : int, default=None
        As in `neuralode.LatentODEForecaster`.
    recognition : str, default="odernn"
        As in `neuralode.LatentODEForecaster`.
    epochs : int, default=100
        Maximum number of epochs of the first stage.
    batch_size : int, default=16
        Windows per step.
    learning_rate : float, default=1e-2
        Initial learning rate.
    patience : int, default=25
        Stop after this many epochs without a lower validation loss.
    holdout : float, default=0.2
        Fraction held out at the end of each series.
    refit : bool, default=True
        Train again on all data once the number of epochs is known.
    seed : int, default=0
        Seed of everything that is random.
    accelerator : str, default="cpu"
        As in `lightning.Trainer`.
    """

    data: str
    series: str | None = None
    time: str | None = None
    values: tuple[str, ...] | None = None
    window: int | None = None
    latent: int | None = None
    recognition: str = "odernn"
    epochs: int = 100
    batch_size: int = 16
    learning_rate: float = 1e-2
    patience: int = 25
    holdout: float = 0.2
    refit: bool = True
    seed: int = 0
    accelerator: str = "cpu"
