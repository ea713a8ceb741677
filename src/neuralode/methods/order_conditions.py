r"""The order conditions of Runge–Kutta methods, from rooted trees.

A method has order p when, for every rooted tree :math:`\tau` of at most p nodes, the elementary weight
:math:`\sum_i b_i \Phi_i(\tau)` equals :math:`1/\gamma(\tau)`; a continuous extension :math:`b_i(\theta)` has order q
when :math:`\sum_i b_i(\theta) \Phi_i(\tau) = \theta^{|\tau|}/\gamma(\tau)` for every tree of at most q nodes
(Hairer, Nørsett & Wanner, *Solving Ordinary Differential Equations I*, II.2 and II.6). Nothing here asks whether
``a`` is triangular: the conditions are the same for implicit methods.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache

import numpy as np

Tree = tuple[int, ...]  # the numbers of the trees that hang from its root; () is a single node


@cache
def trees(nodes: int) -> tuple[Tree, ...]:
    """All rooted trees with this many nodes (1, 1, 2, 4, 9, 20, 48, 115, …).

    Trees are numbered from 1 on, the smaller first, and each is known by the numbers of its branches, the largest
    first.

    Examples
    --------
    >>> trees(1), trees(2), trees(3)
    (((),), ((1,),), ((1, 1), (2,)))
    >>> [len(trees(n)) for n in range(1, 9)]
    [1, 1, 2, 4, 9, 20, 48, 115]
    """
    sizes = [size for size in range(1, nodes) for _ in trees(size)]
    return tuple(_forests(nodes - 1, len(sizes), sizes))


def _forests(nodes: int, largest: int, sizes: list[int]) -> Iterator[Tree]:
    """Trees of ``nodes`` nodes in all, none of a number above ``largest``; tree n has ``sizes[n - 1]`` nodes."""
    if nodes == 0:
        yield ()
    for number in range(1, largest + 1):
        size = sizes[number - 1]
        if size > nodes:
            return  # numbers go by size
        for rest in _forests(nodes - size, number, sizes):
            yield (number, *rest)


@cache
def _densities(nodes: int) -> np.ndarray:
    """γ of each tree: the product of the sizes of all its subtrees."""
    smaller = np.concatenate([np.ones(1), *map(_densities, range(1, nodes))])
    return nodes * smaller[_branches(nodes)].prod(1)


@cache
def _branches(nodes: int) -> np.ndarray:
    """The trees of this size as one array [trees, nodes - 1], filled up with 0, which stands for no branch."""
    return np.array([tree + (0,) * (nodes - 1 - len(tree)) for tree in trees(nodes)], dtype=int)


def stage_weights(order: int, a: np.ndarray) -> list[np.ndarray]:
    """Φ_i of every tree of at most ``order`` nodes: for 1, …, ``order`` nodes an array [trees, stages].

    Examples
    --------
    >>> stage_weights(2, np.array([[0, 0], [1 / 2, 0]]))
    [array([[1., 1.]]), array([[0. , 0.5]])]
    """
    smaller = np.ones((1, len(a)))  # a Φ of each tree by its number; number 0 is no factor
    weights = []
    for nodes in range(1, order + 1):
        weights.append(smaller[_branches(nodes)].prod(1))
        smaller = np.concatenate((smaller, weights[-1] @ a.T))
    return weights


def residual(order: int, a: np.ndarray, b: np.ndarray) -> float:
    """Largest violation of the order conditions by ``b`` over all trees of at most ``order`` nodes.

    Examples
    --------
    >>> midpoint = np.array([[0, 0], [1 / 2, 0]])
    >>> residual(2, midpoint, np.array([0, 1])), round(residual(3, midpoint, np.array([0, 1])), 4)
    (0.0, 0.1667)
    """
    violations = [phi @ b - 1 / _densities(nodes) for nodes, phi in enumerate(stage_weights(order, a), 1)]
    return float(np.abs(np.concatenate(violations)).max())


def continuous_residual(order: int, a: np.ndarray, polynomials: np.ndarray) -> float:
    """The same for a continuous extension, ``polynomials[i, j]`` being the coefficient of θ^(j+1) in b_i(θ).

    It is measured at as many θ of (0, 1] as determine the polynomials: of their values, since coefficients of a high
    degree are large and cancel.

    Examples
    --------
    >>> euler = np.zeros((1, 1))
    >>> continuous_residual(1, euler, np.array([[1.0]])), continuous_residual(2, euler, np.array([[1.0]]))
    (0.0, 0.5)
    """
    degree = max(order, polynomials.shape[1])
    thetas = np.arange(1, degree + 1) / degree
    weights = polynomials @ thetas ** np.arange(1, polynomials.shape[1] + 1)[:, None]
    violations = [
        phi @ weights - thetas**nodes / _densities(nodes)[:, None]
        for nodes, phi in enumerate(stage_weights(order, a), 1)
    ]
    return float(np.abs(np.concatenate(violations)).max())
