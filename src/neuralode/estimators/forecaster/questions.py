"""Which observations are read to say what was, or will be, at given times of a series."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from neuralode.nn import LatentODE, Observations
from neuralode.training.modules.forecasting import Pair

ROWS = 8192  # trajectories that are followed at once


@dataclass(frozen=True, eq=False)
class Question:
    """A stretch of one series to read, and the times asked about.

    Attributes
    ----------
    number : int
        Of the series.
    read : slice
        Its observations that are read.
    places : array of int
        Where among the times asked of the series these stand.
    """

    number: int
    read: slice
    places: np.ndarray


def questions(series: Sequence[Pair], wanted: Sequence[np.ndarray], context: int) -> list[Question]:
    """Cut what is asked of each series into stretches of at most ``context`` observations.

    What lies beyond the last observation is forecast from those before it; what lies within is read off a stretch of
    which it is the middle, as far as the ends allow.

    Examples
    --------
    >>> t = np.arange(10.0)
    >>> [(q.read, q.places.tolist()) for q in questions([(t, t[:, None])], [np.array([0.5, 9.5])], context=4)]
    [(slice(0, 4, None), [0]), (slice(6, 10, None), [1])]
    """
    asked = []
    for number, ((times, _), at) in enumerate(zip(series, wanted, strict=True)):
        stride = max(1, context // 4)
        latest = max(0, len(times) - context)
        middle = np.searchsorted(times, at, side="right") - context // 2
        begins = np.clip(middle // stride * stride, 0, latest)
        begins = np.where(at > times[-1], latest, begins)
        asked += [
            Question(number, slice(int(begin), int(begin) + context), np.flatnonzero(begins == begin))
            for begin in np.unique(begins)
        ]
    return asked


@torch.no_grad()
def answer(
    model: LatentODE,
    series: Sequence[Pair],
    wanted: Sequence[np.ndarray],
    context: int,
    samples: int,
    seed: int,
    growth: np.ndarray | float = 0.0,
) -> list[tuple[np.ndarray, np.ndarray]]:
    """Draw what may have been at the wanted times of each series, on the model's scales.

    Parameters
    ----------
    growth : array[channels]
        How channels grow with these scales, at rate exp(growth · x): 0 where they grow in proportion. Of what grows
        like that, the mean around m with deviation s is that at m + growth · s² / 2.

    Returns
    -------
    list of (means, values)
        For each series the means along each trajectory and the observations drawn around them, both [samples, times,
        channels]. They depend on the series alone, not on its company: all draw the same random numbers.
    """
    asked = questions(series, wanted, context)
    shapes = [(samples, len(at), model.channels) for at in wanted]
    found = [(np.zeros(shape), np.zeros(shape)) for shape in shapes]
    for batch in _in_batches(asked, max(1, ROWS // samples)):
        parts = [(series[q.number][0][q.read], series[q.number][1][q.read]) for q in batch]
        read = Observations.gather([(t - t[0], x) for t, x in parts], start=0.0, dtype=torch.float64)
        orders = [np.argsort(wanted[q.number][q.places], kind="stable") for q in batch]
        ahead = [
            torch.tensor(wanted[q.number][q.places][order] - t[0])
            for q, order, (t, _) in zip(batch, orders, parts, strict=True)
        ]
        longest = max(map(len, ahead))
        times = torch.stack([torch.cat((t, t[-1:].expand(longest - len(t)))) for t in ahead])
        posterior = model.encode(read)
        noise = torch.randn(samples, 1, model.latent, generator=_generator(seed), dtype=torch.float64)
        z0 = posterior.mean + posterior.stddev * noise
        decoded = model.decode(model.follow(z0, read.start, times).z)
        for row, (q, order) in enumerate(zip(batch, orders, strict=True)):
            own = decoded[:, row, : len(order)]
            means, values = found[q.number]
            spread = model.likelihood.spread(own).numpy()
            means[:, q.places[order]] = model.likelihood.mean(own).numpy() + growth * spread**2 / 2
            values[:, q.places[order]] = model.likelihood.sample(own, _generator(seed + 1)).numpy()
    return found


@torch.no_grad()
def draw(model: LatentODE, count: int, times: np.ndarray, seed: int) -> np.ndarray:
    """New series [count, times, channels] on the model's scales, z0 drawn from its prior at time 0."""
    generator = _generator(seed)
    z0 = torch.randn(1, count, model.latent, generator=generator, dtype=torch.float64)
    clock = torch.as_tensor(times, dtype=torch.float64).expand(count, -1)
    z = model.follow(z0, torch.zeros(count, dtype=torch.float64), clock).z
    return model.likelihood.sample(model.decode(z), generator)[0].numpy()


def _in_batches(asked: list[Question], size: int) -> list[list[Question]]:
    """Stretches that ask for about as many times together: a batch is as wide as its widest."""
    asked = sorted(asked, key=lambda q: len(q.places))
    return [asked[first : first + size] for first in range(0, len(asked), size)]


def _generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)
