"""Heun's method of order 3, with a continuous extension of order 2."""

from neuralode.methods.runge_kutta.tableau import Tableau

HEUN3 = Tableau(
    name="heun3",
    order=3,
    c=(0, 1 / 3, 2 / 3),
    a=((), (1 / 3,), (0, 2 / 3)),
    b=(1 / 4, 0, 3 / 4),
    interpolant=(
        (1, -33 / 20, 9 / 10),
        (0, 9 / 5, -9 / 5),
        (0, -3 / 20, 9 / 10),
    ),
    interpolant_order=2,
    source="K. Heun, Neue Methoden zur approximativen Integration der Differentialgleichungen, Z. Math. Phys. 45, "
    "1900. Interpolant: ours, solved from the order conditions; of the cubics of order 2 that leave along the first "
    "stage it has the smallest error.",
)
