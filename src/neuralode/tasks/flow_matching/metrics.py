"""How good samples are: beside as many that are real, and as judged by a classifier that saw only real ones."""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Float, Int64
from sklearn.svm import SVC
from torch import Tensor

PERMUTATIONS = 400


def two_samples(a: Float[Tensor, "count *event"], b: Float[Tensor, "count *event"], seed: int = 0) -> dict[str, float]:
    """Whether two samples may come from one distribution, by their energy distance and a permutation test.

    The distance 2 E|a − b| − E|a − a′| − E|b − b′| is 0 for equal distributions alone; how large it comes out by chance
    is seen when both are shuffled (Székely & Rizzo, *Energy statistics*, 2013).

    Parameters
    ----------
    a, b : Tensor[count, *event]
        As many of each.
    seed : int
        Of the permutations.

    Returns
    -------
    dict
        ``energy_distance``; ``energy_by_chance``, its 95th percentile if both are of one distribution; ``p_value``, the
        probability of a distance as large then.

    Examples
    --------
    >>> drawing = torch.Generator().manual_seed(0)
    >>> a, b = torch.randn(2, 200, 2, generator=drawing)
    >>> two_samples(a, b)["p_value"] > 0.05, two_samples(a, b + 0.5)["p_value"] < 0.01
    (True, True)
    """
    if a.shape != b.shape:
        raise ValueError(f"b has shape {list(b.shape)}; wanted that of a, {list(a.shape)}.")
    both = torch.cat((a, b)).flatten(1).double()
    apart = torch.cdist(both, both)
    # with +1 for one sample and −1 for the other the distance is −sᵀ D s / count²
    signs = torch.ones(len(both), dtype=torch.float64)
    signs[len(a) :] = -1
    rng = np.random.default_rng(seed)
    shuffled = torch.stack([signs, *(signs[torch.as_tensor(rng.permutation(len(both)))] for _ in range(PERMUTATIONS))])
    distances = -((shuffled @ apart) * shuffled).sum(1) / len(a) ** 2
    found, chance = distances[0], distances[1:]
    return {
        "energy_distance": round(float(found), 6),
        "energy_by_chance": round(float(chance.quantile(0.95)), 6),
        "p_value": round((1 + int((chance >= found).sum())) / (1 + PERMUTATIONS), 4),
    }


def judged(
    samples: Float[Tensor, "count *event"],
    asked: Int64[Tensor, " count"],
    train: tuple[Tensor, ...],
    test: tuple[Tensor, ...],
) -> dict[str, float]:
    """Whether samples are of the classes that were asked for, as varied as real ones, and more than copies.

    Support vector machines judge. One that learned from the real images names the samples: `class_accuracy`, beside its
    accuracy on real images that it has not seen. Another one learns from the samples alone and names those real images:
    `taught_accuracy`, for which it has to have seen what they vary in. How far the nearest image that was learned from
    is, in the median, tells memory from learning: of copies it is 0, of real images `nearest_of_test`.

    Parameters
    ----------
    samples, asked : Tensor[count, *event], LongTensor[count]
        Samples, and the class of each that was asked for.
    train, test : tuple of tensors
        Images and labels: that were learned from, and that were held out.
    """
    real, taught = _machine(*train), _machine(samples, asked)
    return {
        "class_accuracy": _share(real, samples, asked),
        "class_accuracy_of_test": _share(real, *test),
        "taught_accuracy": _share(taught, *test),
        "nearest": _nearest(samples, train[0]),
        "nearest_of_test": _nearest(test[0], train[0]),
    }


def _machine(images: Tensor, labels: Tensor) -> SVC:
    return SVC(C=10.0).fit(images.flatten(1).numpy(), labels.numpy())


def _share(machine: SVC, images: Tensor, labels: Tensor) -> float:
    return round(float(machine.score(images.flatten(1).numpy(), labels.numpy())), 4)


def _nearest(x: Tensor, images: Tensor) -> float:
    """The distance to the nearest image, in the median."""
    return round(float(torch.cdist(x.flatten(1), images.flatten(1)).amin(1).median()), 4)
