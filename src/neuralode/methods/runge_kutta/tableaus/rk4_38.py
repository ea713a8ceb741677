"""Kutta's 3/8 rule, with its continuous extension of order 3."""

from neuralode.methods.runge_kutta.tableau import Tableau

RK4_38 = Tableau(
    name="rk4_38",
    order=4,
    c=(0, 1 / 3, 2 / 3, 1),
    a=((), (1 / 3,), (-1 / 3, 1), (1, -1, 1)),
    b=(1 / 8, 3 / 8, 3 / 8, 1 / 8),
    interpolant=(
        (1, -15 / 8, 1),
        (0, 15 / 8, -3 / 2),
        (0, 3 / 8, 0),
        (0, -3 / 8, 1 / 2),
    ),
    interpolant_order=3,
    source="W. Kutta, Beitrag zur näherungsweisen Integration totaler Differentialgleichungen, Z. Math. Phys. 46, "
    "1901. Interpolant: ours, the one solution of the order conditions.",
)
