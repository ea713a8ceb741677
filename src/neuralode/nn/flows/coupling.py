"""Couplings of noise and data for flow matching: pairs whose paths rarely cross."""

from __future__ import annotations

from collections.abc import Callable

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from neuralode.core.extras import require


@torch.no_grad()
def optimal_transport(x0: Float[Tensor, "batch *event"], x1: Float[Tensor, "batch *event"]) -> Int64[Tensor, " batch"]:
    """Return the permutation of x0 that minimises the sum of squared distances to x1 within the batch.

    Paths between such pairs rarely cross. A field that is trained on them is straighter and can be sampled in fewer
    steps (Tong et al., *Improving and Generalizing Flow-Based Generative Models with Minibatch Optimal Transport*,
    2024; Pooladian et al. 2023). The assignment is computed on the host, in time cubic in the batch size.

    Parameters
    ----------
    x0 : Tensor[batch, *event]
        Noise.
    x1 : Tensor[batch, *event]
        Data.

    Returns
    -------
    LongTensor[batch]
        ``x0[permutation]`` belongs to x1.

    Raises
    ------
    ValueError
        If the shapes differ.
    ImportError
        If SciPy is not installed.

    Examples
    --------
    >>> optimal_transport(torch.tensor([[0.0], [1.0], [2.0]]), torch.tensor([[2.1], [0.1], [0.9]])).tolist()
    [2, 0, 1]
    """
    if x0.shape != x1.shape:
        raise ValueError(f"x0 has shape {list(x0.shape)}; wanted that of x1, {list(x1.shape)}.")
    require("train", "scipy")
    from scipy.optimize import linear_sum_assignment

    cost = torch.cdist(x1.flatten(1).double(), x0.flatten(1).double()).square()
    _, columns = linear_sum_assignment(cost.cpu().numpy())
    return torch.as_tensor(columns, dtype=torch.int64, device=x0.device)


COUPLINGS: dict[str, Callable[[Tensor, Tensor], Tensor] | None] = {
    "independent": None,
    "optimal-transport": optimal_transport,
}
