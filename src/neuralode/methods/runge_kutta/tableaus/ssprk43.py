"""Kraaijevanger's 3(2) pair of four stages, strong stability preserving.

If a norm does not grow along Euler steps of size h, it does not grow along steps of size 2 h or within them.
"""

from neuralode.methods.runge_kutta.tableau import Tableau

SSPRK43 = Tableau(
    name="ssprk43",
    order=3,
    c=(0, 1 / 2, 1, 1 / 2),
    a=((), (1 / 2,), (1 / 2, 1 / 2), (1 / 6, 1 / 6, 1 / 6)),
    b=(1 / 6, 1 / 6, 1 / 6, 1 / 2),
    b_error=(-1 / 12, -1 / 12, -1 / 12, 1 / 4),
    # y(θ) = (1 - θ²) (y + h θ / (1 + θ) k₁) + θ² y₁: a convex combination of an Euler step and the new state
    interpolant=((1, -5 / 6), (0, 1 / 6), (0, 1 / 6), (0, 1 / 2)),
    interpolant_order=2,
    source="J. F. B. M. Kraaijevanger, Contractivity of Runge-Kutta methods, BIT 31(3), 1991. Embedded weights: S. "
    "Conde, I. Fekete & J. N. Shadid, Embedded error estimation and adaptive step-size control for optimal explicit "
    "strong stability preserving Runge-Kutta methods, arXiv 1806.08693, 2018. Interpolant: D. I. Ketcheson, L. Lóczy, "
    "A. Jangabylova & A. Kusmanov, Dense output for strong stability preserving Runge-Kutta methods, J. Sci. Comput. "
    "71, 2017.",
)
