"""GMRES for many linear systems at once, each known by products with its matrix.

Saad & Schultz, *GMRES: a generalized minimal residual algorithm for solving nonsymmetric linear systems*, SIAM J. Sci.
Stat. Comput. 7(3), 1986. Systems are blocks that do not mix: a converged block is frozen, and the result of each block
equals, bit by bit, that of the block alone.
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


class GMRESResult(NamedTuple):
    """An approximate solution."""

    x: Vectors
    residual: Float[Tensor, " blocks"]  # relative to the right-hand side
    products: Int[Tensor, " blocks"]  # products with the matrix in which each block took part


class Residual(NamedTuple):
    """The residual of an approximate solution."""

    vector: Vectors
    size: Float[Tensor, " blocks"]
    running: Bool[Tensor, " blocks"]  # blocks that are not solved yet


def gmres(
    apply: Operator,
    b: Vectors,
    tolerance: float,
    *,
    active: Bool[Tensor, " blocks"] | None = None,
    restart: int = RESTART,
    cycles: int = CYCLES,
) -> GMRESResult:
    """Solve A x = b for each block, starting from zero.

    Parameters
    ----------
    apply : callable
        The product A x, [blocks, n] → [blocks, n].
    b : Tensor[blocks, n]
        Real right-hand sides.
    tolerance : float
        Desired residual, relative to b.
    active : Tensor[blocks] of bool, default=None
        The blocks to solve; the others return zero. None: all blocks.
    restart : int, default=30
        Dimension of the Krylov space at which the iteration restarts.
    cycles : int, default=20
        Restarts at most. A block whose residual is not halved by a whole cycle is given up.

    Returns
    -------
    GMRESResult
        The solution, the relative residual and the number of products of each block.

    Examples
    --------
    >>> a = torch.tensor([[[4.0, 1.0], [0.0, 2.0]]])
    >>> result = gmres(lambda x: (a * x[:, None]).sum(-1), torch.tensor([[6.0, 4.0]]), 1e-6)
    >>> result.x, bool(result.residual < 1e-6), int(result.products)
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
        krylov = KrylovSpace(Residual(rest, left, running), restart)
        krylov.extend(apply, target)
        x, products = x + krylov.minimiser(), products + krylov.products
        # give up blocks that were not halved: the residual is at rounding level, or the subspace is too small
        running = running & (krylov.left > target) & (krylov.left <= left / 2)
        left = krylov.left
    return GMRESResult(x, left / size.clamp_min(torch.finfo(b.dtype).tiny), products)


class KrylovSpace:
    """One cycle: an orthonormal basis of the Krylov space and the Hessenberg matrix in triangular form, H = Qᵀ R.

    All arrays have their full size from the start, so that the work of other blocks changes no sum; frozen blocks see
    the unit matrix.

    Parameters
    ----------
    residual : Residual
        The residual at the start of the cycle.
    restart : int
        The largest dimension.
    """

    def __init__(self, residual: Residual, restart: int) -> None:
        vector, self.left, self.running = residual
        blocks, n = vector.shape
        self.dimension = min(restart, n)
        self.basis = vector.new_zeros(self.dimension + 1, blocks, n)
        self.basis[0] = torch.where(self.running[:, None], vector / self.left[:, None], 0)
        self.upper = self._identities(self.dimension, vector)  # R
        self.rotations = self._identities(self.dimension + 1, vector)  # Q
        self.right = vector.new_zeros(blocks, self.dimension)
        self.products = torch.zeros_like(self.running, dtype=torch.int64)

    @staticmethod
    def _identities(n: int, like: Vectors) -> Tensor:
        return torch.eye(n, dtype=like.dtype, device=like.device).repeat(len(like), 1, 1)

    def extend(self, apply: Operator, target: Float[Tensor, " blocks"]) -> None:
        """Add basis vectors until the residual of every running block is at its target."""
        for j in range(self.dimension):
            if not bool(self.running.any()):
                break
            self.products = self.products + self.running
            image, overlaps = _orthogonal(apply(self.basis[j]), self.basis[: j + 1])
            length = torch.linalg.vector_norm(image, dim=1)
            solvable = self._rotate(j, overlaps, length)
            self.running = solvable & (self.left > target)
            self.basis[j + 1] = torch.where((self.running & (length > 0))[:, None], image / length[:, None], 0)

    def _rotate(self, j: int, overlaps: Float[Tensor, "k blocks"], length: Tensor) -> Tensor:
        """Append a column to R by a new Givens rotation; return which blocks have a nonzero, finite pivot."""
        column = (self.rotations[:, : j + 1, : j + 1] * overlaps.T[:, None]).sum(-1)
        pivot = torch.hypot(column[:, j], length)
        solvable = self.running & (pivot > 0) & pivot.isfinite()
        pivot = pivot.where(solvable, torch.ones_like(pivot))
        cosine = torch.where(solvable, column[:, j] / pivot, 1)
        sine = torch.where(solvable, length / pivot, 0)
        self.upper[:, :j, j] = torch.where(solvable[:, None], column[:, :j], 0)
        self.upper[:, j, j] = pivot
        row = self.rotations[:, j].clone()
        self.rotations[:, j] = cosine[:, None] * row
        self.rotations[:, j, j + 1] = sine
        self.rotations[:, j + 1] = -sine[:, None] * row
        self.rotations[:, j + 1, j + 1] = cosine
        sign = -1 if j % 2 else 1  # the residual changes sign at every rotation; ``left`` is its size
        self.right[:, j] = torch.where(solvable, cosine * self.left, 0) * sign
        self.left = torch.where(solvable, sine * self.left, self.left)
        return solvable

    def minimiser(self) -> Vectors:
        """Return the correction in the Krylov space that minimises the residual."""
        weights = torch.linalg.solve_triangular(self.upper, self.right[..., None], upper=True)[..., 0]
        return _combined(weights.T, self.basis[: self.dimension])


def _orthogonal(image: Vectors, basis: Float[Tensor, "k blocks n"]) -> tuple[Vectors, Float[Tensor, "k blocks"]]:
    """Orthogonalise by two Gram–Schmidt passes: one does not keep the vectors orthogonal."""
    total = None
    for _ in range(2):
        overlaps = (basis * image).sum(-1)
        image = image - _combined(overlaps, basis)
        total = overlaps if total is None else total + overlaps
    assert total is not None
    return image, total


def _combined(weights: Float[Tensor, "k blocks"], vectors: Float[Tensor, "k blocks n"]) -> Vectors:
    """Return Σ wᵢ vᵢ, summed along the last axis: there the order of additions is the same for any number of blocks."""
    return (weights[..., None] * vectors).permute(1, 2, 0).contiguous().sum(-1)


class Inverse(NamedTuple):
    """A constant matrix known by its products, whose inverse can be differentiated any number of times."""

    apply: Operator
    transposed: Operator

    def __call__(self, b: Vectors, tolerance: float, backward: float) -> Vectors:
        """Return A⁻¹ b to a relative residual of ``tolerance``; its cotangents to one of ``backward``.

        Examples
        --------
        >>> a = torch.tensor([[[4.0, 1.0], [0.0, 2.0]]])
        >>> inverse = Inverse(lambda x: (a * x[:, None]).sum(-1), lambda x: (a.mT * x[:, None]).sum(-1))
        >>> b = torch.tensor([[6.0, 4.0]], requires_grad=True)
        >>> inverse(b, 1e-6, 1e-6).sum().backward()
        >>> b.grad
        tensor([[0.2500, 0.3750]])
        """
        return _Inverse.apply(b, self, (tolerance, backward))


class _Inverse(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, b: Tensor, matrix: Inverse, tolerances: tuple[float, float]) -> Tensor:
        tolerance, ctx.backward_tolerance = tolerances
        ctx.matrix = matrix
        return gmres(matrix.apply, b, tolerance).x

    @staticmethod
    def backward(ctx: Any, *cotangents: Tensor) -> Any:
        transposed = Inverse(ctx.matrix.transposed, ctx.matrix.apply)
        return _Inverse.apply(cotangents[0], transposed, (ctx.backward_tolerance,) * 2), None, None
