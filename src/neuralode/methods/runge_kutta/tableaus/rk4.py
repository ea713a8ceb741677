"""The classical Runge–Kutta method, with its continuous extension of order 3."""

from neuralode.methods.runge_kutta.tableau import Tableau

RK4 = Tableau(
    name="rk4",
    order=4,
    c=(0, 1 / 2, 1 / 2, 1),
    a=((), (1 / 2,), (0, 1 / 2), (0, 0, 1)),
    b=(1 / 6, 1 / 3, 1 / 3, 1 / 6),
    interpolant=(
        (1, -3 / 2, 2 / 3),
        (0, 1, -2 / 3),
        (0, 1, -2 / 3),
        (0, -1 / 2, 2 / 3),
    ),
    interpolant_order=3,
    source="W. Kutta, Beitrag zur näherungsweisen Integration totaler Differentialgleichungen, Z. Math. Phys. 46, "
    "1901. Continuous extension: Hairer, Nørsett & Wanner I, II.6.",
)
