"""The implicit trapezoidal rule: A-stable; the interpolant is the quadratic with the slopes at both ends."""

from neuralode.methods.runge_kutta.tableau import Tableau

TRAPEZOID = Tableau(
    name="trapezoid",
    order=2,
    c=(0, 1),
    a=((), (1 / 2, 1 / 2)),
    b=(1 / 2, 1 / 2),
    interpolant=((1, -1 / 2), (0, 1 / 2)),
    interpolant_order=2,
    source="J. Crank & P. Nicolson, A practical method for numerical evaluation of solutions of partial differential "
    "equations of the heat-conduction type, Proc. Camb. Phil. Soc. 43(1), 1947.",
)
