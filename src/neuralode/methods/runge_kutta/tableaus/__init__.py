"""The registered Runge–Kutta methods: their coefficients, one file each, with the source.

To add one, write a file with its `Tableau` and list it below. The tableau checks its own order; the documentation table
in docs/methods.md and the contract tests then cover it by name.
"""

from neuralode.methods.runge_kutta.tableaus.adaptive_heun import ADAPTIVE_HEUN
from neuralode.methods.runge_kutta.tableaus.bosh3 import BOSH3
from neuralode.methods.runge_kutta.tableaus.carpenter_kennedy54 import CARPENTER_KENNEDY54
from neuralode.methods.runge_kutta.tableaus.cash_karp import CASH_KARP
from neuralode.methods.runge_kutta.tableaus.dop853 import DOP853
from neuralode.methods.runge_kutta.tableaus.dopri5 import DOPRI5
from neuralode.methods.runge_kutta.tableaus.dopri8 import DOPRI8
from neuralode.methods.runge_kutta.tableaus.euler import EULER
from neuralode.methods.runge_kutta.tableaus.fehlberg2 import FEHLBERG2
from neuralode.methods.runge_kutta.tableaus.fehlberg45 import FEHLBERG45
from neuralode.methods.runge_kutta.tableaus.gl4 import GL4
from neuralode.methods.runge_kutta.tableaus.gl6 import GL6
from neuralode.methods.runge_kutta.tableaus.heun2 import HEUN2
from neuralode.methods.runge_kutta.tableaus.heun3 import HEUN3
from neuralode.methods.runge_kutta.tableaus.implicit_euler import IMPLICIT_EULER
from neuralode.methods.runge_kutta.tableaus.implicit_midpoint import IMPLICIT_MIDPOINT
from neuralode.methods.runge_kutta.tableaus.kvaerno3 import KVAERNO3
from neuralode.methods.runge_kutta.tableaus.kvaerno4 import KVAERNO4
from neuralode.methods.runge_kutta.tableaus.kvaerno5 import KVAERNO5
from neuralode.methods.runge_kutta.tableaus.midpoint import MIDPOINT
from neuralode.methods.runge_kutta.tableaus.radauiia3 import RADAU_IIA3
from neuralode.methods.runge_kutta.tableaus.radauiia5 import RADAU_IIA5
from neuralode.methods.runge_kutta.tableaus.ralston import RALSTON
from neuralode.methods.runge_kutta.tableaus.rk4 import RK4
from neuralode.methods.runge_kutta.tableaus.rk4_38 import RK4_38
from neuralode.methods.runge_kutta.tableaus.sdirk2 import SDIRK2
from neuralode.methods.runge_kutta.tableaus.ssprk33 import SSPRK33
from neuralode.methods.runge_kutta.tableaus.ssprk43 import SSPRK43
from neuralode.methods.runge_kutta.tableaus.trapezoid import TRAPEZOID
from neuralode.methods.runge_kutta.tableaus.trbdf2 import TRBDF2
from neuralode.methods.runge_kutta.tableaus.tsit5 import TSIT5
from neuralode.methods.runge_kutta.tableaus.vern6 import VERN6
from neuralode.methods.runge_kutta.tableaus.vern7 import VERN7
from neuralode.methods.runge_kutta.tableaus.vern8 import VERN8
from neuralode.methods.runge_kutta.tableaus.vern9 import VERN9

EXPLICIT = (
    EULER, MIDPOINT, HEUN2, HEUN3, RK4, RK4_38, ADAPTIVE_HEUN, FEHLBERG2, BOSH3, DOPRI5, TSIT5, DOPRI8,
    RALSTON, SSPRK33, SSPRK43, FEHLBERG45, CASH_KARP, DOP853,
    VERN6, VERN7, VERN8, VERN9,
)  # fmt: skip
LOW_STORAGE = (CARPENTER_KENNEDY54,)
IMPLICIT = (
    IMPLICIT_EULER, IMPLICIT_MIDPOINT, TRAPEZOID, SDIRK2, TRBDF2, RADAU_IIA3, RADAU_IIA5, GL4, GL6,
    KVAERNO3, KVAERNO4, KVAERNO5,
)  # fmt: skip
