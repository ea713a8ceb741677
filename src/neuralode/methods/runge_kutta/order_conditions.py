r"""The order conditions of Runge–Kutta methods, from rooted trees.

A method has order p when, for every rooted tree :math:`\tau` of at most p nodes, the elementary weight
:math:`\sum_i b_i \Phi_i(\tau)` equals :math:`1/\gamma(\tau)`; a continuous extension :math:`b_i(\theta)` has order q
when :math:`\sum_i b_i(\theta) \Phi_i(\tau) = \theta^{|\tau|}/\gamma(\tau)` for every tree of at most q nodes
(Hairer, Nørsett & Wanner, *Solving Ordinary Differential Equations I*, II.2 and II.6). The conditions are the same for
explicit and implicit methods.

The residuals are computed in twice the precision of float64, with each number as the unevaluated sum of two floats
(T. J. Dekker, *A floating-point technique for extending the available precision*, Numer. Math. 18, 1971). In float64
they would be rounding errors where large coefficients cancel, and would depend on the machine.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache

import numpy as np

Tree = tuple[int, ...]  # the numbers of the subtrees of the root; () is a single node
Pair = tuple[np.ndarray, np.ndarray]  # stands for the sum; the second is below the rounding of the first


@cache
def trees(nodes: int) -> tuple[Tree, ...]:
    """Return all rooted trees with this many nodes (1, 1, 2, 4, 9, 20, 48, 115, …).

    Trees are numbered from 1, smaller ones first. Each is given by the numbers of its subtrees, the largest first.

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
    """Yield sets of trees with ``nodes`` nodes in total and numbers up to ``largest``; tree n has ``sizes[n - 1]``."""
    if nodes == 0:
        yield ()
    for number in range(1, largest + 1):
        size = sizes[number - 1]
        if size > nodes:
            return  # numbers are ordered by size
        for rest in _forests(nodes - size, number, sizes):
            yield (number, *rest)


@cache
def _densities(nodes: int) -> np.ndarray:
    """Return γ of each tree: the product of the sizes of all its subtrees."""
    smaller = np.concatenate([np.ones(1, dtype=int), *map(_densities, range(1, nodes))])
    return nodes * smaller[_branches(nodes)].prod(1)


@cache
def _branches(nodes: int) -> np.ndarray:
    """Return the trees of this size as an array [trees, nodes - 1] with trailing zeros."""
    return np.array([tree + (0,) * (nodes - 1 - len(tree)) for tree in trees(nodes)], dtype=int)


def stage_weights(order: int, a: np.ndarray) -> Iterator[Pair]:
    """Yield Φ_i of all trees of 1, …, ``order`` nodes: arrays [trees, stages].

    Examples
    --------
    >>> [phi for phi, rest in stage_weights(2, np.array([[0, 0], [1 / 2, 0]]))]
    [array([[1., 1.]]), array([[0. , 0.5]])]
    """
    phi = _pair(np.ones((1, len(a))))
    smaller = phi  # a Φ of each tree by its number; number 0 stands for the factor 1
    yield phi
    for nodes in range(2, order + 1):
        branching = _matmul(phi, _pair(a.T))
        smaller = _joined(smaller, branching)
        phi, *others = [(smaller[0][branch], smaller[1][branch]) for branch in _branches(nodes).T]
        for other in others:
            phi = _times(phi, other)
        yield phi


def residual(order: int, a: np.ndarray, b: np.ndarray) -> float:
    """Return the largest violation of the order conditions by ``b`` over all trees of at most ``order`` nodes.

    Examples
    --------
    >>> midpoint = np.array([[0, 0], [1 / 2, 0]])
    >>> residual(2, midpoint, np.array([0, 1])), round(residual(3, midpoint, np.array([0, 1])), 4)
    (0.0, 0.1667)
    """
    return _largest_violation(order, a, polynomials=np.asarray(b, float)[:, None], thetas=np.ones(1))


def continuous_residual(order: int, a: np.ndarray, polynomials: np.ndarray) -> float:
    """Return the same for a continuous extension; ``polynomials[i, j]`` is the coefficient of θ^(j+1) in b_i(θ).

    The conditions are evaluated at as many θ in (0, 1] as determine the polynomials. Values are compared rather than
    coefficients, because coefficients of high degrees are large and cancel.

    Examples
    --------
    >>> euler = np.zeros((1, 1))
    >>> continuous_residual(1, euler, np.array([[1.0]])), continuous_residual(2, euler, np.array([[1.0]]))
    (0.0, 0.5)
    """
    degree = max(order, polynomials.shape[1])
    return _largest_violation(order, a, polynomials=polynomials, thetas=np.arange(1, degree + 1) / degree)


def _largest_violation(order: int, a: np.ndarray, *, polynomials: np.ndarray, thetas: np.ndarray) -> float:
    """Return the largest violation by the weights b_i(θ) at these θ."""
    powers = [_pair(thetas)]
    while len(powers) < max(order, polynomials.shape[1]):
        powers.append(_times(powers[-1], powers[0]))
    values = [np.stack(part) for part in zip(*powers[: polynomials.shape[1]], strict=True)]
    weights = _matmul(_pair(polynomials), (values[0], values[1]))
    sizes = [nodes for nodes in range(1, order + 1) for _ in trees(nodes)]
    densities = np.concatenate([_densities(nodes) for nodes in range(1, order + 1)])[:, None]
    sums = _matmul(_joined(*stage_weights(order, a)), weights)
    expected = [-np.stack(part)[np.array(sizes) - 1] for part in zip(*powers, strict=True)]
    excess, _ = _plus(_times(sums, _pair(densities)), (expected[0], expected[1]))
    return float(np.abs(excess / densities).max())


def _joined(*parts: Pair, axis: int = 0) -> Pair:
    return np.concatenate([part[0] for part in parts], axis), np.concatenate([part[1] for part in parts], axis)


def _pair(numbers: np.ndarray) -> Pair:
    return numbers, np.zeros_like(numbers)


def _plus(x: Pair, y: Pair) -> Pair:
    total = x[0] + y[0]
    part = total - x[0]
    lost = (x[0] - (total - part)) + (y[0] - part)  # the rounding error of the total, exact
    return _normalised(total, lost + x[1] + y[1])


def _times(x: Pair, y: Pair) -> Pair:
    product = x[0] * y[0]
    (x_high, x_low), (y_high, y_low) = _halves(x[0]), _halves(y[0])
    lost = ((x_high * y_high - product) + x_high * y_low + x_low * y_high) + x_low * y_low  # exact
    return _normalised(product, lost + x[0] * y[1] + x[1] * y[0])


def _matmul(x: Pair, y: Pair) -> Pair:
    terms = _times((x[0][:, :, None], x[1][:, :, None]), y)
    while (count := terms[0].shape[1]) > 1:  # pairwise summation
        half = count // 2
        first, second, rest = (
            (terms[0][:, part], terms[1][:, part])
            for part in (slice(half), slice(half, 2 * half), slice(2 * half, count))
        )
        terms = _joined(_plus(first, second), rest, axis=1)
    return terms[0][:, 0], terms[1][:, 0]


def _halves(x: np.ndarray) -> Pair:
    """Split into two numbers of 26 bits, whose products are exact in float64."""
    large = 134217729.0 * x  # 2**27 + 1
    high = large - (large - x)
    return high, x - high


def _normalised(high: np.ndarray, low: np.ndarray) -> Pair:
    total = high + low
    return total, low - (total - high)
