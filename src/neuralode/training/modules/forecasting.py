"""Lightning's view of forecasting: windows of series, of which the first part is read and all is to be explained."""

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
from neuralode.training.fit import Effort, Fitted, Watched, fit, settle
from neuralode.training.resumable_loader import Resumable
from neuralode.training.run import read_json, write_json

Pair = tuple[np.ndarray, np.ndarray]  # times [n] and values [n, channels] with NaN gaps, on the model's scales
Batch = tuple[Observations, Observations]  # what is read, and what is to be explained

LEAST, MOST = 20, 100  # batches an epoch: of fewer, a hundred epochs are too few steps for the shortest table
FEWEST = 2  # observations to read: one alone says nothing of where things are going
LEARNED, DONE = "learned.safetensors", "done.json"  # of a training that came to its end, beside its checkpoints
AT_ONCE = 64  # held-out ends in a batch


def learn(
    model: LatentODE,
    series: Sequence[Pair],
    ends: Sequence[tuple[Pair, Pair]],
    cut: Cut,
    effort: Effort,
    *,
    seed: int,
    batch_size: int,
    learning_rate: float,
    kl_weight: float,
    folder: Path | None = None,
    callbacks: Sequence[Callback] = (),
    progress_bar: bool = False,
    belongs_to: str = "",
) -> Fitted:
    """Train ``model`` on windows of series, and leave it on the CPU, to be evaluated in double precision.

    Parameters
    ----------
    model : LatentODE
        To train.
    series : sequence of (times, values)
        To learn from.
    ends : sequence of (series, end)
        What is read, the last of it, and what follows: decides which epoch is kept. Without, the last one is.
    cut : Cut
        How windows are cut.
    effort : Effort
        How long, and on what.
    seed : int
        Of the windows that are drawn.
    batch_size, learning_rate, kl_weight
        Windows a step; of the optimizer; weight of the divergence.
    folder : Path, optional
        Where checkpoints stay; a training that was cut off goes on from what it finds there, one that is done is not
        done again.
    callbacks, progress_bar, belongs_to
        Of `neuralode.training.fit.fit`.

    Raises
    ------
    ValueError
        Where it came to weights that are not finite; where ``folder`` holds another training.
    """
    if folder is not None and (folder / DONE).is_file():
        return _done(folder, model, belongs_to)
    windows = Windows(series, cut, batches_an_epoch(series, cut, batch_size), batch_size, seed)
    read = [((times[-cut.context :], values[-cut.context :]), end) for (times, values), end in ends]
    held = [together(read[first : first + AT_ONCE]) for first in range(0, len(read), AT_ONCE)]
    task = Forecasting(model, learning_rate=learning_rate, kl_weight=kl_weight)
    data = ForecastData(windows, held)
    done = fit(
        task, data, effort, folder=folder, resume=True, callbacks=callbacks, progress_bar=progress_bar,
        belongs_to=belongs_to,
    )  # fmt: skip
    settle(model, learning_rate)
    model.double()
    if folder is not None and not done.interrupted:
        folder.mkdir(parents=True, exist_ok=True)
        replace_file(folder / LEARNED, save({name: part.contiguous() for name, part in model.state_dict().items()}))
        write_json(folder / DONE, {"belongs_to": belongs_to, **asdict(done)})
    return done


def _done(folder: Path, model: LatentODE, belongs_to: str) -> Fitted:
    """What a training that came to its end left: its weights, in ``model``, and how it went."""
    told = read_json(folder / DONE)
    if told.pop("belongs_to", None) != belongs_to:
        raise ValueError(f"{folder} holds another training; wanted a folder of this one, or a new one.")
    model.double().load_state_dict(load_file(folder / LEARNED))
    model.eval()
    return Fitted(**told)


@dataclass(frozen=True)
class Cut:
    """How windows are cut from series.

    Parameters
    ----------
    window : int
        Observations of a window, at most.
    context : int
        Of these, at most so many at its beginning are read; the others are forecast.
    """

    window: int
    context: int

    def drawn(self, series: Sequence[Pair], rng: np.random.Generator) -> tuple[Pair, Pair]:
        """One window at random, longer series more often: the part that is read, and the whole."""
        weights = np.array([len(times) for times, _ in series], np.float64)
        times, values = series[rng.choice(len(series), p=weights / weights.sum())]
        length = min(self.window, len(times))
        if length > 4 and rng.random() < 0.5:  # shorter ones, too: at prediction time there may be little to read
            length = int(rng.integers(max(3, length // 2), length + 1))
        begin = int(rng.integers(0, len(times) - length + 1))
        most = min(self.context, length)
        read = int(rng.integers(min(FEWEST, most), most + 1))
        part = slice(begin, begin + length)
        return (times[begin : begin + read], values[begin : begin + read]), (times[part], values[part])


def together(windows: Sequence[tuple[Pair, Pair]]) -> Batch:
    """Windows as a batch, each beginning at time 0."""
    shifted = [[(times - read[0][0], values) for times, values in (read, whole)] for read, whole in windows]
    observed, targets = zip(*shifted, strict=True)
    return Observations.gather(observed, start=0.0), Observations.gather(targets, start=0.0)


class Windows:
    """Each epoch other windows, drawn at random.

    Parameters
    ----------
    series : sequence of (times, values)
        To draw from.
    cut : Cut
        How.
    batches, size : int
        Batches an epoch, windows a batch.
    seed : int
        Of what is drawn; the epoch enters, so that a training that is resumed draws what it would have drawn.

    Attributes
    ----------
    epoch : callable
        Which epoch it is, asked whenever one begins: Lightning keeps its loaders from the first to the last.
    """

    def __init__(self, series: Sequence[Pair], cut: Cut, batches: int, size: int, seed: int) -> None:
        self.series, self.cut, self.batches, self.size, self.seed = series, cut, batches, size, seed
        self.epoch: Callable[[], int] = lambda: 0

    def __len__(self) -> int:
        return self.batches

    def __iter__(self) -> Iterator[Batch]:
        rng = np.random.default_rng((self.seed, self.epoch()))
        for _ in range(self.batches):
            yield together([self.cut.drawn(self.series, rng) for _ in range(self.size)])


class ForecastData(L.LightningDataModule):
    """Windows to learn from, and held-out ends of series to decide by.

    Parameters
    ----------
    train : Windows
        To learn from.
    held : sequence of batches
        What is read, and what follows; empty where nothing is held out.
    """

    def __init__(self, train: Windows, held: Sequence[Batch]) -> None:
        super().__init__()
        self.train, self.held = train, held

    def train_dataloader(self) -> Resumable[Batch]:  # noqa: D102
        trainer = self.trainer
        assert trainer is not None
        self.train.epoch = lambda: trainer.current_epoch
        return Resumable(self.train)

    def val_dataloader(self) -> DataLoader:  # noqa: D102
        return DataLoader(cast(Any, self.held), batch_size=None)


class Forecasting(Watched):
    """Train a latent ODE by its evidence lower bound, the divergence annealed; validate on what follows.

    Parameters
    ----------
    model : LatentODE
        To train.
    learning_rate, weight_decay
        Of `Watched`.
    samples : int
        Of z0 for each window.
    kl_weight : float
        Of the divergence once it is annealed.
    annealing : float
        Over which part of the training its weight rises.
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
        elbo = self.model.elbo(observed, targets, samples=self.samples, kl_weight=self._weight())
        values = targets.seen.sum() / len(targets)
        loss = elbo.loss / values  # a value, so that the rate does not depend on how many there are
        self.log_mean("train_loss", loss, len(observed))
        self.log_mean("train_kl", elbo.kl.mean(), len(observed))
        return loss

    def validation_step(self, batch: Batch, index: int) -> None:  # noqa: D102
        observed, targets = batch
        z = self.model.follow(self.model.encode(observed).mean[None], observed.start, targets.times).z
        error = (self.model.likelihood.mean(self.model.decode(z)[0]) - targets.values) ** 2
        values = int(targets.seen.sum())
        # the squared error, not the likelihood: that of few values far ahead is soon ruled by an overconfident scale
        loss = torch.where(targets.seen, error, 0).sum() / max(1, values)
        self.log("val_loss", loss, on_epoch=True, batch_size=values)

    def _weight(self) -> float:
        steps = self.annealing * int(self.trainer.estimated_stepping_batches)
        return self.kl_weight * min(1.0, (1 + self.trainer.global_step) / max(1.0, steps))


def batches_an_epoch(series: Sequence[Pair], cut: Cut, size: int, least: int = LEAST, most: int = MOST) -> int:
    """So many that an epoch sees each observation about twice, within reason."""
    observations = sum(len(times) for times, _ in series)
    return min(most, max(least, math.ceil(2 * observations / (cut.window * size))))
