"""Shu and Osher's method of order 3 in three stages, strong stability preserving.

If a norm does not grow along Euler steps of size h, it does not grow along steps of that size or within them.
"""

from neuralode.methods.runge_kutta.tableau import Tableau

SSPRK33 = Tableau(
    name="ssprk33",
    order=3,
    c=(0, 1, 1 / 2),
    a=((), (1,), (1 / 4, 1 / 4)),
    b=(1 / 6, 1 / 6, 2 / 3),
    # y(θ) = (1 - θ²) (y + h θ / (1 + θ) k₁) + θ² y₁: a convex combination of an Euler step and the new state
    interpolant=((1, -5 / 6), (0, 1 / 6), (0, 2 / 3)),
    interpolant_order=2,
    source="C.-W. Shu & S. Osher, Efficient implementation of essentially non-oscillatory shock-capturing schemes, J. "
    "Comput. Phys. 77(2), 1988. Interpolant: D. I. Ketcheson, L. Lóczy, A. Jangabylova & A. Kusmanov, Dense output for "
    "strong stability preserving Runge-Kutta methods, J. Sci. Comput. 71, 2017.",
)
