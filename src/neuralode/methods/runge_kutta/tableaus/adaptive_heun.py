"""Heun's method of order 2 with Euler's as its error estimate."""

from neuralode.methods.runge_kutta.tableau import Tableau

ADAPTIVE_HEUN = Tableau(
    name="adaptive_heun",
    order=2,
    c=(0, 1),
    a=((), (1,)),
    b=(1 / 2, 1 / 2),
    b_error=(-1 / 2, 1 / 2),
    interpolant=((1, -1 / 2), (0, 1 / 2)),
    interpolant_order=2,
    source="K. Heun, Neue Methoden zur approximativen Integration der Differentialgleichungen, Z. Math. Phys. 45, "
    "1900. The interpolant is the one quadratic that satisfies the order conditions (Hairer, Nørsett & Wanner I, "
    "II.6).",
)
