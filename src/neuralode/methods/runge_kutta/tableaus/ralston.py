"""Ralston's method of order 2: the two-stage method with the smallest error bound."""

from neuralode.methods.runge_kutta.tableau import Tableau

RALSTON = Tableau(
    name="ralston",
    order=2,
    c=(0, 2 / 3),
    a=((), (2 / 3,)),
    b=(1 / 4, 3 / 4),
    interpolant=((1, -3 / 4), (0, 3 / 4)),
    interpolant_order=2,
    source="A. Ralston, Runge-Kutta methods with minimum error bounds, Math. Comp. 16(80), 1962. Interpolant: the "
    "quadratic of order 2 that leaves along the first stage.",
)
