"""Linear systems J x = b and Jᵀ x = b with the Jacobian of f at one state: dense, or matrix-free."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import torch
from jaxtyping import Float
from torch import Tensor

from neuralode.core.jacobians import Linearised
from neuralode.core.problem import Problem
from neuralode.core.status import GradientError
from neuralode.methods.implicit.gmres import gmres
from neuralode.methods.implicit.linear_systems import pack, unpack

SOLVED = 0.5  # relative residual of GMRES from which on its solution is used
SINGULAR_GROWTH = 0.01  # |x| |J| eps / |b| from which on J counts as singular

SINGULAR = (
    "the Jacobian of f at the steady state is singular{why}, so that the state is not a function of the tensors that f "
    "uses. Either something is conserved (the state then depends on y0: pass the conserved quantity in args and solve "
    "for one number fewer), or the steady state is about to vanish."
)


class LinearSystem(Protocol):
    """The Jacobian J of f at one state.

    Attributes
    ----------
    calls : int
        Calls of f that it took.
    """

    calls: int

    def solve(self, b: Tensor) -> Tensor:
        """Return x with J x = b, [rows, features]; not finite in rows without a solution."""
        ...

    def solve_transposed(self, b: Tensor) -> Tensor:
        """Return x with Jᵀ x = b, [rows, features]; raises `GradientError` if J is singular."""
        ...


def jacobian_system(problem: Problem, y: Tensor, dense_limit: int) -> LinearSystem:
    """Return the linear system of the Jacobian at y: dense up to ``dense_limit`` numbers, matrix-free above.

    Rows that do not depend on each other have a Jacobian each; otherwise one system holds all rows.
    """
    field, t = problem.field, time_zero(problem)
    blocks = 1 if field.coupled else len(y)
    size = y.numel() * (2 if y.is_complex() else 1) // max(blocks, 1)
    unused = _unused_parts(problem, y, blocks) if y.is_complex() else None
    if size <= dense_limit:
        return DenseSystem(field.jacobian(t, y), unused)
    return MatrixFreeSystem(field.linearised(t, y), y, blocks=blocks, unused=unused)


def time_zero(problem: Problem) -> Tensor:
    """Return t = 0 as f receives it, 0-d or [rows]."""
    shape = (problem.layout.rows,) if problem.per_sample else ()
    return torch.zeros(shape, dtype=problem.field.time_dtype, device=problem.layout.device)


def _unused_parts(problem: Problem, y: Tensor, blocks: int) -> Tensor:
    """Return 1 for numbers without a meaning: the imaginary parts of real leaves packed beside complex ones.

    Added to the diagonal of J, where their rows and columns are zero, they make these parts of the solution zero.
    """
    unused = torch.zeros_like(y)
    for leaf in problem.layout.leaves:
        if not leaf.dtype.is_complex:
            torch.view_as_real(unused)[:, leaf.start : leaf.stop, 1] = 1
    return pack([unused], blocks)


class DenseSystem:
    """A factorised Jacobian: one matrix for each row, or one for all rows together.

    Parameters
    ----------
    jacobian : Tensor[blocks, n, n]
        The matrices.
    unused : Tensor[blocks, n], default=None
        Added to their diagonals.
    """

    calls = 1

    def __init__(self, jacobian: Float[Tensor, "blocks n n"], unused: Float[Tensor, "blocks n"] | None = None) -> None:
        jacobian = jacobian if unused is None else jacobian + torch.diag_embed(unused)
        self.norm = jacobian.abs().sum(1).amax(-1) if jacobian.shape[1] else jacobian.new_zeros(len(jacobian))
        self.lu, self.pivots, _ = torch.linalg.lu_factor_ex(jacobian)

    def solve(self, b: Tensor) -> Tensor:
        """Return x with J x = b; not finite in blocks whose J is exactly singular."""
        packed = pack([b], len(self.lu))
        return unpack(torch.linalg.lu_solve(self.lu, self.pivots, packed[..., None])[..., 0], [b])[0]

    def solve_transposed(self, b: Tensor) -> Tensor:
        """Return x with Jᵀ x = b; refuses a J that is singular up to rounding."""
        packed = pack([b], len(self.lu))
        b_norm = _max_norm(packed)
        nonzero = b_norm > 0  # blocks without a cotangent may have any J
        identity = torch.eye(packed.shape[1], dtype=packed.dtype, device=b.device)
        lu = torch.where(nonzero[:, None, None], self.lu, identity)
        x = torch.linalg.lu_solve(lu, self.pivots, packed[..., None], adjoint=True)[..., 0]
        growth = _max_norm(x) * self.norm
        if bool((nonzero & ~(growth * torch.finfo(b_norm.dtype).eps < SINGULAR_GROWTH * b_norm)).any()):
            raise GradientError(SINGULAR.format(why=""))
        return unpack(torch.where(nonzero[:, None], x, 0), [b])[0]


class MatrixFreeSystem:
    """A Jacobian known by its products J v and Jᵀ w, solved by GMRES.

    Parameters
    ----------
    linearised : Linearised
        The products.
    y : Tensor[rows, features]
        The state.
    blocks : int
        Number of independent systems: one for each row, or 1.
    unused : Tensor[blocks, n], default=None
        Added to the diagonal of J.
    """

    calls = 1

    def __init__(self, linearised: Linearised, y: Tensor, *, blocks: int, unused: Tensor | None = None) -> None:
        self.linearised, self.blocks, self.unused = linearised, blocks, unused
        eps = torch.finfo(y.dtype).eps
        self.tolerance, self.accepted = eps**0.75, eps**0.5  # relative residuals

    def solve(self, b: Tensor) -> Tensor:
        """Return x with J x = b; NaN in blocks where GMRES does not converge."""
        result = gmres(self._packed(self.linearised.jvp, b), pack([b], self.blocks), self.tolerance)
        solved = (result.residual < SOLVED)[:, None]
        return unpack(torch.where(solved, result.x, torch.nan), [b])[0]

    def solve_transposed(self, b: Tensor) -> Tensor:
        """Return x with Jᵀ x = b to about rounding; refuses a J that does not allow it."""
        apply, right = self._packed(self.linearised.vjp, b), pack([b], self.blocks)
        result = gmres(apply, right, self.tolerance)
        # Compute the residual: the estimate of GMRES is wrong where J is singular.
        residual = torch.linalg.vector_norm(right - apply(result.x), dim=1)
        size = torch.linalg.vector_norm(right, dim=1)
        if bool((~(residual <= self.accepted * size)).any()):
            worst = float((residual / size.clamp_min(torch.finfo(size.dtype).tiny)).amax())
            why = f", or GMRES does not converge (relative residual {worst:.1g})"
            raise GradientError(SINGULAR.format(why=why))
        return unpack(result.x, [b])[0]

    def _packed(self, product: Callable[[Tensor], Tensor], like: Tensor) -> Callable[[Tensor], Tensor]:
        """Return a product of rows as one of blocks."""

        def apply(v: Tensor) -> Tensor:
            image = pack([product(unpack(v, [like])[0])], self.blocks)
            return image if self.unused is None else image + self.unused * v

        return apply


def _max_norm(x: Float[Tensor, "blocks n"]) -> Float[Tensor, " blocks"]:
    return x.abs().amax(1) if x.shape[1] else x.sum(1)
