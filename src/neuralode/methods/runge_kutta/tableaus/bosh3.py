"""Bogacki and Shampine's 3(2) pair; the interpolant is the cubic Hermite polynomial."""

from neuralode.methods.runge_kutta.tableau import Tableau

BOSH3 = Tableau(
    name="bosh3",
    order=3,
    c=(0, 1 / 2, 3 / 4, 1),
    a=((), (1 / 2,), (0, 3 / 4), (2 / 9, 1 / 3, 4 / 9)),
    b=(2 / 9, 1 / 3, 4 / 9, 0),
    b_error=(-5 / 72, 1 / 12, 1 / 9, -1 / 8),
    interpolant=(
        (1, -4 / 3, 5 / 9),
        (0, 1, -2 / 3),
        (0, 4 / 3, -8 / 9),
        (0, -1, 1),
    ),
    interpolant_order=3,
    source="P. Bogacki & L. F. Shampine, A 3(2) pair of Runge-Kutta formulas, Appl. Math. Lett. 2(4), 1989.",
)
