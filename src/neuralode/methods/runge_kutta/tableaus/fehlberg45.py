"""Fehlberg's pair of orders 4 and 5; the solution here is that of order 5.

Fehlberg proposed the solution of order 4. Codes since Shampine and Watts' RKF45, such as GSL's, continue with that of
order 5 and control the error of that of order 4.
"""

from neuralode.methods.runge_kutta.tableau import Tableau

_B = (16 / 135, 0, 6656 / 12825, 28561 / 56430, -9 / 50, 2 / 55)

FEHLBERG45 = Tableau(
    name="fehlberg45",
    order=5,
    c=(0, 1 / 4, 3 / 8, 12 / 13, 1, 1 / 2),
    a=(
        (),
        (1 / 4,),
        (3 / 32, 9 / 32),
        (1932 / 2197, -7200 / 2197, 7296 / 2197),
        (439 / 216, -8, 3680 / 513, -845 / 4104),
        (-8 / 27, 2, -3544 / 2565, 1859 / 4104, -11 / 40),
    ),
    b=_B,
    b_error=(1 / 360, 0, -128 / 4275, -2197 / 75240, 1 / 50, 2 / 55),
    # Order 4 needs f(t1, y1), evaluated for dense output only.
    dense_c=(1,),
    dense_a=(_B,),
    interpolant=(
        (1, -7201 / 2880, 10691 / 4320, -493 / 576),
        (0, 0, 0, 0),
        (0, 21136 / 4275, -100192 / 12825, 2896 / 855),
        (0, -2106923 / 601920, 8148673 / 902880, -54925 / 10944),
        (0, 479 / 400, -623 / 200, 139 / 80),
        (0, -361 / 220, 377 / 110, -7 / 4),
        (0, 3 / 2, -4, 5 / 2),
    ),
    interpolant_order=4,
    source="E. Fehlberg, Low-order classical Runge-Kutta formulas with stepsize control, NASA TR R-315, 1969, table "
    "III. Interpolant: ours, solved from the order conditions; of the quartics that leave along the first stage and "
    "arrive along f(t1, y1) it has nearly the smallest error of order 5.",
)
