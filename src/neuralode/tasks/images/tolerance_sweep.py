"""Accuracy against work: evaluate a trained model at several solver tolerances."""

from __future__ import annotations

import time
from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from neuralode.nn import NeuralODE, ode_blocks
from neuralode.tasks.images.module import mean_evaluations

RTOLS = (1e-1, 1e-2, 1e-3, 1e-4, 1e-5)
# The reference is solved in float64, so that rounding in float32 counts as an error, and much more tightly than any
# point. The kinks of ReLU make that slow, so the error is measured on a few images only.
REFERENCE_RTOL = 1e-7
ERROR_IMAGES = 64
AT_ONCE = 1000  # images per batch


@dataclass(frozen=True)
class Point:
    """Result at one tolerance.

    Attributes
    ----------
    rtol, atol : float
        The tolerances.
    evaluations : float
        Field evaluations per image.
    error : float
        Relative error of the final state of the ODE, over the first `ERROR_IMAGES` images.
    accuracy : float
        Fraction of the images that are classified correctly.
    seconds : float
        Time for all images.
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
    *,
    rtols: Sequence[float] = RTOLS,
) -> list[Point]:
    """Evaluate a model at each tolerance, with the ratio of atol to rtol kept constant.

    Parameters
    ----------
    model : Module
        Trained classifier with one `NeuralODE` that takes adaptive steps. It is not modified.
    images : Tensor[batch, channels, height, width]
        Images to classify.
    labels : Tensor[batch]
        Their classes.
    rtols : sequence of float, default=RTOLS
        Relative tolerances, in any order.

    Returns
    -------
    list of Point
        One per tolerance.

    Raises
    ------
    ValueError
        If the model does not have exactly one ODE, or solves it with fixed steps.
    """
    model = deepcopy(model).eval()
    block = _adaptive_block(model)
    ratio = float(block.atol) / float(block.rtol)
    with torch.no_grad():
        tight = min(REFERENCE_RTOL, min(rtols) / 100)
        _set_tolerance(reference := deepcopy(model).double(), tight, tight * ratio)
        exact = _final_state(reference, images[:ERROR_IMAGES].double())
        points = []
        for rtol in rtols:
            _set_tolerance(model, rtol, rtol * ratio)
            points.append(_evaluate(model, images, labels, exact=exact))
        return points


def _evaluate(model: nn.Module, images: Tensor, labels: Tensor, *, exact: Tensor) -> Point:
    block = _adaptive_block(model)
    error = (_final_state(model, images[: len(exact)]) - exact).norm() / exact.norm()
    correct, work = 0, 0.0
    started = time.perf_counter()
    for batch, answers in zip(images.split(AT_ONCE), labels.split(AT_ONCE), strict=True):
        correct += int((model(batch).argmax(dim=1) == answers).sum())
        work += len(batch) * mean_evaluations(model)
    return Point(
        rtol=float(block.rtol),
        atol=float(block.atol),
        evaluations=work / len(images),
        error=float(error),
        accuracy=correct / len(images),
        seconds=time.perf_counter() - started,
    )


def _set_tolerance(model: nn.Module, rtol: float, atol: float) -> None:
    block = _adaptive_block(model)
    block.rtol, block.atol = rtol, atol


def _final_state(model: nn.Module, images: Tensor) -> Tensor:
    states: list[Tensor] = []
    with _adaptive_block(model).register_forward_hook(lambda *call: states.append(call[-1])):
        model(images)
    return states[0]


def _adaptive_block(model: nn.Module) -> NeuralODE:
    blocks = ode_blocks(model)
    if len(blocks) != 1:
        raise ValueError(f"a tolerance sweep needs a model with one ODE; this one has {len(blocks)}.")
    if blocks[0].step_size is not None:
        raise ValueError(f"method {blocks[0].method!r} takes fixed steps and has no tolerance; wanted adaptive steps.")
    return blocks[0]
