r"""Planar flows: normalizing flows of finitely many layers, to which the paper compares continuous ones.

A layer is :math:`y \mapsto y + \hat u \tanh(w^\top y + b)`, one unit of a residual network (Rezende & Mohamed,
*Variational Inference with Normalizing Flows*, 2015).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from neuralode.nn.flows.base_distribution import Base, StandardNormal, find_base, sample_base
from neuralode.nn.flows.flow import Moved

DIRECTIONS = ("sampling", "density")
# Newton iterations at most. Up to 10 are usual; dozens are needed where excess is tiny and the function flat.
MAX_ITERATIONS = 100


class PlanarFlow(nn.Module):
    r"""A normalizing flow of planar layers.

    A layer has a closed form in one direction only. The inverse is the root of an increasing function of one number,
    found to machine precision and as differentiable. With the closed form from base to data (``direction="sampling"``)
    sampling, and the density of the samples drawn, are cheap, as variational inference needs; with the closed form from
    data to base ("density") the density of data is cheap, as maximum likelihood needs. The two are different families
    of densities.

    Parameters
    ----------
    features : int
        The size of a sample.
    layers : int
        The number of layers; the flow starts as the identity.
    base : int, shape, or distribution, default=None
        The base distribution; None is the standard normal one. A distribution of torch has whole samples as its event.
    direction : {"sampling", "density"}, default="sampling"
        The direction of the closed form.

    Raises
    ------
    ValueError
        If an argument is out of range, or the base has samples of another shape.

    Examples
    --------
    >>> flow = PlanarFlow(2, layers=8)
    >>> x, log_prob = flow.sample_with_log_prob(5)
    >>> x.shape, log_prob.shape
    (torch.Size([5, 2]), torch.Size([5]))
    >>> torch.allclose(flow.log_prob(x), log_prob, atol=1e-4)
    True
    """

    def __init__(
        self, features: int, layers: int, base: Any = None, *, direction: Literal["sampling", "density"] = "sampling"
    ) -> None:
        super().__init__()
        for name, count in (("features", features), ("layers", layers)):
            if isinstance(count, bool) or not isinstance(count, int) or count < 1:
                raise ValueError(f"{name}={count!r}; wanted a whole number of at least 1.")
        if direction not in DIRECTIONS:
            raise ValueError(f"direction={direction!r}; wanted 'sampling' or 'density'.")
        self.base: Base = StandardNormal(features) if base is None else find_base(base)
        if self.base.event_shape != (features,):
            raise ValueError(f"base has samples of shape {list(self.base.event_shape)}; wanted [{features}].")
        self.direction = direction
        self.w = nn.Parameter(torch.randn(layers, features))
        self.u = nn.Parameter(torch.zeros(layers, features))
        self.b = nn.Parameter(torch.randn(layers))

    @property
    def event_shape(self) -> torch.Size:
        """The shape of one sample."""
        return self.base.event_shape

    def forward(self, z: Float[Tensor, "*batch features"]) -> Float[Tensor, "*batch features"]:
        """Move samples of the base to the data."""
        return self.forward_and_log_det(z).state

    def inverse(self, x: Float[Tensor, "*batch features"]) -> Float[Tensor, "*batch features"]:
        """Move data to the base."""
        return self.inverse_and_log_det(x).state

    def forward_and_log_det(self, z: Float[Tensor, "*batch features"]) -> Moved:
        """Move samples of the base to the data, with log |det ∂x/∂z| of shape [*batch]."""
        return self._in_closed_form(z) if self.direction == "sampling" else self._by_root_finding(z)

    def inverse_and_log_det(self, x: Float[Tensor, "*batch features"]) -> Moved:
        """Move data to the base, with log |det ∂z/∂x| of shape [*batch]."""
        return self._by_root_finding(x) if self.direction == "sampling" else self._in_closed_form(x)

    def log_prob(self, x: Float[Tensor, "*batch features"]) -> Float[Tensor, "*batch"]:
        """Return the log-density of data, in nats."""
        z, log_det = self.inverse_and_log_det(x)
        return self.base.log_prob(z) + log_det

    def sample(
        self, shape: int | Sequence[int] = (), generator: torch.Generator | None = None
    ) -> Float[Tensor, "*sample features"]:
        """Draw samples: a number of them, or a batch of some shape."""
        return self.forward(sample_base(self.base, shape, generator))

    def sample_with_log_prob(
        self, shape: int | Sequence[int] = (), generator: torch.Generator | None = None
    ) -> tuple[Tensor, Tensor]:
        """Draw samples and return their log-density; both are differentiable."""
        z = sample_base(self.base, shape, generator)
        x, log_det = self.forward_and_log_det(z)
        return x, self.base.log_prob(z) - log_det

    def extra_repr(self) -> str:
        """Return sizes and direction, for printing."""
        layers, features = self.w.shape
        return f"{features}, layers={layers}, direction={self.direction!r}"

    def _in_closed_form(self, y: Tensor) -> Moved:
        """Apply the layers from the first to the last."""
        self._check(y)
        slopes = []
        for w, u, b, excess in self._layers():
            h = torch.tanh(y @ w + b)
            y = y + h[..., None] * u
            slopes.append(_slope(h, excess))
        return Moved(y, torch.stack(slopes).log().sum(0))

    def _by_root_finding(self, y: Tensor) -> Moved:
        """Invert the layers from the last to the first."""
        self._check(y)
        slopes = []
        for w, u, b, excess in reversed(self._layers()):
            h = torch.tanh(root(y @ w + b, excess))
            y = y - h[..., None] * u
            slopes.append(_slope(h, excess))
        return Moved(y, -torch.stack(slopes).log().sum(0))

    def _layers(self) -> list[tuple[Tensor, Tensor, Tensor, Tensor]]:
        """Return w, û, b and 1 + wᵀû of each layer."""
        # A layer is invertible if wᵀû > -1. So û is u, moved along w until 1 + wᵀû is softplus(wᵀu + log(e - 1)):
        # appendix A.1 of the authors, but for log(e - 1), with which u = 0 gives û = 0.
        along = (self.w * self.u).sum(-1)
        excess = F.softplus(along + math.log(math.e - 1))
        # w = 0 needs no correction, and has no direction for one
        square = self.w.square().sum(-1).clamp_min(torch.finfo(self.w.dtype).tiny)
        u = self.u + ((excess - 1 - along) / square)[:, None] * self.w
        parts = (self.w, u, self.b, excess)
        return list(zip(*parts, strict=True))

    def _check(self, y: Tensor) -> None:
        if y.shape[-1:] != self.event_shape:
            raise ValueError(f"samples have shape {list(y.shape)}; wanted [..., {self.event_shape[0]}].")


def root(goal: Float[Tensor, "*batch"], excess: Float[Tensor, ""]) -> Float[Tensor, "*batch"]:
    """Solve ``v + (excess - 1) tanh(v) = goal`` for v, to machine precision.

    Parameters
    ----------
    goal : Tensor[*batch]
        The right-hand sides.
    excess : Tensor[]
        The slope of the left-hand side at 0. It is above 0, so that the left-hand side increases.

    Returns
    -------
    Tensor[*batch]
        v, with derivatives of any order (by the implicit function theorem).

    Examples
    --------
    >>> v = torch.tensor([-3.0, 0.0, 0.5])
    >>> torch.allclose(root(v + 2 * v.tanh(), torch.tensor(3.0)), v)
    True
    """
    v: Any = _Root.apply(goal, excess)
    return v


class _Root(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, goal: Tensor, excess: Tensor) -> Tensor:
        v = _newton(goal, excess)
        ctx.save_for_backward(v, excess)
        return v

    @staticmethod
    def backward(ctx: Any, *cotangents: Any) -> tuple[Tensor, Tensor]:
        # v is the output of this function, so that differentiating these lines gives higher derivatives of the root
        v, excess = ctx.saved_tensors
        h = torch.tanh(v)
        to_goal = cotangents[0] / _slope(h, excess)
        return to_goal, -(to_goal * h).sum()


def _newton(goal: Tensor, excess: Tensor) -> Tensor:
    """Run Newton's method, which converges from this start without a safeguard.

    The left-hand side is odd, and for v ≥ 0 concave (excess > 1) or convex. From the left of the root, or from its
    right, iterates approach the root from one side.
    """
    size, pull = goal.abs(), excess - 1
    v = torch.where(pull > 0, (size - pull).clamp_min(0), size - pull)
    eps = 2 * torch.finfo(v.dtype).eps
    for _ in range(MAX_ITERATIONS):
        h = torch.tanh(v)
        left = v + pull * h - size
        if not (left.abs() > eps * (v.abs() + (pull * h).abs())).any():  # also ends if all that remains is NaN
            break
        v = v - left / _slope(h, excess)
    return torch.copysign(v, goal)


def _slope(h: Tensor, excess: Tensor) -> Tensor:
    """Return 1 + (excess - 1)(1 - h²), without cancellation."""
    square = h * h
    return square + excess * (1 - square)
