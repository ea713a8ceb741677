"""Carpenter and Kennedy's method of order 4 in five stages and two registers, with cubic Hermite dense output."""

from fractions import Fraction

from neuralode.methods.runge_kutta.low_storage import butcher_coefficients
from neuralode.methods.runge_kutta.tableau import Tableau

_DECAY = (
    Fraction(0),
    Fraction(-567301805773, 1357537059087),
    Fraction(-2404267990393, 2016746695238),
    Fraction(-3550918686646, 2091501179385),
    Fraction(-1275806237668, 842570457699),
)
_SHARE = (
    Fraction(1432997174477, 9575080441755),
    Fraction(5161836677717, 13612068292357),
    Fraction(1720146321549, 2090206949498),
    Fraction(3134564353537, 4481467310338),
    Fraction(2277821191437, 14882151754819),
)
_C, _A, _B = butcher_coefficients(_DECAY, _SHARE)

CARPENTER_KENNEDY54 = Tableau(
    name="carpenter_kennedy54",
    order=4,
    c=_C,
    a=_A,
    b=_B,
    # f(t1, y1), evaluated for dense output only
    dense_c=(1,),
    dense_a=(_B,),
    # y + (3 θ² - 2 θ³) (y1 - y) + (θ - 2 θ² + θ³) h f(t, y) + (θ³ - θ²) h f(t1, y1)
    interpolant=((1, 3 * _B[0] - 2, 1 - 2 * _B[0]), *((0, 3 * b, -2 * b) for b in _B[1:]), (0, -1, 1)),
    interpolant_order=3,
    source="M. H. Carpenter & C. A. Kennedy, Fourth-order 2N-storage Runge-Kutta schemes, NASA TM 109112, 1994, "
    "solution 3. Interpolant: the cubic Hermite polynomial.",
)
