"""Euler's method (1768), with linear dense output."""

from neuralode.methods.runge_kutta.tableau import Tableau

EULER = Tableau(
    name="euler",
    order=1,
    c=(0,),
    a=((),),
    b=(1,),
    interpolant=((1,),),
    interpolant_order=1,
    source="L. Euler, Institutionum calculi integralis, vol. 1, 1768.",
)
