"""The registered symplectic methods: their coefficients, each with its source."""

from neuralode.methods.symplectic.kick_drift import Partitioned

SEMI_IMPLICIT_EULER = Partitioned(
    name="semi_implicit_euler",
    order=1,
    kicks=(1,),
    drifts=(1,),
    source="R. de Vogelaere, Methods of integration which preserve the contact transformation property of the Hamilton "
    "equations, Report 4, University of Notre Dame, 1956. Also: symplectic Euler.",
)

LEAPFROG = Partitioned(
    name="leapfrog",
    order=2,
    kicks=(1 / 2, 1 / 2),
    drifts=(1, 0),
    source='L. Verlet, Computer "experiments" on classical fluids, Phys. Rev. 159, 1967; in this form (velocity '
    "Verlet, kick-drift-kick) W. C. Swope et al., J. Chem. Phys. 76, 1982.",
)

RUTH3 = Partitioned(
    name="ruth3",
    order=3,
    kicks=(7 / 24, 3 / 4, -1 / 24),
    drifts=(2 / 3, -2 / 3, 1),
    source="R. D. Ruth, A canonical integration technique, IEEE Trans. Nucl. Sci. 30(4), 1983.",
)

_ENDS = 1 / (2 - 2 ** (1 / 3))
_MIDDLE = 1 - 2 * _ENDS  # negative: a step backwards

YOSHIDA4 = Partitioned(
    name="yoshida4",
    order=4,
    kicks=(_ENDS / 2, (_ENDS + _MIDDLE) / 2, (_MIDDLE + _ENDS) / 2, _ENDS / 2),
    drifts=(_ENDS, _MIDDLE, _ENDS, 0),
    source="H. Yoshida, Construction of higher order symplectic integrators, Phys. Lett. A 150, 1990; E. Forest & "
    "R. D. Ruth, Fourth-order symplectic integration, Physica D 43, 1990: three leapfrogs.",
)

_KICKS = (0.0792036964311954608, 0.353172906049773948, -0.0420650803577191948)
_DRIFTS = (0.209515106613361891, -0.143851773179818077)
_LAST = 1 / 2 - sum(_DRIFTS)

BLANES_MOAN4 = Partitioned(
    name="blanes_moan4",
    order=4,
    kicks=(*_KICKS, 1 - 2 * sum(_KICKS), *reversed(_KICKS)),
    drifts=(*_DRIFTS, _LAST, _LAST, *reversed(_DRIFTS), 0),
    source="S. Blanes & P. C. Moan, Practical symplectic partitioned Runge-Kutta and Runge-Kutta-Nyström methods, "
    "J. Comput. Appl. Math. 142, 2002: S6 of order 4.",
)

SYMPLECTIC = (SEMI_IMPLICIT_EULER, LEAPFROG, RUTH3, YOSHIDA4, BLANES_MOAN4)
