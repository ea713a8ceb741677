"""Kværnø's 3(2) pair: L-stable, stiffly accurate, 3 implicit stages after an explicit one."""

from neuralode.methods.runge_kutta.tableau import Tableau

KVAERNO3 = Tableau(
    name="kvaerno3",
    order=3,
    # γ is the root of 6γ³ - 18γ² + 9γ - 1 to full precision: with the 11 published digits R(∞) is 6e-11.
    c=(0, 0.871733043016918, 1, 1),
    a=(
        (),
        (0.435866521508459, 0.435866521508459),
        (0.49056338842178054, 0.07357009006976042, 0.435866521508459),
        (0.30880996997674653, 1.4905633884217806, -1.2352398799069861, 0.435866521508459),
    ),
    b=(0.30880996997674653, 1.4905633884217806, -1.2352398799069861, 0.435866521508459),
    # the embedded weights are the second last row of a
    b_error=(-0.18175341844503404, 1.4169932983520201, -1.671106401415445, 0.435866521508459),
    interpolant=(
        (1, -1.0735700900697602, 0.3823800600465069),
        (0, 4.47169016526534, -2.9811267768435603),
        (1.0452602553351, -5.796240150391158, 3.5157400151490723),
        (-1.045260255335101, 2.3981200751955787, -0.9169932983520187),
    ),
    interpolant_order=3,
    source="A. Kværnø, Singly diagonally implicit Runge-Kutta methods with an explicit first stage, BIT 44(3), 2004. "
    "Interpolant: ours, the one cubic of order 3 that stays bounded as hλ goes to -∞.",
)
