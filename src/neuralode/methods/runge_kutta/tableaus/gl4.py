"""The Gauss–Legendre method of two stages: symplectic, A-stable; the interpolant is its collocation polynomial."""

from neuralode.methods.runge_kutta.tableau import Tableau

_ROOT = 3**0.5

GL4 = Tableau(
    name="gl4",
    order=4,
    c=(1 / 2 - _ROOT / 6, 1 / 2 + _ROOT / 6),
    a=((1 / 4, 1 / 4 - _ROOT / 6), (1 / 4 + _ROOT / 6, 1 / 4)),
    b=(1 / 2, 1 / 2),
    interpolant=((1 / 2 + _ROOT / 2, -_ROOT / 2), (1 / 2 - _ROOT / 2, _ROOT / 2)),
    interpolant_order=2,
    source="J. C. Butcher, Implicit Runge-Kutta processes, Math. Comp. 18(85), 1964.",
)
