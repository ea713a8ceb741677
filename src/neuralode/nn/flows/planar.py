r"""Planar flows: the normalizing flows of finitely many layers that the paper sets its continuous ones against.

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

from neuralode.nn.flows.base_distribution import Base, Moved, StandardNormal, draw, find_base

DIRECTIONS = ("sampling", "density")


class PlanarFlow(nn.Module):
    r"""A normalizing flow of planar layers.

    A layer has a formula one way only; the other way it is found to machine precision as the root of one increasing
    function of one number, and is as differentiable. With the formula from base to data (``direction="sampling"``) it
    is cheap to draw and to know the density of what was drawn, as variational inference wants it; with the formula from
    data to base ("density") it is cheap to say how likely data are, as maximum likelihood wants it. The two are not the
    same family of densities.

    Parameters
    ----------
    features : int
        Numbers in a sample.
    layers : int
        How many; the flow starts as the identity.
    base : int, shape, or distribution, optional
        Where samples start: the standard normal distribution unless given; one of torch has whole samples as its event.
    direction : {"sampling", "density"}
        Which way the formula goes.

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
        """Of one sample."""
        return self.base.event_shape

    def forward(self, z: Float[Tensor, "*batch features"]) -> Float[Tensor, "*batch features"]:
        """Carry samples of the base to the data."""
        return self.forward_and_log_det(z).state

    def inverse(self, x: Float[Tensor, "*batch features"]) -> Float[Tensor, "*batch features"]:
        """Carry data back to the base."""
        return self.inverse_and_log_det(x).state

    def forward_and_log_det(self, z: Float[Tensor, "*batch features"]) -> Moved:
        """Carry samples of the base to the data, with log |det ∂x/∂z| of shape [*batch]."""
        return self._by_formula(z) if self.direction == "sampling" else self._by_roots(z)

    def inverse_and_log_det(self, x: Float[Tensor, "*batch features"]) -> Moved:
        """Carry data back to the base, with log |det ∂z/∂x| of shape [*batch]."""
        return self._by_roots(x) if self.direction == "sampling" else self._by_formula(x)

    def log_prob(self, x: Float[Tensor, "*batch features"]) -> Float[Tensor, "*batch"]:
        """The log-density of data, in nats a sample."""
        z, log_det = self.inverse_and_log_det(x)
        return self.base.log_prob(z) + log_det

    def sample(
        self, shape: int | Sequence[int] = (), generator: torch.Generator | None = None
    ) -> Float[Tensor, "*sample features"]:
        """Draw samples: so many, or of such a shape; by ``generator`` if there is one."""
        return self.forward(draw(self.base, shape, generator))

    def sample_with_log_prob(
        self, shape: int | Sequence[int] = (), generator: torch.Generator | None = None
    ) -> tuple[Tensor, Tensor]:
        """Draw samples, with their log-density; both are differentiable."""
        z = draw(self.base, shape, generator)
        x, log_det = self.forward_and_log_det(z)
        return x, self.base.log_prob(z) - log_det

    def extra_repr(self) -> str:
        """Say how many layers there are, and which way."""
        layers, features = self.w.shape
        return f"{features}, layers={layers}, direction={self.direction!r}"

    def _by_formula(self, y: Tensor) -> Moved:
        """Through the layers, first to last."""
        self._check(y)
        slopes = []
        for w, u, b, excess in self._layers():
            h = torch.tanh(y @ w + b)
            y = y + h[..., None] * u
            slopes.append(_slope(h, excess))
        return Moved(y, torch.stack(slopes).log().sum(0))

    def _by_roots(self, y: Tensor) -> Moved:
        """Back through the layers, last to first."""
        self._check(y)
        slopes = []
        for w, u, b, excess in reversed(self._layers()):
            h = torch.tanh(root(y @ w + b, excess))
            y = y - h[..., None] * u
            slopes.append(_slope(h, excess))
        return Moved(y, -torch.stack(slopes).log().sum(0))

    def _layers(self) -> list[tuple[Tensor, Tensor, Tensor, Tensor]]:
        """w, û, b and 1 + wᵀû of each layer."""
        # A layer is one-to-one where wᵀû > -1. So u is moved along w until 1 + wᵀû is softplus(wᵀu + log(e - 1)): the
        # authors' appendix A.1, but for log(e - 1), by which u = 0 stands for û = 0.
        along = (self.w * self.u).sum(-1)
        excess = F.softplus(along + math.log(math.e - 1))
        # with w = 0 there is nothing to mend, nor a direction to mend it in
        square = self.w.square().sum(-1).clamp_min(torch.finfo(self.w.dtype).tiny)
        u = self.u + ((excess - 1 - along) / square)[:, None] * self.w
        return list(zip(self.w, u, self.b, excess, strict=True))

    def _check(self, y: Tensor) -> None:
        if y.shape[-1:] != self.event_shape:
            raise ValueError(f"samples have shape {list(y.shape)}; wanted [..., {self.event_shape[0]}].")


def root(goal: Float[Tensor, "*batch"], excess: Float[Tensor, ""]) -> Float[Tensor, "*batch"]:
    """Solve ``v + (excess - 1) tanh(v) = goal`` for v, to machine precision.

    Parameters
    ----------
    goal : Tensor
        Right sides.
    excess : Tensor[()]
        The slope at 0, above 0: the left side increases.

    Returns
    -------
    Tensor
        v, differentiable as often as wanted (by the implicit function theorem).

    Examples
    --------
    >>> v = torch.tensor([-3.0, 0.0, 0.5])
    >>> torch.allclose(root(v + 2 * v.tanh(), torch.tensor(3.0)), v)
    True
    """
    found: Any = _Root.apply(goal, excess)
    return found


class _Root(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, goal: Tensor, excess: Tensor) -> Tensor:
        v = _newton(goal, excess)
        ctx.save_for_backward(v, excess)
        return v

    @staticmethod
    def backward(ctx: Any, *cotangents: Any) -> tuple[Tensor, Tensor]:
        # v is this function's own output, so that a derivative of these lines is a derivative of the root again
        v, excess = ctx.saved_tensors
        h = torch.tanh(v)
        to_goal = cotangents[0] / _slope(h, excess)
        return to_goal, -(to_goal * h).sum()


def _newton(goal: Tensor, excess: Tensor) -> Tensor:
    """Newton's method, which needs no safeguard here.

    The left side is odd, and for v ≥ 0 concave (excess > 1) or convex: from the left of the root, or from its right,
    iterates approach it from one side.
    """
    size, pull = goal.abs(), excess - 1
    v = torch.where(pull > 0, (size - pull).clamp_min(0), size - pull)
    eps = 2 * torch.finfo(v.dtype).eps
    for _ in range(MOST):
        h = torch.tanh(v)
        left = v + pull * h - size
        if not (left.abs() > eps * (v.abs() + (pull * h).abs())).any():  # of NaN there is nothing to wait for
            break
        v = v - left / _slope(h, excess)
    return torch.copysign(v, goal)


MOST = 100  # iterations: up to 10 are usual, dozens it takes where excess is tiny and the left side flat at the root


def _slope(h: Tensor, excess: Tensor) -> Tensor:
    """1 + (excess - 1)(1 - h²), without the cancellation."""
    square = h * h
    return square + excess * (1 - square)
