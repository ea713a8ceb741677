"""Flow matching: a field is taught the velocity of paths from noise to data, and nothing is solved.

Lipman, Chen, Ben-Hamu, Nickel & Le, *Flow Matching for Generative Modeling*, 2023; Albergo & Vanden-Eijnden 2023 and
Liu, Gong & Liu 2023 found it too. What is taught so is the field of a `neuralode.nn.CNF` like any other.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from neuralode.nn.flows.base_distribution import drawn
from neuralode.nn.flows.probability_paths import Path, find_path

State: TypeAlias = Float[Tensor, "batch *event"]
Coupling: TypeAlias = Callable[[State, State], Int64[Tensor, " batch"]]  # (x0, x1) -> which row of x0 each of x1 gets


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
    """How far a field is from the velocity of paths to data: the mean square of a coordinate.

    Its gradient is an unbiased estimate of that of the distance to the field that carries the noise to the data. It
    does not fall to 0: paths that cross leave the variance of their velocities.

    Parameters
    ----------
    field : Module or callable
        ``field(t, x, *args) -> dx/dt``, for t of shape [batch].
    x1 : Tensor[batch, *event]
        Data.
    *args
        Of the field: what is known of each row of x1, say.
    x0 : Tensor[batch, *event], optional
        Samples of the base; drawn from the standard normal distribution unless given.
    t : Tensor[batch], optional
        When to look, between 0 and 1; drawn evenly unless given.
    path : {"linear", "variance-preserving", "cosine"} or Path
        From x0 to x1.
    coupling : callable, optional
        ``coupling(x0, x1)`` is a permutation [batch]: row i of x1 is paired with row ``permutation[i]`` of x0. As they
        come unless given; `neuralode.nn.flows.coupling.optimal_transport` makes paths that hardly cross.
    generator : torch.Generator, optional
        Draws what is drawn.

    Returns
    -------
    Tensor[]
        The loss.

    Raises
    ------
    ValueError
        For shapes that do not belong together.

    Examples
    --------
    >>> from neuralode.nn import CNF
    >>> from neuralode.nn.flows import ConcatSquashField, sample
    >>> field, data = ConcatSquashField(2, width=16), torch.randn(64, 2) / 4 + 1
    >>> loss = flow_matching_loss(field, data)
    >>> loss.backward()

    The same field has densities, and samples:

    >>> CNF(field, base=2).log_prob(data).shape, sample(field, torch.randn(5, 2), steps=20).x.shape
    (torch.Size([64]), torch.Size([5, 2]))
    """
    path = find_path(path)
    if not x1.is_floating_point():
        raise TypeError(f"x1 has dtype {x1.dtype}; wanted floating data, as x1.float() gives.")
    if x0 is None:
        x0 = drawn(torch.randn, x1.shape, x1, generator)
    if t is None:
        t = drawn(torch.rand, x1.shape[:1], x1, generator)
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
