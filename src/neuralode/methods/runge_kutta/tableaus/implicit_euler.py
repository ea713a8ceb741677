"""The implicit Euler method: L-stable, of order 1; the interpolant is the straight line."""

from neuralode.methods.runge_kutta.tableau import Tableau

IMPLICIT_EULER = Tableau(
    name="implicit_euler",
    order=1,
    c=(1,),
    a=((1,),),
    b=(1,),
    interpolant=((1,),),
    interpolant_order=1,
    source="C. F. Curtiss & J. O. Hirschfelder, Integration of stiff equations, Proc. Natl. Acad. Sci. 38(3), 1952.",
)
