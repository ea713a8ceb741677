"""GMRES for many systems side by side, of which only products with the matrix are known.

Saad & Schultz, *GMRES: a generalized minimal residual algorithm for solving nonsymmetric linear systems*, SIAM J. Sci.
Stat. Comput. 7(3), 1986. Blocks do not mix: one that has converged is frozen, and each is to the bit what it is alone.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, TypeAlias

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

Vectors: TypeAlias = Float[Tensor, "blocks n"]
Operator: TypeAlias = Callable[[Tensor], Tensor]  # [blocks, n] -> [blocks, n], linear, block by block

RESTART = 30
CYCLES = 20


class Found(NamedTuple):
    """An approximate solution."""

    x: Vectors
    residual: Float[Tensor, " blocks"]  # relative to the right-hand side
    products: Int[Tensor, " blocks"]  # with the matrix, that each block took part in


def gmres(
    apply: Operator,
    b: Vectors,
    tolerance: float,
    active: Bool[Tensor, " blocks"] | None = None,
    restart: int = RESTART,
    cycles: int = CYCLES,
) -> Found:
    """Solve A x = b for each block, starting from zero.

    Parameters
    ----------
    apply : callable
        The product A x, [blocks, n] → [blocks, n].
    b : Tensor[blocks, n]
        Real right-hand sides.
    tolerance : float
        Residual wanted, relative to b.
    active : Tensor[blocks], optional
        The blocks to solve; the others are given zero.
    restart : int
        Vectors kept before the search starts anew.
    cycles : int
        Starts made at most. A block that a whole cycle does not bring to half its residual is given up.

    Returns
    -------
    Found
        The solution, the relative residual of each block and how many products it took.

    Examples
    --------
    >>> a = torch.tensor([[[4.0, 1.0], [0.0, 2.0]]])
    >>> found = gmres(lambda x: (a * x[:, None]).sum(-1), torch.tensor([[6.0, 4.0]]), 1e-6)
    >>> found.x, bool(found.residual < 1e-6), int(found.products)
    (tensor([[1.0000, 2.0000]]), True, 2)
    """
    size = torch.linalg.vector_norm(b, dim=1)
    running = (size > 0) if active is None else active & (size > 0)
    target, left = tolerance * size, size.where(running, torch.zeros_like(size))
    x, rest = torch.zeros_like(b), b
    products = torch.zeros(len(b), dtype=torch.int64, device=b.device)
    for cycle in range(cycles):
        if not bool(running.any()):
            break
        if cycle:
            rest = b - apply(x)
            products = products + running
            left = torch.where(running, torch.linalg.vector_norm(rest, dim=1), left)
        move, after, spent = _cycle(apply, rest, left, target, running, restart)
        x, products = x + move, products + spent
        # what did not come down by half will not: the residual may be at its rounding, or the subspace too small
        running = running & (after > target) & (after <= left / 2)
        left = after
    return Found(x, left / size.clamp_min(torch.finfo(b.dtype).tiny), products)


def _cycle(
    apply: Operator, rest: Vectors, left: Tensor, target: Tensor, running: Tensor, restart: int
) -> tuple[Vectors, Tensor, Tensor]:
    """The best move within one Krylov space, the residual after it, and the products made.

    The Hessenberg matrix is kept in triangular form, H = Qᵀ R, with one new rotation a column.
    """
    blocks, n = rest.shape
    m = min(restart, n)
    vectors = rest.new_zeros(m + 1, blocks, n)
    vectors[0] = torch.where(running[:, None], rest / left[:, None], 0)
    # both have their full size, so that what others do changes no sum: frozen blocks see the unit matrix
    upper = torch.eye(m, dtype=rest.dtype, device=rest.device).repeat(blocks, 1, 1)
    turned = torch.eye(m + 1, dtype=rest.dtype, device=rest.device).repeat(blocks, 1, 1)
    right = rest.new_zeros(blocks, m)
    spent = torch.zeros_like(running, dtype=torch.int64)
    for j in range(m):
        if not bool(running.any()):
            break
        spent = spent + running
        image, overlaps = _orthogonal(apply(vectors[j]), vectors[: j + 1])
        length = torch.linalg.vector_norm(image, dim=1)
        column = (turned[:, : j + 1, : j + 1] * overlaps.T[:, None]).sum(-1)
        pivot = torch.hypot(column[:, j], length)
        sound = running & (pivot > 0) & pivot.isfinite()
        pivot = pivot.where(sound, torch.ones_like(pivot))
        cosine = torch.where(sound, column[:, j] / pivot, 1)
        sine = torch.where(sound, length / pivot, 0)
        upper[:, :j, j] = torch.where(sound[:, None], column[:, :j], 0)
        upper[:, j, j] = pivot
        row = turned[:, j].clone()
        turned[:, j] = cosine[:, None] * row
        turned[:, j, j + 1] = sine
        turned[:, j + 1] = -sine[:, None] * row
        turned[:, j + 1, j + 1] = cosine
        right[:, j] = torch.where(sound, cosine * left, 0) * _signs(j)
        left = torch.where(sound, sine * left, left)
        running = sound & (left > target)
        vectors[j + 1] = torch.where((running & (length > 0))[:, None], image / length[:, None], 0)
    weights = torch.linalg.solve_triangular(upper, right[..., None], upper=True)[..., 0]
    return _combined(weights.T, vectors[:m]), left, spent


def _signs(j: int) -> int:
    """The residual changes sign at every rotation: only its size is followed."""
    return -1 if j % 2 else 1


def _orthogonal(image: Vectors, basis: Float[Tensor, "k blocks n"]) -> tuple[Vectors, Float[Tensor, "k blocks"]]:
    """Gram–Schmidt, twice: once is not enough to keep the vectors orthogonal."""
    total = None
    for _ in range(2):
        overlaps = (basis * image).sum(-1)
        image = image - _combined(overlaps, basis)
        total = overlaps if total is None else total + overlaps
    assert total is not None
    return image, total


def _combined(weights: Float[Tensor, "k blocks"], vectors: Float[Tensor, "k blocks n"]) -> Vectors:
    """Σ wᵢ vᵢ. Added up along the last axis, where the order of the additions does not depend on the other blocks."""
    return (weights[..., None] * vectors).permute(1, 2, 0).contiguous().sum(-1)


class Inverse(NamedTuple):
    """A constant matrix known by its products, whose inverse can be differentiated through as often as one likes."""

    apply: Operator
    transposed: Operator

    def __call__(self, b: Vectors, tolerance: float, backward: float) -> Vectors:
        """A⁻¹ b to a relative residual of ``tolerance``; its products with cotangents to one of ``backward``.

        Examples
        --------
        >>> a = torch.tensor([[[4.0, 1.0], [0.0, 2.0]]])
        >>> inverse = Inverse(lambda x: (a * x[:, None]).sum(-1), lambda x: (a.mT * x[:, None]).sum(-1))
        >>> b = torch.tensor([[6.0, 4.0]], requires_grad=True)
        >>> inverse(b, 1e-6, 1e-6).sum().backward()
        >>> b.grad
        tensor([[0.2500, 0.3750]])
        """
        return _Inverse.apply(b, self, tolerance, backward)


class _Inverse(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, b: Tensor, matrix: Inverse, tolerance: float, backward: float) -> Tensor:
        ctx.matrix, ctx.backward_tolerance = matrix, backward
        return gmres(matrix.apply, b, tolerance).x

    @staticmethod
    def backward(ctx: Any, *cotangents: Tensor) -> Any:
        turned = Inverse(ctx.matrix.transposed, ctx.matrix.apply)
        within = ctx.backward_tolerance
        return _Inverse.apply(cotangents[0], turned, within, within), None, None, None
