"""Precision against work: a trained model, solved at one tolerance after another."""

from __future__ import annotations

import time
from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from neuralode.nn import NeuralODE, ode_blocks
from neuralode.tasks.images.module import evaluations

RTOLS = (1e-1, 1e-2, 1e-3, 1e-4, 1e-5)
# The reference is solved in float64, so that float32's rounding is seen as the error that it is, and far more tightly
# than any point; the kinks of ReLU make that slow, so the error is measured on some of the images.
REFERENCE_RTOL = 1e-7
ERROR_IMAGES = 64
AT_ONCE = 1000  # images a batch


@dataclass(frozen=True)
class Point:
    """What a trained model does at one tolerance.

    Attributes
    ----------
    rtol, atol : float
        The tolerances.
    evaluations : float
        Of the field, per image.
    error : float
        Of the state in which the ODE ends, relative to its size, over the first `ERROR_IMAGES` images.
    accuracy : float
        Fraction of the images that are classified rightly.
    seconds : float
        For all images together.
    """

    rtol: float
    atol: float
    evaluations: float
    error: float
    accuracy: float
    seconds: float


def sweep(
    model: nn.Module,
    images: Float[Tensor, "batch channels height width"],
    labels: Int[Tensor, " batch"],
    rtols: Sequence[float] = RTOLS,
) -> list[Point]:
    """Solve the one ODE inside ``model`` at each of ``rtols``; atol keeps its ratio to rtol.

    Parameters
    ----------
    model : Module
        A trained classifier with one `NeuralODE` that takes adaptive steps. It is left as it was.
    images, labels
        What to classify.
    rtols : sequence of float
        The relative tolerances; any order.

    Raises
    ------
    ValueError
        If the model has no ODE, or one with a fixed step: there is no tolerance to vary.
    """
    model = deepcopy(model).eval()
    block = _adaptive_block(model)
    ratio = float(block.atol) / float(block.rtol)
    with torch.no_grad():
        tight = min(REFERENCE_RTOL, min(rtols) / 100)
        exact = _end_state(deepcopy(model).double(), images[:ERROR_IMAGES].double(), tight, tight * ratio)
        return [_point(model, images, labels, rtol, rtol * ratio, exact) for rtol in rtols]


def _point(model: nn.Module, images: Tensor, labels: Tensor, rtol: float, atol: float, exact: Tensor) -> Point:
    error = (_end_state(model, images[: len(exact)], rtol, atol) - exact).norm() / exact.norm()
    right, work = 0, 0.0
    started = time.perf_counter()
    for some, answers in zip(images.split(AT_ONCE), labels.split(AT_ONCE), strict=True):
        right += int((model(some).argmax(dim=1) == answers).sum())
        work += len(some) * evaluations(model)
    seconds = time.perf_counter() - started
    return Point(rtol, atol, work / len(images), float(error), right / len(images), seconds)


def _end_state(model: nn.Module, images: Tensor, rtol: float, atol: float) -> Tensor:
    block = _adaptive_block(model)
    block.rtol, block.atol = rtol, atol
    ends: list[Tensor] = []
    with block.register_forward_hook(lambda *call: ends.append(call[-1])):
        model(images)
    return ends[0]


def _adaptive_block(model: nn.Module) -> NeuralODE:
    blocks = ode_blocks(model)
    if len(blocks) != 1:
        raise ValueError(f"a tolerance sweep needs a model with one ODE inside; this one has {len(blocks)}.")
    if blocks[0].step_size is not None:
        raise ValueError(f"method {blocks[0].method!r} takes fixed steps: it has no tolerance to vary.")
    return blocks[0]
