"""Radau IIA of three stages: L-stable, stiffly accurate; the interpolant is its collocation polynomial."""

from neuralode.methods.runge_kutta.tableau import Tableau

_ROOT = 6**0.5

RADAU_IIA5 = Tableau(
    name="radauIIA5",
    order=5,
    c=((4 - _ROOT) / 10, (4 + _ROOT) / 10, 1),
    a=(
        ((88 - 7 * _ROOT) / 360, (296 - 169 * _ROOT) / 1800, (-2 + 3 * _ROOT) / 225),
        ((296 + 169 * _ROOT) / 1800, (88 + 7 * _ROOT) / 360, (-2 - 3 * _ROOT) / 225),
        ((16 - _ROOT) / 36, (16 + _ROOT) / 36, 1 / 9),
    ),
    b=((16 - _ROOT) / 36, (16 + _ROOT) / 36, 1 / 9),
    interpolant=(
        (1 / 3 + _ROOT / 2, 2 / 3 - 13 * _ROOT / 12, -5 / 9 + 5 * _ROOT / 9),
        (1 / 3 - _ROOT / 2, 2 / 3 + 13 * _ROOT / 12, -5 / 9 - 5 * _ROOT / 9),
        (1 / 3, -4 / 3, 10 / 9),
    ),
    interpolant_order=3,
    source="O. Axelsson, A class of A-stable methods, BIT 9(3), 1969; see Hairer & Wanner, Solving Ordinary "
    "Differential Equations II, IV.5.",
)
