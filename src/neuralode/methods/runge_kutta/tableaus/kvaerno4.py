"""Kværnø's 4(3) pair: L-stable, stiffly accurate, 4 implicit stages after an explicit one."""

from neuralode.methods.runge_kutta.tableau import Tableau

KVAERNO4 = Tableau(
    name="kvaerno4",
    order=4,
    # γ is the root of 24γ⁴ - 96γ³ + 72γ² - 16γ + 1 to full precision: with the 10 published digits R(∞) is -7e-11.
    c=(0, 1.1456321249642698, 0.5971049876523115, 1, 1),
    a=(
        (),
        (0.5728160624821349, 0.5728160624821349),
        (0.16723546202721076, -0.14294653685703412, 0.5728160624821349),
        (0.2626032902526958, -0.3119043274205632, 0.4764849746857325, 0.5728160624821349),
        (0.197216548312835, 0.17684378390637218, 0.8154421813508385, -0.7623185760521805, 0.5728160624821349),
    ),
    b=(0.197216548312835, 0.17684378390637218, 0.8154421813508385, -0.7623185760521805, 0.5728160624821349),
    # the embedded weights are the second last row of a
    b_error=(-0.06538674193986083, 0.48874811132693535, 0.338957206665106, -1.3351346385343152, 0.5728160624821349),
    interpolant=(
        (0.9680002028398513, -1.3443507607411977, 0.5735671062141814),
        (0.2391897800819067, 0.052151791555303056, -0.1144977877308376),
        (0.16588319799188114, 2.1145601480687533, -1.465001164709796),
        (1.1565016113312416, -4.599958950819024, 2.6811387634356025),
        (-1.529574792244881, 3.777597771936166, -1.6752069172091506),
    ),
    interpolant_order=3,
    source="A. Kværnø, Singly diagonally implicit Runge-Kutta methods with an explicit first stage, BIT 44(3), 2004. "
    "Interpolant: ours, solved from the order conditions; it stays bounded as hλ goes to -∞ and arrives with the last "
    "slope.",
)
