"""Guidance without a classifier: a field that knows a condition is followed past where the condition alone leads."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from jaxtyping import Shaped
from torch import Tensor, nn

from neuralode.nn.flows.base_distribution import drawn


class Guided(nn.Module):
    """The field ``u + scale · (c − u)``, with c of the condition and u without one, from one forward pass of both.

    Again a field of (t, x, condition), with rows that do not depend on each other: it can be sampled, solved, and be
    the field of a `neuralode.nn.CNF` (Ho & Salimans, *Classifier-Free Diffusion Guidance*, 2022).

    Parameters
    ----------
    field : Module or callable
        ``field(t, x, condition) -> dx/dt``, trained with conditions that are sometimes dropped: see `drop_condition`.
    scale : float
        1 is the field under its condition, at the cost of that alone; 0 the one without; above 1 it is exaggerated.
    null : Tensor or number
        The condition of a row that stands for none, of the kind that conditions are: a whole number where they are.

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
        """The slope at (t, x)."""
        if self.scale == 1:
            return self.field(t, x, condition)
        if self.null.is_floating_point() and not condition.is_floating_point():
            raise TypeError(
                f"null is a {self.null.dtype} for conditions of {condition.dtype}; wanted it of their kind."
            )
        null = self.null.to(condition.dtype).expand_as(condition)
        if self.scale == 0:
            return self.field(t, x, null)
        both = torch.cat((condition, null))
        # a time of each row is that of its twin
        slopes = self.field(torch.cat((t, t)) if t.dim() else t, torch.cat((x, x)), both)
        known, unknown = slopes.chunk(2)
        return torch.lerp(unknown, known, self.scale)

    def extra_repr(self) -> str:
        """Say how much."""
        return f"scale={self.scale}"


def drop_condition(
    condition: Shaped[Tensor, "batch *known"],
    null: Any,
    probability: float,
    generator: torch.Generator | None = None,
) -> Shaped[Tensor, "batch *known"]:
    """The conditions, some at random replaced by the one that stands for none: of each batch that is learned from.

    Parameters
    ----------
    condition : Tensor[batch, *known]
        What is known of each row.
    null : Tensor or number
        What stands for nothing known.
    probability : float
        Of each row to lose its condition.
    generator : torch.Generator, optional
        Draws which.

    Examples
    --------
    >>> drop_condition(torch.tensor([3, 5]), null=10, probability=1.0).tolist()
    [10, 10]
    """
    if not 0 <= probability <= 1:
        raise ValueError(f"probability={probability!r}; wanted a number from 0 to 1.")
    chance = drawn(torch.rand, condition.shape[:1], torch.zeros((), device=condition.device), generator)
    dropped = (chance < probability).reshape(-1, *[1] * (condition.dim() - 1))
    return torch.where(dropped, torch.as_tensor(null, dtype=condition.dtype, device=condition.device), condition)
