"""The Gauss–Legendre method of three stages: symplectic, A-stable; the interpolant is its collocation polynomial."""

from neuralode.methods.runge_kutta.tableau import Tableau

_ROOT = 15**0.5

GL6 = Tableau(
    name="gl6",
    order=6,
    c=(1 / 2 - _ROOT / 10, 1 / 2, 1 / 2 + _ROOT / 10),
    a=(
        (5 / 36, 2 / 9 - _ROOT / 15, 5 / 36 - _ROOT / 30),
        (5 / 36 + _ROOT / 24, 2 / 9, 5 / 36 - _ROOT / 24),
        (5 / 36 + _ROOT / 30, 2 / 9 + _ROOT / 15, 5 / 36),
    ),
    b=(5 / 18, 4 / 9, 5 / 18),
    interpolant=(
        (5 / 6 + _ROOT / 6, -5 / 3 - _ROOT / 6, 10 / 9),
        (-2 / 3, 10 / 3, -20 / 9),
        (5 / 6 - _ROOT / 6, -5 / 3 + _ROOT / 6, 10 / 9),
    ),
    interpolant_order=3,
    source="J. C. Butcher, Implicit Runge-Kutta processes, Math. Comp. 18(85), 1964.",
)
