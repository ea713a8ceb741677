"""The explicit midpoint rule, with its continuous extension of order 2."""

from neuralode.methods.runge_kutta.tableau import Tableau

MIDPOINT = Tableau(
    name="midpoint",
    order=2,
    c=(0, 1 / 2),
    a=((), (1 / 2,)),
    b=(0, 1),
    interpolant=((1, -1), (0, 1)),
    interpolant_order=2,
    source="C. Runge, Ueber die numerische Auflösung von Differentialgleichungen, Math. Ann. 46, 1895. The "
    "interpolant is the one quadratic that satisfies the order conditions (Hairer, Nørsett & Wanner I, II.6).",
)
