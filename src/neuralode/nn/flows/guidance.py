"""Classifier-free guidance: amplify the effect of a condition on a field."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from jaxtyping import Shaped
from torch import Tensor, nn

from neuralode.nn.flows.random_numbers import random_like


class Guided(nn.Module):
    """The field ``u + scale · (c − u)``, where c is the field with a condition and u the one without.

    Both come from one forward pass of twice the batch. The result is a field of (t, x, condition) with independent
    rows: it can be sampled, solved, and be the field of a `neuralode.nn.CNF` (Ho & Salimans, *Classifier-Free
    Diffusion Guidance*, 2022).

    Parameters
    ----------
    field : Module or callable
        ``field(t, x, condition) -> dx/dt``, trained with conditions that were sometimes dropped: see `drop_condition`.
    scale : float
        1 is the field with its condition, 0 the field without (both evaluate it once); above 1 amplifies the effect.
    null : Tensor or number
        The value that stands for no condition, of the same kind as conditions: an integer where they are integers.

    Raises
    ------
    TypeError
        If ``null`` is None; in `forward`, if it is floating and conditions are not.

    Examples
    --------
    >>> field = lambda t, x, label: label[:, None].to(x.dtype).expand_as(x)
    >>> guided = Guided(field, scale=3.0, null=-1)
    >>> guided(torch.tensor(0.5), torch.zeros(2, 1), torch.tensor([0, 1])).tolist()  # -1 + 3 · (label + 1)
    [[2.0], [5.0]]
    """

    null: Tensor

    def __init__(self, field: Callable[..., Tensor], scale: float, null: Any) -> None:
        super().__init__()
        if null is None:
            raise TypeError("null is None; wanted the condition that stands for none: a number or tensor of its own.")
        self.field, self.scale = field, float(scale)
        self.register_buffer("null", torch.as_tensor(null), persistent=False)

    def forward(
        self, t: Tensor, x: Shaped[Tensor, "batch *event"], condition: Shaped[Tensor, "batch *known"]
    ) -> Shaped[Tensor, "batch *event"]:
        """Return the slope; t is 0-d or one for each row."""
        if self.scale == 1:
            return self.field(t, x, condition)
        if self.null.is_floating_point() and not condition.is_floating_point():
            raise TypeError(
                f"null is a {self.null.dtype} for conditions of {condition.dtype}; wanted it of their kind."
            )
        null = self.null.to(condition.dtype).expand_as(condition)
        if self.scale == 0:
            return self.field(t, x, null)
        conditions = torch.cat((condition, null))
        times = torch.cat((t, t)) if t.dim() else t
        conditioned, unconditioned = self.field(times, torch.cat((x, x)), conditions).chunk(2)
        return torch.lerp(unconditioned, conditioned, self.scale)

    def extra_repr(self) -> str:
        """Return the scale, for printing."""
        return f"scale={self.scale}"


def drop_condition(
    condition: Shaped[Tensor, "batch *known"],
    null: Any,
    probability: float,
    generator: torch.Generator | None = None,
) -> Shaped[Tensor, "batch *known"]:
    """Replace the conditions of random rows by the value that stands for none, in each training batch.

    Parameters
    ----------
    condition : Tensor[batch, *known]
        The condition of each row.
    null : Tensor or number
        The value that stands for no condition.
    probability : float
        The chance of each row to lose its condition, from 0 to 1.
    generator : torch.Generator, default=None
        The source of randomness.

    Returns
    -------
    Tensor[batch, *known]
        The conditions.

    Raises
    ------
    ValueError
        If ``probability`` is out of range.

    Examples
    --------
    >>> drop_condition(torch.tensor([3, 5]), null=10, probability=1.0).tolist()
    [10, 10]
    """
    if not 0 <= probability <= 1:
        raise ValueError(f"probability={probability!r}; wanted a number from 0 to 1.")
    like = torch.zeros((), device=condition.device)
    chance = random_like(torch.rand, condition.shape[:1], like=like, generator=generator)
    dropped = (chance < probability).reshape(-1, *[1] * (condition.dim() - 1))
    return torch.where(dropped, torch.as_tensor(null, dtype=condition.dtype, device=condition.device), condition)
