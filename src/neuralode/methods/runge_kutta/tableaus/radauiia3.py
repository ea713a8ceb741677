"""Radau IIA of two stages: L-stable, stiffly accurate; the interpolant is its collocation polynomial."""

from neuralode.methods.runge_kutta.tableau import Tableau

RADAU_IIA3 = Tableau(
    name="radauIIA3",
    order=3,
    c=(1 / 3, 1),
    a=((5 / 12, -1 / 12), (3 / 4, 1 / 4)),
    b=(3 / 4, 1 / 4),
    interpolant=((3 / 2, -3 / 4), (-1 / 2, 3 / 4)),
    interpolant_order=2,
    source="O. Axelsson, A class of A-stable methods, BIT 9(3), 1969; see Hairer & Wanner, Solving Ordinary "
    "Differential Equations II, IV.5.",
)
