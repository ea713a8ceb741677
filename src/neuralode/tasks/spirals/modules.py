"""The models that forecast spirals, what they learn from, and Lightning's view of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any, cast

import lightning as L
import numpy as np
import torch
from jaxtyping import Float, Float64
from torch import Tensor, nn
from torch.utils.data import DataLoader

from neuralode.data.spirals import WINDOW
from neuralode.nn import RNN, LatentODE, Observations, mlp
from neuralode.training.module import TrainingModule
from neuralode.training.resumable_loader import ResumableLoader

Batch = tuple[Observations, Observations]  # what is read, and what is to be explained

SHORTEST = 30  # points of a window, kept or not, that are read at least
REMAINING = 0.2  # time from which observations say well where a state is: later ones in what is read are not asked
ANNEALING = 0.3  # of the training, until divergence and consistency have their full weight
WARM_UP = 0.1  # of the training, until the learning rate is at its highest


class Turning(nn.Module):
    """A field ``dz/dt = 4 MLP(z)``: a window, one unit of time, is more than half a turn, which MLPs find steep.

    Examples
    --------
    >>> Turning(4, 16)(torch.tensor(0.0), torch.zeros(3, 4)).shape
    torch.Size([3, 4])
    """

    def __init__(self, latent: int, width: int) -> None:
        super().__init__()
        self.net = mlp(latent, width, width, latent)

    def forward(self, t: Tensor, z: Tensor) -> Tensor:
        """The slope at z."""
        return 4 * self.net(z)


class Autoregressive(nn.Module):
    """A GRU that says what the next point will be, given how long until then, and forecasts from what it said.

    Parameters
    ----------
    channels, hidden, width : int
        Of a point; of the state; of the hidden layer between the state and a point.

    Examples
    --------
    >>> model = Autoregressive(2, 8, 16)
    >>> batch = Observations.gather([([0.0, 0.02], [[1.0, 2.0], [3.0, 4.0]])])
    >>> model(batch).shape, model.forecast(batch, torch.arange(5) / 100).shape
    (torch.Size([1, 2, 2]), torch.Size([1, 5, 2]))
    """

    def __init__(self, channels: int, hidden: int, width: int) -> None:
        super().__init__()
        self.reader = RNN(channels, hidden)
        self.head = mlp(hidden + 1, width, channels)

    def forward(self, observed: Observations) -> Float[Tensor, "series steps channels"]:
        """What each observation is expected to be, knowing those before it."""
        known = nn.functional.pad(self.reader.states(observed)[:, :-1], (0, 0, 1, 0))
        since = observed.times.diff(dim=1, prepend=observed.start[:, None])
        return self._next(known, since)

    def forecast(self, observed: Observations, times: Float64[Tensor, " steps"]) -> Tensor:
        """The expected points at ``times``, an even grid that holds the observations' times: [series, steps, channels].

        Up to the last observation each is expected from those before it; from there on from what was forecast, which
        is read as often as observations were: of shorter steps than those between observations it has learned nothing.
        """
        given, values = _on_grid(observed, times)
        gap = (observed.times[:, -1] - observed.start).sum() / observed.lengths.sum()
        every = max(1, round(float(gap / (times[1] - times[0]))))
        last = torch.where(given, torch.arange(len(times), device=times.device), -1).amax(1)
        h = values.new_zeros(len(observed), self.reader.hidden)
        clock, forecast = observed.start, []
        for step, time in enumerate(times):
            since = time - clock
            expected = self._next(h, since)
            forecast.append(expected)
            read = given[:, step] | (step > last) & ((step - last) % every == 0)
            point = torch.where(given[:, step, None], values[:, step], expected)
            shown = torch.cat((point, torch.ones_like(point), since[:, None].to(point.dtype)), -1)
            h = torch.where(read[:, None], self.reader.cell(shown, h), h)
            clock = torch.where(read, time, clock)
        return torch.stack(forecast, 1)

    def _next(self, h: Float[Tensor, "... hidden"], since: Tensor) -> Tensor:
        return self.head(torch.cat((h, since[..., None].to(h.dtype)), -1))


def _on_grid(observed: Observations, times: Tensor) -> tuple[Tensor, Tensor]:
    """Which of ``times`` were observed, and the values there."""
    near = (observed.times[..., None] - times.double()).abs() < 0.5 * (times[1] - times[0])
    near = near & observed.inside[..., None]
    return near.any(1), torch.einsum("sng,snc->sgc", near.to(observed.values.dtype), observed.values)


class Forecaster(TrainingModule):
    """A model of spirals, validated by its forecasts of the second half of windows."""

    def forecast(self, observed: Observations, times: Float64[Tensor, " steps"]) -> Tensor:
        """The expected points at ``times``, from 0 on: [series, steps, channels]."""
        raise NotImplementedError

    def validation_step(self, batch: Batch, index: int) -> None:  # noqa: D102
        observed, targets = batch
        times = torch.arange(WINDOW, dtype=torch.float64, device=targets.times.device) / WINDOW
        given, values = _on_grid(targets, times)
        asked = given & (times >= 0.5)
        error = (self.forecast(observed, times) - values)[asked].square().mean()
        self.log("val_loss", error, on_epoch=True, batch_size=len(targets))

    def configure_optimizers(self) -> Any:
        """Adam under a one-cycle schedule: without its slow start the field may throw states far away."""
        optimizer = torch.optim.Adam(self.parameters(), self.learning_rate)
        schedule = torch.optim.lr_scheduler.OneCycleLR(
            optimizer, self.learning_rate, total_steps=max(2, self._steps()), pct_start=WARM_UP, cycle_momentum=False
        )
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def _steps(self) -> int:
        return int(self.trainer.estimated_stepping_batches)


class Explaining(Forecaster):
    """Train a latent ODE by its evidence lower bound, and its states to be consistent in time."""

    def __init__(self, model: LatentODE, learning_rate: float, consistency: float) -> None:
        super().__init__(learning_rate)
        self.model, self.consistency = model, consistency

    def training_step(self, batch: Batch, index: int) -> Tensor:  # noqa: D102
        observed, targets = batch
        weight = min(1.0, (1 + self.trainer.global_step) / (ANNEALING * self._steps()))
        elbo = self.model.elbo(
            observed,
            targets,
            kl_weight=weight,
            consistency=weight * self.consistency,
            within=observed.times <= observed.times[:, -1:] - REMAINING,
        )
        parts = {"train_loss": elbo.loss, "train_kl": elbo.kl.mean(), "train_inconsistency": elbo.inconsistency.mean()}
        for name, part in parts.items():
            self.log_mean(name, part, len(targets))
        return elbo.loss / WINDOW  # so that the gradient's norm is not always clipped

    def forecast(self, observed: Observations, times: Float64[Tensor, " steps"]) -> Tensor:  # noqa: D102
        mean = self.model.encode(observed).mean[None]
        z = self.model.follow(mean, observed.start, times.expand(len(observed), -1)).z[0]
        return self.model.likelihood.mean(self.model.decode(z))


class Stepping(Forecaster):
    """Train a recurrent network to say the next observation."""

    def __init__(self, model: Autoregressive, learning_rate: float) -> None:
        super().__init__(learning_rate)
        self.model = model

    def training_step(self, batch: Batch, index: int) -> Tensor:  # noqa: D102
        observed, _ = batch
        loss = (self.model(observed) - observed.values)[observed.seen].square().mean()
        self.log_mean("train_loss", loss, len(observed))
        return loss

    def forecast(self, observed: Observations, times: Float64[Tensor, " steps"]) -> Tensor:  # noqa: D102
        return self.model.forecast(observed, times)


def part(observed: Observations, begin: int, end: int) -> Batch:
    """What is read between two points of the windows, and all from the first of them on; time 0 is there.

    Series that have nothing to read are left out.

    Examples
    --------
    >>> batch = Observations.gather([([0.1, 0.4, 0.8], [[1.0], [2.0], [3.0]]), ([0.9], [[4.0]])], start=0.0)
    >>> read, targets = part(batch, 30, 50)
    >>> [round(t, 2) for t in read.times[0].tolist()], [round(t, 2) for t in targets.times[0].tolist()]
    ([0.1], [0.1, 0.5])
    """
    points = (observed.times * WINDOW).round()
    reads = ((points >= begin) & (points < end) & observed.inside).any(1).nonzero()[:, 0]
    observed, points = observed[reads], points[reads][:, : int(observed.lengths[reads].max())]
    shifted = replace(observed, times=observed.times - begin / WINDOW)
    later = points >= begin
    return shifted.keeping(later & (points < end)), shifted.keeping(later)


class Parts:
    """Batches of windows, some of them shortened: each epoch others.

    Parameters
    ----------
    observed : Observations
        All windows.
    batches, size : int
        Batches an epoch, windows a batch.
    shorter : float
        The share of shortened batches: a model that has read less has the more to forecast, and learns to read less.
    seed : int
        Of what is drawn.
    epoch : callable
        Which it is: so training that is resumed draws what it would have drawn.
    """

    def __init__(
        self, observed: Observations, batches: int, size: int, shorter: float, seed: int, epoch: Callable[[], int]
    ) -> None:
        self.observed, self.batches, self.size, self.shorter = observed, batches, size, shorter
        self.seed, self.epoch = seed, epoch

    def __len__(self) -> int:
        return self.batches

    def __iter__(self) -> Iterator[Batch]:
        rng = np.random.default_rng((self.seed, self.epoch()))
        for _ in range(self.batches):
            rows = torch.as_tensor(rng.permutation(len(self.observed))[: self.size])
            begin, end = 0, WINDOW
            if rng.random() < self.shorter:
                begin = int(rng.integers(0, WINDOW // 2 + 1))
                end = int(rng.integers(begin + SHORTEST, WINDOW + 1))
            yield part(self.observed[rows], begin, end)


class SpiralsData(L.LightningDataModule):
    """Windows to learn from, and others to validate by: the second half is forecast from the first."""

    def __init__(
        self, train: Observations, validation: Observations, batches: int, size: int, shorter: float, seed: int
    ) -> None:
        super().__init__()
        self.train, self.validation = train, validation
        self.batches, self.size, self.shorter, self.seed = batches, size, shorter, seed

    def train_dataloader(self) -> ResumableLoader[Batch]:  # noqa: D102
        trainer = self.trainer
        assert trainer is not None
        parts = Parts(self.train, self.batches, self.size, self.shorter, self.seed, lambda: trainer.current_epoch)
        return ResumableLoader(parts)

    def val_dataloader(self) -> DataLoader:  # noqa: D102
        return DataLoader(cast(Any, [part(self.validation, 0, WINDOW // 2)]), batch_size=None)
