"""How states inside of a step are read: as torchdiffeq's ``interp`` says, not by the method's own dense output."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from neuralode.core.clock import Number, column, scaled, stage_times
from neuralode.methods.base import ErrorNorm, Evaluate, Rows, Step


@dataclass(frozen=True)
class Reading:
    """A method whose steps are read by straight lines or by cubic Hermite polynomials.

    Parameters
    ----------
    method : Method
        What takes the steps.
    kind : {"linear", "cubic"}
        A line between the ends of a step, or the cubic that also has the slopes f there.

    Examples
    --------
    >>> import neuralode as node
    >>> Reading(node.methods()["rk4"], "cubic").interpolant_order
    3
    """

    method: Any
    kind: Literal["linear", "cubic"]

    @property
    def interpolant_order(self) -> int:
        """Order of what is read, at most."""
        return 1 if self.kind == "linear" else 3

    def __getattr__(self, name: str) -> Any:
        if name == "method" or name.startswith("__"):  # an object that is only being copied has none yet
            raise AttributeError(name)
        return getattr(self.method, name)

    def step(
        self, f: Evaluate, t: Number, y: Rows, h: Number, method_state: Any, error_norm: ErrorNorm | None = None
    ) -> Step:
        """The method's step."""
        return self.method.step(f, t, y, h, method_state, error_norm)

    def interpolate(self, f: Evaluate, t: Number, y: Rows, h: Number, stages: Any, thetas: Sequence[float]) -> Tensor:
        """The states at some θ of one step: [θ, rows, features]."""
        y1 = self.method.interpolate(f, t, y, h, stages, (1.0,))[0]
        if all(theta == 1 for theta in thetas):
            return y1.expand(len(thetas), *y1.shape)
        coefficients = self._coefficients(f, t, y, h, y1)
        powers = [[theta**j for j in range(len(coefficients))] for theta in thetas]
        weights = torch.tensor(powers, dtype=y.dtype, device=y.device)
        return torch.tensordot(weights, coefficients, dims=1)

    def interpolant(self, f: Evaluate, t: Number, y: Rows, h: Number, stages: Any) -> Tensor:
        """Coefficients of θ⁰, θ¹, …: [degree + 1, rows, features]."""
        y1 = self.method.interpolant(f, t, y, h, stages).sum(0)
        return self._coefficients(f, t, y, h, y1)

    def _coefficients(self, f: Evaluate, t: Number, y: Rows, h: Number, y1: Rows) -> Tensor:
        rise = y1 - y
        if self.kind == "linear":
            return torch.stack((y, rise))
        begin, end = stage_times(t, h, (0.0, 1.0), y.dtype.to_real(), y.device)
        zero = torch.zeros_like(y)
        first, last = (_times(h, f(time, state), zero) for time, state in ((begin, y), (end, y1)))
        return torch.stack((y, first, 3 * rise - 2 * first - last, first + last - 2 * rise))


def _times(h: Number, slope: Tensor, zero: Tensor) -> Tensor:
    return slope * column(h, slope) if isinstance(h, Tensor) else scaled(zero, h, slope)
