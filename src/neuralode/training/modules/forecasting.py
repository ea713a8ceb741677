"""Train a latent ODE on random windows of series: it reads the first part of a window and explains all of it."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, cast

import lightning as L
import numpy as np
import torch
from lightning.pytorch.callbacks import Callback
from safetensors.torch import load_file, save
from torch import Tensor
from torch.utils.data import DataLoader

from neuralode.nn import LatentODE, Observations
from neuralode.training.atomic_write import replace_file
from neuralode.training.fit import FitOptions, FitResult, fit, prepare_for_inference
from neuralode.training.module import TrainingModule
from neuralode.training.resumable_loader import ResumableLoader
from neuralode.training.run import read_json, write_json

Pair = tuple[np.ndarray, np.ndarray]  # times [n] and values [n, channels] with NaN gaps, on the model's scales
Batch = tuple[Observations, Observations]  # observations to encode, and observations to explain

LEAST, MOST = 20, 100  # batches per epoch; with fewer than 20, short tables would get too few steps in 100 epochs
FEWEST = 2  # observations to encode; a single one carries no trend
WEIGHTS_FILE, RESULT_FILE = "learned.safetensors", "done.json"  # of a finished training, in its checkpoint folder
VALIDATION_BATCH = 64


def train_latent_ode(
    model: LatentODE,
    series: Sequence[Pair],
    ends: Sequence[tuple[Pair, Pair]],
    *,
    windows: WindowSpec,
    options: FitOptions,
    seed: int,
    batch_size: int,
    learning_rate: float,
    kl_weight: float,
    folder: Path | None = None,
    callbacks: Sequence[Callback] = (),
    progress_bar: bool = False,
    belongs_to: str = "",
) -> FitResult:
    """Train a latent ODE on windows of series, and prepare it for inference in double precision.

    Parameters
    ----------
    model : LatentODE
        The model to train.
    series : sequence of (times, values)
        Training data.
    ends : sequence of (series, end)
        Validation data: the end is forecast from the last observations of the series. If empty, the weights of the last
        epoch are kept.
    windows : WindowSpec
        Sizes of the windows.
    options : FitOptions
        Number of epochs, device and the like.
    seed : int
        Seed of the windows that are drawn.
    batch_size : int
        Windows per step.
    learning_rate : float
        Initial learning rate.
    kl_weight : float
        Weight of the divergence of the posterior from the prior.
    folder : Path, default=None
        Folder of the checkpoints. An interrupted training there is resumed; the result of a finished one is loaded.
    callbacks, progress_bar, belongs_to
        As in `neuralode.training.fit.fit`.

    Returns
    -------
    FitResult
        Number of epochs and best validation loss.

    Raises
    ------
    ValueError
        If the weights are not finite; if ``folder`` holds another training.
    """
    if folder is not None and (folder / RESULT_FILE).is_file():
        return _load_finished(folder, model, belongs_to)
    batches = batches_per_epoch(series, windows, batch_size)
    train = Windows(series, windows, batches=batches, size=batch_size, seed=seed)
    context = windows.context
    pairs = [((times[-context:], values[-context:]), end) for (times, values), end in ends]
    validation = [collate(pairs[i : i + VALIDATION_BATCH]) for i in range(0, len(pairs), VALIDATION_BATCH)]
    module = ForecastingModule(model, learning_rate=learning_rate, kl_weight=kl_weight)
    data = ForecastData(train, validation)
    result = fit(
        module, data, options, folder=folder, resume=True, callbacks=callbacks, progress_bar=progress_bar,
        belongs_to=belongs_to,
    )  # fmt: skip
    prepare_for_inference(model, learning_rate)
    model.double()
    if folder is not None and not result.interrupted:
        folder.mkdir(parents=True, exist_ok=True)
        weights = save({name: part.contiguous() for name, part in model.state_dict().items()})
        replace_file(folder / WEIGHTS_FILE, weights)
        write_json(folder / RESULT_FILE, {"belongs_to": belongs_to, **asdict(result)})
    return result


def _load_finished(folder: Path, model: LatentODE, belongs_to: str) -> FitResult:
    """Load the weights of a finished training into ``model`` and return its result."""
    content = read_json(folder / RESULT_FILE)
    if content.pop("belongs_to", None) != belongs_to:
        raise ValueError(f"{folder} holds another training; wanted the folder of this one, or a new one.")
    model.double().load_state_dict(load_file(folder / WEIGHTS_FILE))
    model.eval()
    return FitResult(**content)


@dataclass(frozen=True)
class WindowSpec:
    """Sizes of the windows that are drawn from series.

    Parameters
    ----------
    window : int
        Maximum number of observations in a window.
    context : int
        Maximum number of observations at its beginning that are encoded; the others are forecast.
    """

    window: int
    context: int

    def draw(self, series: Sequence[Pair], rng: np.random.Generator) -> tuple[Pair, Pair]:
        """Draw a window, from each series in proportion to its length; return the encoded part and the window."""
        weights = np.array([len(times) for times, _ in series], np.float64)
        times, values = series[rng.choice(len(series), p=weights / weights.sum())]
        length = min(self.window, len(times))
        if length > 4 and rng.random() < 0.5:  # shorter windows too: there may be little context at prediction time
            length = int(rng.integers(max(3, length // 2), length + 1))
        begin = int(rng.integers(0, len(times) - length + 1))
        most = min(self.context, length)
        encoded = int(rng.integers(min(FEWEST, most), most + 1))
        window = slice(begin, begin + length)
        return (times[begin : begin + encoded], values[begin : begin + encoded]), (times[window], values[window])


def collate(windows: Sequence[tuple[Pair, Pair]]) -> Batch:
    """Return windows as a batch, with times relative to the start of each window."""
    shifted = [[(times - encoded[0][0], values) for times, values in (encoded, all_)] for encoded, all_ in windows]
    observed, targets = zip(*shifted, strict=True)
    return Observations.gather(observed, start=0.0), Observations.gather(targets, start=0.0)


class Windows:
    """Batches of random windows, different in each epoch.

    Parameters
    ----------
    series : sequence of (times, values)
        Series to draw from.
    spec : WindowSpec
        Sizes of the windows.
    batches : int
        Batches per epoch.
    size : int
        Windows per batch.
    seed : int
        Seed; together with the epoch it determines the windows, also when the training is resumed.

    Attributes
    ----------
    epoch : callable
        Returns the current epoch. Called at the start of each iteration, since Lightning reuses its loaders.
    """

    def __init__(self, series: Sequence[Pair], spec: WindowSpec, *, batches: int, size: int, seed: int) -> None:
        self.series, self.spec, self.batches, self.size, self.seed = series, spec, batches, size, seed
        self.epoch: Callable[[], int] = lambda: 0

    def __len__(self) -> int:
        return self.batches

    def __iter__(self) -> Iterator[Batch]:
        rng = np.random.default_rng((self.seed, self.epoch()))
        for _ in range(self.batches):
            yield collate([self.spec.draw(self.series, rng) for _ in range(self.size)])


class ForecastData(L.LightningDataModule):
    """Windows to train on, and held-out ends of series to validate on.

    Parameters
    ----------
    train : Windows
        Training batches.
    validation : sequence of batches
        Observations to encode, and the observations that follow. May be empty.
    """

    def __init__(self, train: Windows, validation: Sequence[Batch]) -> None:
        super().__init__()
        self.train, self.validation = train, validation

    def train_dataloader(self) -> ResumableLoader[Batch]:  # noqa: D102
        trainer = self.trainer
        assert trainer is not None
        self.train.epoch = lambda: trainer.current_epoch
        return ResumableLoader(self.train)

    def val_dataloader(self) -> DataLoader:  # noqa: D102
        return DataLoader(cast(Any, self.validation), batch_size=None)


class ForecastingModule(TrainingModule):
    """Maximise the evidence lower bound of a latent ODE, with annealed divergence; validate by its forecasts.

    Parameters
    ----------
    model : LatentODE
        The model to train.
    learning_rate : float, default=1e-2
        As in `TrainingModule`.
    weight_decay : float, default=0.0
        As in `TrainingModule`.
    samples : int, default=1
        Samples of z0 per window.
    kl_weight : float, default=1.0
        Weight of the divergence after annealing.
    annealing : float, default=0.3
        Fraction of the training over which that weight rises linearly from 0.
    """

    def __init__(
        self,
        model: LatentODE,
        *,
        learning_rate: float = 1e-2,
        weight_decay: float = 0.0,
        samples: int = 1,
        kl_weight: float = 1.0,
        annealing: float = 0.3,
    ) -> None:
        super().__init__(learning_rate, weight_decay)
        self.model, self.samples, self.kl_weight, self.annealing = model, samples, kl_weight, annealing

    def training_step(self, batch: Batch, index: int) -> Tensor:  # noqa: D102
        observed, targets = batch
        elbo = self.model.elbo(observed, targets, samples=self.samples, kl_weight=self._kl_weight())
        values = targets.seen.sum() / len(targets)
        loss = elbo.loss / values  # per value, so that the learning rate does not depend on their number
        self.log_mean("train_loss", loss, len(observed))
        self.log_mean("train_kl", elbo.kl.mean(), len(observed))
        return loss

    def validation_step(self, batch: Batch, index: int) -> None:  # noqa: D102
        observed, targets = batch
        z = self.model.follow(self.model.encode(observed).mean[None], observed.start, targets.times).z
        error = (self.model.likelihood.mean(self.model.decode(z)[0]) - targets.values) ** 2
        values = int(targets.seen.sum())
        # Squared error, not likelihood: an overconfident scale would dominate the likelihood of few values far ahead.
        loss = torch.where(targets.seen, error, 0).sum() / max(1, values)
        self.log("val_loss", loss, on_epoch=True, batch_size=values)

    def _kl_weight(self) -> float:
        steps = self.annealing * int(self.trainer.estimated_stepping_batches)
        return self.kl_weight * min(1.0, (1 + self.trainer.global_step) / max(1.0, steps))


def batches_per_epoch(series: Sequence[Pair], windows: WindowSpec, size: int) -> int:
    """Return the number of batches for which an epoch draws each observation about twice, from `LEAST` to `MOST`."""
    observations = sum(len(times) for times, _ in series)
    return min(MOST, max(LEAST, math.ceil(2 * observations / (windows.window * size))))
