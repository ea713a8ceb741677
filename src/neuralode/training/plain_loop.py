"""A loop that fits a flow to fresh samples: nothing to validate, no epochs, a given number of steps."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

Tell = Callable[[int, float], None]


@dataclass(frozen=True)
class Descent:
    """How a loss is brought down.

    Parameters
    ----------
    steps : int
        Of Adam.
    rate : float
        Where its learning rate begins; it falls to a thousandth of that, along a cosine.
    clip : float
        Norm of the gradient at most.
    average : float
        Weights are averaged over about 1 / (1 - average) of the last steps, and it is the average that is kept.
    """

    steps: int = 1500
    rate: float = 1e-2
    clip: float = 1.0
    average: float = 0.99


def descend(flow: nn.Module, loss: Callable[[float], Tensor], how: Descent, tell: Tell | None = None) -> float:
    """Minimise a loss that is drawn anew at every step, and leave the averaged weights in ``flow``.

    Parameters
    ----------
    flow : Module
        What is trained.
    loss : callable
        ``loss(left)``, of the flow as it stands, with the share of the learning rate that is left: from 1 to about 0,
        for terms that should fade as training ends.
    how : Descent
        Steps, and how large.
    tell : callable, optional
        Called about ten times with the steps done and the mean loss since it was called last.

    Returns
    -------
    float
        Seconds it took. Ctrl-C ends it at once, and leaves the weights as they are.

    Examples
    --------
    >>> point = nn.Linear(1, 1, bias=False)
    >>> _ = descend(point, lambda left: (point.weight - 3).square().sum(), Descent(300, rate=0.1, average=0.9))
    >>> round(point.weight.item(), 2)
    3.0
    """
    started = time.perf_counter()
    optimizer = torch.optim.Adam(flow.parameters(), lr=how.rate)
    falling = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, how.steps, eta_min=how.rate / 1000)
    averaged = AveragedModel(flow, multi_avg_fn=get_ema_multi_avg_fn(how.average))
    since: list[float] = []
    for step in range(1, how.steps + 1):
        value = loss(float(falling.get_last_lr()[0]) / how.rate)
        optimizer.zero_grad()
        value.backward()
        nn.utils.clip_grad_norm_(flow.parameters(), how.clip)
        optimizer.step()
        falling.step()
        averaged.update_parameters(flow)
        since.append(value.item())
        if tell is not None and step % max(1, how.steps // 10) == 0:
            tell(step, sum(since) / len(since))
            since.clear()
    flow.load_state_dict(averaged.module.state_dict())
    return time.perf_counter() - started
