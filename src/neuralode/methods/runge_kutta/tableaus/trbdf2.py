"""TR-BDF2, a trapezoidal step followed by a BDF2 step: L-stable, stiffly accurate."""

from neuralode.methods.runge_kutta.tableau import Tableau

_ROOT = 2**0.5
_GAMMA = 2 - _ROOT  # the end of the trapezoidal step; both implicit stages then have γ/2 on the diagonal

TRBDF2 = Tableau(
    name="trbdf2",
    order=2,
    c=(0, _GAMMA, 1),
    a=((), (_GAMMA / 2, _GAMMA / 2), (_ROOT / 4, _ROOT / 4, _GAMMA / 2)),
    b=(_ROOT / 4, _ROOT / 4, _GAMMA / 2),
    # Bounded for every stiffness: b₁(θ) = b₂(θ) makes the terms of size hλ cancel. The cubic with the slopes at both
    # ends would overshoot by 0.15 hλ times the distance from the slow solution.
    interpolant=((_ROOT / 2, -_ROOT / 4), (_ROOT / 2, -_ROOT / 4), (1 - _ROOT, _ROOT / 2)),
    interpolant_order=2,
    source="M. E. Hosea & L. F. Shampine, Analysis and implementation of TR-BDF2, Appl. Numer. Math. 20(1-2), 1996. "
    "Interpolant: ours, the one quadratic of order 2 that stays bounded as hλ goes to -∞.",
)
