"""Minimise a stochastic loss with Adam in a plain loop, without epochs or validation."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

OnProgress = Callable[[int, float], None]  # receives the number of steps done and the mean loss since the last call


@dataclass(frozen=True)
class AdamOptions:
    """Options of `minimize`.

    Parameters
    ----------
    steps : int, default=1500
        Number of steps.
    rate : float, default=1e-2
        Initial learning rate. It falls to a thousandth along a half cosine.
    clip : float, default=1.0
        Maximum norm of the gradient.
    average : float, default=0.99
        Decay of the exponential moving average of the weights, which covers about 1 / (1 - average) steps.
    """

    steps: int = 1500
    rate: float = 1e-2
    clip: float = 1.0
    average: float = 0.99


def minimize(
    model: nn.Module,
    loss: Callable[[float], Tensor],
    options: AdamOptions,
    *,
    on_progress: OnProgress | None = None,
) -> float:
    """Minimise a loss that is sampled anew at each step, and leave the averaged weights in the model.

    Parameters
    ----------
    model : Module
        The model to train.
    loss : callable
        ``loss(fraction)`` returns the loss of the model. ``fraction`` is the current learning rate relative to the
        initial one, from 1 to about 0, for terms that should vanish towards the end.
    options : AdamOptions
        Number of steps, learning rate, clipping and averaging.
    on_progress : callable, default=None
        Called about ten times with the number of steps done and the mean loss since the last call.

    Returns
    -------
    float
        Seconds taken.

    Raises
    ------
    KeyboardInterrupt
        On Ctrl-C. The model then has the weights of the last step, not the averaged ones.

    Examples
    --------
    >>> point = nn.Linear(1, 1, bias=False)
    >>> options = AdamOptions(300, rate=0.1, average=0.9)
    >>> _ = minimize(point, lambda fraction: (point.weight - 3).square().sum(), options)
    >>> round(point.weight.item(), 2)
    3.0
    """
    started = time.perf_counter()
    optimizer = torch.optim.Adam(model.parameters(), lr=options.rate)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, options.steps, eta_min=options.rate / 1000)
    averaged = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(options.average))
    recent: list[float] = []
    for step in range(1, options.steps + 1):
        value = loss(float(schedule.get_last_lr()[0]) / options.rate)
        optimizer.zero_grad()
        value.backward()
        nn.utils.clip_grad_norm_(model.parameters(), options.clip)
        optimizer.step()
        schedule.step()
        averaged.update_parameters(model)
        recent.append(value.item())
        if on_progress is not None and step % max(1, options.steps // 10) == 0:
            on_progress(step, sum(recent) / len(recent))
            recent.clear()
    model.load_state_dict(averaged.module.state_dict())
    return time.perf_counter() - started
