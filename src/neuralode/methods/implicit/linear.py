"""The linear systems of Newton's iteration: (I − h A ⊗ J) x = b, dense or by products alone."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any, NamedTuple, TypeAlias

import torch
from jaxtyping import Float, Int
from torch import Tensor

from neuralode.core.clock import Flag, Number, scaled
from neuralode.methods.base import Rows
from neuralode.methods.implicit.gmres import Inverse, gmres
from neuralode.methods.runge_kutta.explicit import combine

Matrix: TypeAlias = tuple[tuple[float, ...], ...]  # the part of a Butcher matrix that belongs to one block
Stages: TypeAlias = Sequence[Rows]

INEXACT = 1e-3  # of the residual, what is left of it in one iteration by products
GIVEN_UP = 0.9  # with more than this left, nothing was solved


class Factors(NamedTuple):
    """Factorised matrices: one for each row, or one for all rows together."""

    lu: Float[Tensor, "blocks n n"]
    pivots: Int[Tensor, "blocks n"]

    def solve(self, right: Stages) -> list[Rows]:
        """The solution, differentiable by the right-hand side."""
        packed = pack(right, len(self.lu))
        return unpack(torch.linalg.lu_solve(self.lu, self.pivots, packed[..., None])[..., 0], right)


def factorise(matrix: Matrix, h: Number, jacobians: Sequence[Tensor]) -> Factors:
    """Factors of I − h A ⊗ J, with one Jacobian for all stages or one each."""
    first, stages = jacobians[0], len(matrix)
    blocks, n = first.shape[:2]
    if isinstance(h, Tensor):
        h = h.to(first.dtype)[:, None, None]
    if stages == 1:
        system = first * (-matrix[0][0] * h)
    else:
        parts = torch.stack([*jacobians] * (1 if len(jacobians) > 1 else stages), 2)  # [blocks, n, stages, n]
        system = parts[:, None] * _weights(matrix, first.dtype, first.device)[:, None, :, None]
        system = system.reshape(blocks, stages * n, stages * n) * -h
    system.diagonal(dim1=-2, dim2=-1).add_(1)
    lu, pivots, _ = torch.linalg.lu_factor_ex(system)  # what is singular gives no finite solution
    return Factors(lu, pivots)


@lru_cache(maxsize=64)
def _weights(matrix: Matrix, dtype: torch.dtype, device: torch.device) -> Tensor:
    with torch.inference_mode(False):  # cached past this call: must not be an inference tensor
        return torch.tensor(matrix, dtype=dtype, device=device)


def exact(f: Any, matrix: Matrix, times: Sequence[Tensor], states: Stages, h: Number) -> Factors:
    """The derivative of the residual at these stages, factorised."""
    return factorise(matrix, h, [f.jacobian(t, y) for t, y in zip(times, states, strict=True)])


def products(f: Any, matrix: Matrix, times: Sequence[Tensor], states: Stages, h: Number) -> Inverse:
    """The same by its products. ``f`` is evaluated once a stage."""
    near = [f.linearised(t, y) for t, y in zip(times, states, strict=True)]
    turned = tuple(zip(*matrix, strict=True))
    blocks = 1 if f.coupled else len(states[0])

    def apply(packed: Tensor) -> Tensor:
        vectors = unpack(packed, states)
        images = [at.jvp(v) for at, v in zip(near, vectors, strict=True)]
        return pack([_minus(v, h, row, images) for v, row in zip(vectors, matrix, strict=True)], blocks)

    def transposed(packed: Tensor) -> Tensor:
        vectors = unpack(packed, states)
        pulled = [at.vjp(_weighted(row, vectors)) for at, row in zip(near, turned, strict=True)]
        return pack([scaled(v, -h, g) for v, g in zip(vectors, pulled, strict=True)], blocks)

    return Inverse(apply, transposed)


def _minus(v: Rows, h: Number, row: tuple[float, ...], images: Stages) -> Rows:
    pivot, total = combine(row, images)
    return scaled(v, -h * pivot, total)


def _weighted(row: tuple[float, ...], vectors: Stages) -> Rows:
    if not any(row):
        return torch.zeros_like(vectors[0])
    pivot, total = combine(row, vectors)
    return total * pivot


def krylov(
    f: Any, matrix: Matrix, times: Sequence[Tensor], states: Stages, h: Number, residual: Stages, who: Flag
) -> list[Rows]:
    """An increment as near as one iteration has use for; NaN where none is found."""
    inverse = products(f, matrix, times, states, h)
    right = pack(residual, 1 if f.coupled else len(states[0]))
    found = gmres(inverse.apply, right, INEXACT, who if isinstance(who, Tensor) else None)
    good = (found.residual < GIVEN_UP)[:, None]
    return unpack(torch.where(good, found.x, torch.nan), residual)


def pack(stages: Stages, blocks: int) -> Float[Tensor, "blocks n"]:
    """The numbers of all stages of a row, or of all rows, as real ones side by side."""
    parts = [(torch.view_as_real(x) if x.is_complex() else x).reshape(blocks, -1) for x in stages]
    return parts[0] if len(parts) == 1 else torch.cat(parts, 1)


def unpack(packed: Float[Tensor, "blocks n"], like: Stages) -> list[Rows]:
    """The stages again."""
    found = []
    for part, x in zip(packed.chunk(len(like), 1), like, strict=True):
        if x.is_complex():
            found.append(torch.view_as_complex(part.reshape(*x.shape, 2).contiguous()))
        else:
            found.append(part.reshape(x.shape))
    return found
