"""Alexander's method of two equal implicit stages: L-stable, stiffly accurate."""

from neuralode.methods.runge_kutta.tableau import Tableau

_GAMMA = 1 - 2**-0.5  # the smaller root of γ² - 2γ + 1/2: order 2, and R(∞) = 0

SDIRK2 = Tableau(
    name="sdirk2",
    order=2,
    c=(_GAMMA, 1),
    a=((_GAMMA,), (1 - _GAMMA, _GAMMA)),
    b=(1 - _GAMMA, _GAMMA),
    # b₂(θ) = (θ²/2 - γθ) / (1 - γ), b₁(θ) = θ - b₂(θ), with 1 - γ = 1/√2
    interpolant=((2**0.5, -(2**-0.5)), (1 - 2**0.5, 2**-0.5)),
    interpolant_order=2,
    source="R. Alexander, Diagonally implicit Runge-Kutta methods for stiff O.D.E.'s, SIAM J. Numer. Anal. 14(6), "
    "1977. Interpolant: ours, the one quadratic that satisfies the order conditions.",
)
