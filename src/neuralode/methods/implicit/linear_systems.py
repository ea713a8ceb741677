"""The linear systems of Newton's iteration, (I − h A ⊗ J) x = b: dense, or matrix-free."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from neuralode.core.clock import Flag, Number, scaled
from neuralode.methods.base import JacobianField, Rows
from neuralode.methods.implicit.gmres import Inverse, gmres
from neuralode.methods.implicit.stage_equations import Matrix, StageEquations, Stages
from neuralode.methods.linear_combinations import combine, weighted_sum

GMRES_TOLERANCE = 1e-3  # relative residual that suffices for one iteration
GMRES_FAILED = 0.9  # relative residual from which on the system counts as unsolved


class Factors(NamedTuple):
    """LU factors of one matrix for each row, or of one for all rows together."""

    lu: Float[Tensor, "blocks n n"]
    pivots: Int[Tensor, "blocks n"]

    def solve(self, right: Stages) -> list[Rows]:
        """Return the solution, differentiable in the right-hand side."""
        packed = pack(right, len(self.lu))
        return unpack(torch.linalg.lu_solve(self.lu, self.pivots, packed[..., None])[..., 0], right)


def factorise(matrix: Matrix, h: Number, jacobians: Sequence[Tensor]) -> Factors:
    """Return factors of I − h A ⊗ J, with one Jacobian for all stages or one for each."""
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
    lu, pivots, _ = torch.linalg.lu_factor_ex(system)  # a singular matrix gives a solution that is not finite
    return Factors(lu, pivots)


@lru_cache(maxsize=64)
def _weights(matrix: Matrix, dtype: torch.dtype, device: torch.device) -> Tensor:
    with torch.inference_mode(False):  # cached past this call: must not be an inference tensor
        return torch.tensor(matrix, dtype=dtype, device=device)


def exact_factors(f: JacobianField, equations: StageEquations, states: Stages) -> Factors:
    """Return factors of the derivative of the residual at these states."""
    jacobians = [f.jacobian(t, y) for t, y in zip(equations.times, states, strict=True)]
    return factorise(equations.matrix, equations.h, jacobians)


def exact_products(f: JacobianField, equations: StageEquations, states: Stages) -> Inverse:
    """Return the same derivative by its products. ``f`` is evaluated once for each stage."""
    linearised = [f.linearised(t, y) for t, y in zip(equations.times, states, strict=True)]
    matrix, transposed_matrix, h = equations.matrix, tuple(zip(*equations.matrix, strict=True)), equations.h
    blocks = 1 if f.coupled else len(states[0])

    def apply(packed: Tensor) -> Tensor:
        vectors = unpack(packed, states)
        images = [at.jvp(v) for at, v in zip(linearised, vectors, strict=True)]
        sums = [combine(row, images) for row in matrix]
        return pack([scaled(v, -h * pivot, total) for v, (pivot, total) in zip(vectors, sums, strict=True)], blocks)

    def apply_transposed(packed: Tensor) -> Tensor:
        vectors = unpack(packed, states)
        sums = [weighted_sum(row, vectors) for row in transposed_matrix]
        images = [at.vjp(v) for at, v in zip(linearised, sums, strict=True)]
        return pack([scaled(v, -h, image) for v, image in zip(vectors, images, strict=True)], blocks)

    return Inverse(apply, apply_transposed)


def gmres_increment(
    f: JacobianField, equations: StageEquations, states: Stages, *, residual: Stages, active: Flag
) -> list[Rows]:
    """Return the increment of one iteration by GMRES; NaN in rows where it fails."""
    system = exact_products(f, equations, states)
    right = pack(residual, 1 if f.coupled else len(states[0]))
    result = gmres(system.apply, right, GMRES_TOLERANCE, active=active if isinstance(active, Tensor) else None)
    solved = (result.residual < GMRES_FAILED)[:, None]
    return unpack(torch.where(solved, result.x, torch.nan), residual)


def pack(stages: Stages, blocks: int) -> Float[Tensor, "blocks n"]:
    """Return the numbers of all stages of a row, or of all rows, side by side as real numbers."""
    parts = [(torch.view_as_real(x) if x.is_complex() else x).reshape(blocks, -1) for x in stages]
    return parts[0] if len(parts) == 1 else torch.cat(parts, 1)


def unpack(packed: Float[Tensor, "blocks n"], like: Stages) -> list[Rows]:
    """Return packed numbers as stages shaped and typed like ``like``."""
    stages = []
    for part, x in zip(packed.chunk(len(like), 1), like, strict=True):
        if x.is_complex():
            stages.append(torch.view_as_complex(part.reshape(*x.shape, 2).contiguous()))
        else:
            stages.append(part.reshape(x.shape))
    return stages
