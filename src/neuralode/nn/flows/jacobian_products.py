"""Products of the Jacobian of a field with several vectors, together with the field itself."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any, TypeAlias

import torch
from jaxtyping import Float
from torch import Tensor

State: TypeAlias = Float[Tensor, "batch *event"]
Vectors: TypeAlias = Float[Tensor, "vectors #batch *event"]

MODES = {"forward": None, "reverse": None}


def products(
    field: Callable[..., Tensor], t: Tensor, x: State, vectors: Vectors, args: tuple, mode: str = "forward"
) -> tuple[State, Vectors]:
    """Return f(t, x) and the products of its Jacobian with each of the vectors, row by row.

    Parameters
    ----------
    field : callable
        ``field(t, x, *args)`` with independent rows. A field may declare its own derivative as a method ``jvp(t, x,
        vectors, *args)`` that returns both results, for vectors of either shape; it is several times cheaper. The
        method is ignored if a subclass overrides ``forward`` but not ``jvp``.
    t : Tensor[] or Tensor[batch]
        The time.
    x : Tensor[batch, *event]
        The state.
    vectors : Tensor[vectors, batch, *event] or Tensor[vectors, 1, *event]
        The vectors; with an axis of 1 they are the same for all rows.
    args : tuple
        Further arguments of the field.
    mode : {"forward", "reverse"}, default="forward"
        "forward" returns J v by `torch.func.jvp`. "reverse" returns vᵀJ by `torch.func.vjp`, for operations without
        forward derivatives; training then differentiates these twice. Traces and Frobenius norms follow from either.

    Returns
    -------
    value : Tensor[batch, *event]
        f(t, x).
    products : Tensor[vectors, batch, *event]
        The products.

    Raises
    ------
    NotImplementedError
        If an operation of the field cannot be differentiated in this mode; the message says what to try.

    Examples
    --------
    >>> value, found = products(lambda t, x: x**2, torch.tensor(0.0), torch.full((1, 1), 3.0), torch.ones(1, 1, 1), ())
    >>> value.item(), found.item()
    (9.0, 6.0)
    """
    if mode == "forward" and _declares_jvp(type(field)):
        directions = (vectors, *args)
        value, along = field.jvp(t, x, *directions)  # type: ignore[attr-defined]
        return value, along.expand(-1, *x.shape)
    vectors = vectors.expand(-1, *x.shape)

    def at(z: Tensor) -> Tensor:
        return field(t, z, *args)

    along_one: Any = lambda v: torch.func.jvp(at, (x,), (v,))  # noqa: E731
    value_unmapped: Any = (None, 0)  # the value is the same for all vectors
    try:
        if mode == "reverse":
            value, pull, *_ = torch.func.vjp(at, x)
            return value, torch.func.vmap(lambda v: pull(v)[0], randomness="same")(vectors)
        return torch.func.vmap(along_one, out_dims=value_unmapped, randomness="same")(vectors)
    except NotImplementedError as error:
        raise NotImplementedError(
            f"field has an operation that torch cannot differentiate in {mode} mode: "
            f"{str(error).splitlines()[0][:120]}. Try attention under torch.nn.attention.sdpa_kernel(SDPBackend.MATH), "
            "or the other mode of the divergence, as in Exact(mode='reverse')."
        ) from error


@lru_cache(maxsize=256)
def _declares_jvp(kind: type) -> bool:
    """Return whether ``jvp`` is defined at least as deep in the class hierarchy as ``forward`` (or ``__call__``)."""
    order = {name: depth for depth, base in reversed(list(enumerate(kind.__mro__))) for name in vars(base)}
    return "jvp" in order and order["jvp"] <= order.get("forward", order.get("__call__", len(order)))
