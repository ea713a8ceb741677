"""Cash and Karp's 5(4) pair, with an interpolant of order 4 for one further evaluation.

The authors give embedded solutions of orders 1 to 4; this uses the one of order 4.
"""

from neuralode.methods.runge_kutta.tableau import Tableau

_B = (37 / 378, 0, 250 / 621, 125 / 594, 0, 512 / 1771)

CASH_KARP = Tableau(
    name="cash_karp",
    order=5,
    c=(0, 1 / 5, 3 / 10, 3 / 5, 1, 7 / 8),
    a=(
        (),
        (1 / 5,),
        (3 / 40, 9 / 40),
        (3 / 10, -9 / 10, 6 / 5),
        (-11 / 54, 5 / 2, -70 / 27, 35 / 27),
        (1631 / 55296, 175 / 512, 575 / 13824, 44275 / 110592, 253 / 4096),
    ),
    b=_B,
    b_error=(-277 / 64512, 0, 6925 / 370944, -6925 / 202752, -277 / 14336, 277 / 7084),
    # Order 4 needs f(t1, y1), evaluated for dense output only.
    dense_c=(1,),
    dense_a=(_B,),
    interpolant=(
        (1, -87443 / 32256, 136121 / 48384, -1543 / 1536),
        (0, 0, 0, 0),
        (0, 650075 / 185472, -1502225 / 278208, 6175 / 2688),
        (0, 21925 / 101376, 62225 / 152064, -425 / 1024),
        (0, 877 / 7168, -877 / 3584, 877 / 7168),
        (0, -9325 / 3542, 11373 / 1771, -7 / 2),
        (0, 3 / 2, -4, 5 / 2),
    ),
    interpolant_order=4,
    source="J. R. Cash & A. H. Karp, A variable order Runge-Kutta method for initial value problems with rapidly "
    "varying right-hand sides, ACM Trans. Math. Softw. 16(3), 1990. Interpolant: ours, solved from the order "
    "conditions; of the quartics that leave along the first stage and arrive along f(t1, y1) it has nearly the "
    "smallest error of order 5.",
)
