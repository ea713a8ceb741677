"""Flow matching: train a field on the velocity of paths from noise to data, without solving an equation.

Found independently by Lipman, Chen, Ben-Hamu, Nickel & Le, *Flow Matching for Generative Modeling*, 2023; Albergo &
Vanden-Eijnden 2023; and Liu, Gong & Liu 2023. The result is a field for `neuralode.nn.CNF` like any other.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from neuralode.nn.flows.probability_paths import Path, find_path
from neuralode.nn.flows.random_numbers import random_like

State: TypeAlias = Float[Tensor, "batch *event"]
Coupling: TypeAlias = Callable[[State, State], Int64[Tensor, " batch"]]  # (x0, x1) -> the row of x0 for each of x1


def flow_matching_loss(
    field: Callable[..., Tensor],
    x1: State,
    *args: Any,
    x0: State | None = None,
    t: Float[Tensor, " batch"] | None = None,
    path: str | Path = "linear",
    coupling: Coupling | None = None,
    generator: torch.Generator | None = None,
) -> Float[Tensor, ""]:
    """Return the mean squared difference between a field and the velocity of paths to data.

    Its gradient is an unbiased estimate of the gradient of the distance to the field that moves the noise to the data.
    The loss does not fall to 0: the variance of the velocities of crossing paths remains.

    Parameters
    ----------
    field : Module or callable
        ``field(t, x, *args) -> dx/dt``, for t of shape [batch].
    x1 : Tensor[batch, *event]
        Data.
    *args
        Further arguments of the field, such as a condition for each row of x1.
    x0 : Tensor[batch, *event], default=None
        Samples of the base; None draws them from the standard normal distribution.
    t : Tensor[batch], default=None
        Times between 0 and 1; None draws them uniformly.
    path : {"linear", "variance-preserving", "cosine"} or Path, default="linear"
        The path from x0 to x1.
    coupling : callable, default=None
        ``coupling(x0, x1)`` returns a permutation [batch]: row i of x1 is paired with row ``permutation[i]`` of x0.
        None pairs equal rows; `neuralode.nn.flows.coupling.optimal_transport` gives paths that rarely cross.
    generator : torch.Generator, default=None
        The source of randomness.

    Returns
    -------
    Tensor[]
        The loss.

    Raises
    ------
    TypeError
        If x1 is not floating.
    ValueError
        If shapes do not match.

    Examples
    --------
    >>> from neuralode.nn import CNF
    >>> from neuralode.nn.flows import ConcatSquashField, sample
    >>> field, data = ConcatSquashField(2, width=16), torch.randn(64, 2) / 4 + 1
    >>> loss = flow_matching_loss(field, data)
    >>> loss.backward()

    The same field has a density and samples:

    >>> CNF(field, base=2).log_prob(data).shape, sample(field, torch.randn(5, 2), steps=20).x.shape
    (torch.Size([64]), torch.Size([5, 2]))
    """
    path = find_path(path)
    if not x1.is_floating_point():
        raise TypeError(f"x1 has dtype {x1.dtype}; wanted floating data, as x1.float() gives.")
    if x0 is None:
        x0 = random_like(torch.randn, x1.shape, like=x1, generator=generator)
    if t is None:
        t = random_like(torch.rand, x1.shape[:1], like=x1, generator=generator)
    if coupling is not None:
        order = coupling(x0, x1)
        if order.shape != x1.shape[:1]:
            raise ValueError(f"coupling gave shape {list(order.shape)}; wanted a row of x0 for each of {len(x1)} rows.")
        x0 = x0[order]
    x, velocity = path.at(t, x0, x1)
    slope = field(t, x, *args)
    if slope.shape != x.shape:
        raise ValueError(f"field gave shape {list(slope.shape)}; wanted that of x, {list(x.shape)}.")
    return (slope - velocity).square().mean()
