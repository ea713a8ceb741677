"""The interface of flows: invertible maps from a base distribution to the data."""

from __future__ import annotations

from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor


class Moved(NamedTuple):
    """The result of moving samples through a flow.

    Attributes
    ----------
    state : Tensor[*batch, *event]
        The moved samples.
    log_det : Tensor[*batch]
        The logarithm of the absolute determinant of the Jacobian of the map, or an estimate of it.
    """

    state: Tensor
    log_det: Tensor


class Flow(Protocol):
    """A flow that is conditioned on ``args``, as `FlowDistribution` and `FlowTransform` use it."""

    @property
    def event_shape(self) -> torch.Size:
        """The shape of one sample."""
        ...

    def forward_and_log_det(self, z: Tensor, /, *args: Any) -> Moved:
        """Move samples of the base to the data."""
        ...

    def inverse_and_log_det(self, x: Tensor, /, *args: Any) -> Moved:
        """Move data to the base."""
        ...

    def log_prob(self, x: Tensor, /, *args: Any) -> Tensor:
        """Return the log-density of data."""
        ...

    def sample(self, shape: Any, /, *args: Any) -> Tensor:
        """Draw samples of the data."""
        ...

    def rows_of(self, args: tuple, /) -> list[Tensor | None]:
        """Return those of ``args`` that have one row for each sample, and None in place of the others."""
        ...
