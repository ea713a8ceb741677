"""The implicit midpoint rule: symplectic, A-stable; the interpolant is its collocation polynomial, a straight line."""

from neuralode.methods.runge_kutta.tableau import Tableau

IMPLICIT_MIDPOINT = Tableau(
    name="implicit_midpoint",
    order=2,
    c=(1 / 2,),
    a=((1 / 2,),),
    b=(1,),
    interpolant=((1,),),
    interpolant_order=1,
    source="J. C. Butcher, Implicit Runge-Kutta processes, Math. Comp. 18(85), 1964.",
)
