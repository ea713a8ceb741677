r"""The order conditions of Runge–Kutta methods, from rooted trees.

A method has order p when, for every rooted tree :math:`\tau` of at most p nodes, the elementary weight
:math:`\sum_i b_i \Phi_i(\tau)` equals :math:`1/\gamma(\tau)`; a continuous extension :math:`b_i(\theta)` has order q
when :math:`\sum_i b_i(\theta) \Phi_i(\tau) = \theta^{|\tau|}/\gamma(\tau)` for every tree of at most q nodes
(Hairer, Nørsett & Wanner, *Solving Ordinary Differential Equations I*, II.2 and II.6).
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache

import numpy as np

Tree = tuple  # a tree is the sorted tuple of the trees that hang from its root; () is a single node


@cache
def trees(nodes: int) -> tuple[Tree, ...]:
    """All rooted trees with this many nodes (1, 1, 2, 4, 9, 20, 48, …).

    Examples
    --------
    >>> [len(trees(n)) for n in range(1, 8)]
    [1, 1, 2, 4, 9, 20, 48]
    """
    if nodes == 1:
        return ((),)
    return tuple(sorted({tuple(sorted(forest)) for forest in _forests(nodes - 1, nodes - 1)}))


def _forests(nodes: int, largest: int) -> Iterator[list[Tree]]:
    """Multisets of trees with ``nodes`` nodes in all, the largest first."""
    if nodes == 0:
        yield []
    for first in range(min(nodes, largest), 0, -1):
        for tree in trees(first):
            for rest in _forests(nodes - first, first):
                yield [tree, *rest]


def size(tree: Tree) -> int:
    """Number of nodes."""
    return 1 + sum(size(branch) for branch in tree)


def density(tree: Tree) -> int:
    """The γ of a tree: the product of the sizes of all its subtrees."""
    product = size(tree)
    for branch in tree:
        product *= density(branch)
    return product


def stage_weights(tree: Tree, a: np.ndarray) -> np.ndarray:
    """Φ_i of a tree, one number a stage."""
    weights = np.ones(len(a))
    for branch in tree:
        weights = weights * (a @ stage_weights(branch, a))
    return weights


def residual(order: int, a: np.ndarray, b: np.ndarray) -> float:
    """Largest violation of the order conditions by ``b`` over all trees of at most ``order`` nodes."""
    return max(
        abs(float(b @ stage_weights(tree, a)) - 1 / density(tree))
        for nodes in range(1, order + 1)
        for tree in trees(nodes)
    )


def continuous_residual(order: int, a: np.ndarray, polynomials: np.ndarray) -> float:
    """The same for a continuous extension, ``polynomials[i, j]`` being the coefficient of θ^(j+1) in b_i(θ)."""
    worst = 0.0
    for nodes in range(1, order + 1):
        for tree in trees(nodes):
            wanted = np.zeros(polynomials.shape[1])
            wanted[nodes - 1] = 1 / density(tree)
            worst = max(worst, float(np.abs(stage_weights(tree, a) @ polynomials - wanted).max()))
    return worst
