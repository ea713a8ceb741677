r"""The order conditions of a composition of two flows, from products of exponentials.

A step that follows two flows alternately, with operators A and B, is a product of exponentials
:math:`e^{w_1 h X_1} e^{w_2 h X_2} \cdots` with every :math:`X_i` equal to A or B. The step has order p when the product
equals :math:`e^{h(A + B)}` up to :math:`h^p`. A and B do not commute, so both are sums over words in two letters; on
the right all words of n letters have the coefficient :math:`1/n!`. (Hairer, Lubich & Wanner, *Geometric Numerical
Integration*, III.5.)
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import product
from math import factorial


def residual(factors: Iterable[tuple[int, float]], order: int) -> float:
    """Return the largest violation of the order conditions over all words of ``order`` letters.

    Parameters
    ----------
    factors : iterable of (letter, weight)
        The flows that are followed, 0 or 1, and the share of the step for each, in order.
    order : int
        The length of the words.

    Examples
    --------
    >>> residual([(0, 1.0), (1, 1.0)], 1), residual([(0, 1.0), (1, 1.0)], 2)
    (0.0, 0.5)
    >>> residual([(1, 0.5), (0, 1.0), (1, 0.5)], 2)
    0.0
    """
    coefficients = words(factors, order)
    return max(abs(coefficients.get(word, 0.0) - 1 / factorial(order)) for word in product((0, 1), repeat=order))


def words(factors: Iterable[tuple[int, float]], longest: int) -> dict[tuple[int, ...], float]:
    """Return the coefficients of all words of at most ``longest`` letters in a product of exponentials.

    Examples
    --------
    >>> words([(0, 1.0), (1, 2.0)], 2)
    {(): 1.0, (0,): 1.0, (0, 0): 0.5, (1,): 2.0, (0, 1): 2.0, (1, 1): 2.0}
    """
    total = {(): 1.0}
    for letter, weight in factors:
        longer: dict[tuple[int, ...], float] = {}
        for times in range(longest + 1):
            for word, coefficient in total.items():
                if len(word) + times <= longest:
                    key = word + (letter,) * times
                    longer[key] = longer.get(key, 0.0) + coefficient * weight**times / factorial(times)
        total = longer
    return total
