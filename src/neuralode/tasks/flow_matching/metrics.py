"""Compare samples with real examples: energy distance, and classifiers trained on one and tested on the other."""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Float, Int64
from sklearn.svm import SVC
from torch import Tensor

PERMUTATIONS = 400


def two_sample_test(
    a: Float[Tensor, "count *event"], b: Float[Tensor, "count *event"], seed: int = 0
) -> dict[str, float]:
    """Test whether two samples come from the same distribution, by the energy distance and permutations.

    The distance 2 E|a − b| − E|a − a′| − E|b − b′| is 0 only for equal distributions. Permutations of the pooled sample
    give its distribution under equality (Székely & Rizzo, *Energy statistics*, 2013).

    Parameters
    ----------
    a, b : Tensor[count, *event]
        Samples of the same size.
    seed : int, default=0
        Seed of the permutations.

    Returns
    -------
    dict
        ``energy_distance``; ``energy_by_chance``, its 95th percentile for equal distributions; ``p_value``.

    Raises
    ------
    ValueError
        If the shapes differ.

    Examples
    --------
    >>> generator = torch.Generator().manual_seed(0)
    >>> a, b = torch.randn(2, 200, 2, generator=generator)
    >>> two_sample_test(a, b)["p_value"] > 0.05, two_sample_test(a, b + 0.5)["p_value"] < 0.01
    (True, True)
    """
    if a.shape != b.shape:
        raise ValueError(f"b has shape {list(b.shape)}; wanted that of a, {list(a.shape)}.")
    pooled = torch.cat((a, b)).flatten(1).double()
    distance = torch.cdist(pooled, pooled)
    # With signs s of +1 for a and −1 for b, the energy distance is −sᵀ D s / count².
    signs = torch.ones(len(pooled), dtype=torch.float64)
    signs[len(a) :] = -1
    rng = np.random.default_rng(seed)
    permuted = (signs[torch.as_tensor(rng.permutation(len(pooled)))] for _ in range(PERMUTATIONS))
    all_signs = torch.stack([signs, *permuted])
    energies = -((all_signs @ distance) * all_signs).sum(1) / len(a) ** 2
    energy, by_chance = energies[0], energies[1:]
    return {
        "energy_distance": round(float(energy), 6),
        "energy_by_chance": round(float(by_chance.quantile(0.95)), 6),
        "p_value": round((1 + int((by_chance >= energy).sum())) / (1 + PERMUTATIONS), 4),
    }


def image_metrics(
    samples: Float[Tensor, "count *event"],
    labels: Int64[Tensor, " count"],
    *,
    train: tuple[Tensor, ...],
    test: tuple[Tensor, ...],
) -> dict[str, float]:
    """Measure whether samples have the right class, vary as real images do, and are more than copies.

    Parameters
    ----------
    samples : Tensor[count, *event]
        Samples.
    labels : LongTensor[count]
        Class that each was drawn for.
    train, test : tuple of Tensor
        Real images and labels: those of the training, and held-out ones.

    Returns
    -------
    dict
        ``class_accuracy``: accuracy on samples of a support vector machine trained on real images, beside its accuracy
        on test images, ``class_accuracy_of_test``. ``taught_accuracy``: accuracy on test images of one trained on
        samples, which requires them to vary as real images do. ``nearest``: median distance from a sample to its
        nearest training image, 0 for copies, beside that of test images, ``nearest_of_test``.
    """
    real, taught = _fit_svm(*train), _fit_svm(samples, labels)
    return {
        "class_accuracy": _accuracy(real, samples, labels),
        "class_accuracy_of_test": _accuracy(real, *test),
        "taught_accuracy": _accuracy(taught, *test),
        "nearest": _median_distance(samples, train[0]),
        "nearest_of_test": _median_distance(test[0], train[0]),
    }


def _fit_svm(images: Tensor, labels: Tensor) -> SVC:
    return SVC(C=10.0).fit(images.flatten(1).numpy(), labels.numpy())


def _accuracy(svm: SVC, images: Tensor, labels: Tensor) -> float:
    return round(float(svm.score(images.flatten(1).numpy(), labels.numpy())), 4)


def _median_distance(x: Tensor, images: Tensor) -> float:
    """Return the median distance to the nearest image."""
    return round(float(torch.cdist(x.flatten(1), images.flatten(1)).amin(1).median()), 4)
