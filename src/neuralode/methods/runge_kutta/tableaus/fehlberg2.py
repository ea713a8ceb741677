"""Fehlberg's pair of orders 1 and 2; the solution here is that of order 2."""

from neuralode.methods.runge_kutta.tableau import Tableau

FEHLBERG2 = Tableau(
    name="fehlberg2",
    order=2,
    c=(0, 1 / 2, 1),
    a=((), (1 / 2,), (1 / 256, 255 / 256)),
    b=(1 / 512, 255 / 256, 1 / 512),
    # The last stage is evaluated at the solution of order 1: it is not the first stage of the next step.
    b_error=(-1 / 512, 0, 1 / 512),
    interpolant=((1, -511 / 512), (0, 255 / 256), (0, 1 / 512)),
    interpolant_order=2,
    source="E. Fehlberg, Low-order classical Runge-Kutta formulas with stepsize control, NASA TR R-315, 1969. "
    "Interpolant: ours, the quadratic of order 2 that leaves along the first stage.",
)
