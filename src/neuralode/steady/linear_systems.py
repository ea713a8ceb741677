"""Linear systems J x = b and Jᵀ x = b with the Jacobian of f at one state: dense, or by products alone."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import torch
from jaxtyping import Float
from torch import Tensor

from neuralode.core.jacobians import Linearised
from neuralode.core.status import GradientError
from neuralode.methods.implicit.gmres import gmres
from neuralode.methods.implicit.linear import pack, unpack

SINGULAR = (
    "the Jacobian of f at the steady state is singular{why}, so that the state there is no function of what f uses: "
    "something is conserved (it then depends on y0: put it into args and solve for one number fewer), or the steady "
    "state is about to vanish."
)


class System(Protocol):
    """J at one state."""

    calls: int  # of f, that it took

    def solve(self, b: Tensor) -> Tensor:
        """X with J x = b, row by row; not finite where there is none."""
        ...

    def transposed(self, g: Tensor) -> Tensor:
        """X with Jᵀ x = g."""
        ...


class Dense:
    """With J as matrices, one a row or one for all rows together."""

    calls = 1

    def __init__(self, jacobian: Float[Tensor, "blocks n n"], idle: Tensor | None = None) -> None:
        jacobian = jacobian if idle is None else jacobian + torch.diag_embed(idle)
        self.size = jacobian.abs().sum(1).amax(-1) if jacobian.shape[1] else jacobian.new_zeros(len(jacobian))
        self.lu, self.pivots, _ = torch.linalg.lu_factor_ex(jacobian)

    def solve(self, b: Tensor) -> Tensor:
        """By the factors."""
        packed = pack([b], len(self.lu))
        return unpack(torch.linalg.lu_solve(self.lu, self.pivots, packed[..., None])[..., 0], [b])[0]

    def transposed(self, g: Tensor) -> Tensor:
        """By the factors; refuses a J that is singular up to rounding."""
        packed = pack([g], len(self.lu))
        right = packed.abs().amax(1) if packed.shape[1] else packed.sum(1)
        asked = right > 0  # rows without a cotangent may have any J
        lu = torch.where(asked[:, None, None], self.lu, torch.eye(packed.shape[1], dtype=packed.dtype, device=g.device))
        x = torch.linalg.lu_solve(lu, self.pivots, packed[..., None], adjoint=True)[..., 0]
        growth = (x.abs().amax(1) if x.shape[1] else x.sum(1)) * self.size
        if bool((asked & ~(growth * torch.finfo(right.dtype).eps < 0.01 * right)).any()):
            raise GradientError(SINGULAR.format(why=""))
        return unpack(torch.where(asked[:, None], x, 0), [g])[0]


class Products:
    """With products J v and Jᵀ v only, by GMRES."""

    calls = 1

    def __init__(self, near: Linearised, y: Tensor, blocks: int, idle: Tensor | None = None) -> None:
        self.near, self.blocks, self.idle = near, blocks, idle
        eps = torch.finfo(y.dtype).eps
        self.wanted, self.enough = eps**0.75, eps**0.5

    def solve(self, b: Tensor) -> Tensor:
        """NaN where GMRES comes to nothing."""
        found = gmres(self._times(self.near.jvp, b), pack([b], self.blocks), self.wanted)
        good = (found.residual < 0.5)[:, None]
        return unpack(torch.where(good, found.x, torch.nan), [b])[0]

    def transposed(self, g: Tensor) -> Tensor:
        """To about rounding, or it is refused."""
        times, right = self._times(self.near.vjp, g), pack([g], self.blocks)
        found = gmres(times, right, self.wanted)
        # where J is singular what GMRES counts is not what is left
        left = torch.linalg.vector_norm(right - times(found.x), dim=1)
        size = torch.linalg.vector_norm(right, dim=1)
        if bool((~(left <= self.enough * size)).any()):
            worst = float((left / size.clamp_min(torch.finfo(size.dtype).tiny)).amax())
            raise GradientError(SINGULAR.format(why=f", or GMRES does not solve with it (to {worst:.1g} only)"))
        return unpack(found.x, [g])[0]

    def _times(self, product: Callable[[Tensor], Tensor], like: Tensor) -> Callable[[Tensor], Tensor]:
        def times(v: Tensor) -> Tensor:
            answer = pack([product(unpack(v, [like])[0])], self.blocks)
            return answer if self.idle is None else answer + self.idle * v

        return times
