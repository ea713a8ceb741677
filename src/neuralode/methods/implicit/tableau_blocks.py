"""A tableau split into blocks of stages that are solved together."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from neuralode.methods.implicit.stage_equations import Matrix
from neuralode.methods.runge_kutta.tableau import Tableau

GUESS_DEGREE = 2  # of the polynomial through known slopes that extrapolates to the initial guess
SAME_NODE = 1e-12


class TableauBlock(NamedTuple):
    """One block of a tableau."""

    stages: tuple[int, ...]
    earlier: tuple[tuple[float, ...], ...]  # the columns of a that belong to stages before the block
    matrix: Matrix | None  # the columns of the block itself; None if its stage is explicit
    inverse: Matrix
    guess: tuple[tuple[float, ...], ...]  # weights of known slopes in the initial guess of the new ones


class TableauBlocks(NamedTuple):
    """The blocks of a tableau, in order."""

    tableau: Tableau
    blocks: tuple[TableauBlock, ...]
    matrices: tuple[Matrix, ...]  # the different ones among the blocks; equal ones share a factorisation

    @property
    def explicit_first(self) -> bool:
        """Whether the first stage is f at the start of the step."""
        return self.blocks[0].matrix is None

    @classmethod
    def of(cls, tableau: Tableau) -> TableauBlocks:
        """Split a tableau; refuses one whose matrix is singular within a block."""
        a, c = np.array(tableau.a), np.array(tableau.c)
        blocks, before = [], []
        for stages in tableau.blocks:
            matrix = a[np.ix_(stages, stages)]
            implicit = bool(matrix.any())
            if implicit and np.linalg.matrix_rank(matrix) < len(stages):
                raise ValueError(f"Tableau {tableau.name!r}: a is singular in the stages {stages}, solved together.")
            block = TableauBlock(
                stages=stages,
                earlier=tuple(tuple(a[i, before].tolist()) for i in stages),
                matrix=_rows(matrix) if implicit else None,
                inverse=_rows(np.linalg.inv(matrix)) if implicit else (),
                guess=tuple(_extrapolation(c[before], c[i]) for i in stages),
            )
            blocks.append(block)
            before += stages
        matrices = dict.fromkeys(block.matrix for block in blocks if block.matrix is not None)
        return cls(tableau, tuple(blocks), tuple(matrices))


def _rows(matrix: np.ndarray) -> Matrix:
    return tuple(map(tuple, matrix.tolist()))


def _extrapolation(known: np.ndarray, node: float) -> tuple[float, ...]:
    """Return weights of slopes at known nodes for the slope at another, exact for polynomials of low degree.

    Of the exact weights these are the smallest in the mean square.
    """
    if not len(known):
        return ()
    same = np.flatnonzero(np.isclose(known, node, rtol=0, atol=SAME_NODE))
    if len(same):
        weights = np.zeros(len(known))
        weights[same[-1]] = 1.0
        return tuple(weights.tolist())
    degree = min(len(set(np.round(known, 12))) - 1, GUESS_DEGREE)
    powers = np.arange(degree + 1)[:, None]
    return tuple((np.linalg.pinv(known**powers) @ node ** powers[:, 0]).tolist())
