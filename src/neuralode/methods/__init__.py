"""What a step is: the methods by name."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import TypeAlias, get_args

from neuralode.methods.compositions import COMPOSITIONS
from neuralode.methods.explicit import ExplicitRungeKutta
from neuralode.methods.implicit import ImplicitRungeKutta
from neuralode.methods.low_storage import LowStorageRungeKutta
from neuralode.methods.multistep import ExplicitAdams, ImplicitAdams
from neuralode.methods.partitioned import Partitioned
from neuralode.methods.scipy import Scipy
from neuralode.methods.tableau import Tableau
from neuralode.methods.tableaus.adaptive_heun import ADAPTIVE_HEUN
from neuralode.methods.tableaus.bosh3 import BOSH3
from neuralode.methods.tableaus.carpenter_kennedy54 import CARPENTER_KENNEDY54
from neuralode.methods.tableaus.cash_karp import CASH_KARP
from neuralode.methods.tableaus.dop853 import DOP853
from neuralode.methods.tableaus.dopri5 import DOPRI5
from neuralode.methods.tableaus.dopri8 import DOPRI8
from neuralode.methods.tableaus.euler import EULER
from neuralode.methods.tableaus.fehlberg2 import FEHLBERG2
from neuralode.methods.tableaus.fehlberg45 import FEHLBERG45
from neuralode.methods.tableaus.gl4 import GL4
from neuralode.methods.tableaus.gl6 import GL6
from neuralode.methods.tableaus.heun2 import HEUN2
from neuralode.methods.tableaus.heun3 import HEUN3
from neuralode.methods.tableaus.implicit_euler import IMPLICIT_EULER
from neuralode.methods.tableaus.implicit_midpoint import IMPLICIT_MIDPOINT
from neuralode.methods.tableaus.kvaerno3 import KVAERNO3
from neuralode.methods.tableaus.kvaerno4 import KVAERNO4
from neuralode.methods.tableaus.kvaerno5 import KVAERNO5
from neuralode.methods.tableaus.midpoint import MIDPOINT
from neuralode.methods.tableaus.radauiia3 import RADAU_IIA3
from neuralode.methods.tableaus.radauiia5 import RADAU_IIA5
from neuralode.methods.tableaus.ralston import RALSTON
from neuralode.methods.tableaus.rk4 import RK4
from neuralode.methods.tableaus.rk4_38 import RK4_38
from neuralode.methods.tableaus.sdirk2 import SDIRK2
from neuralode.methods.tableaus.ssprk33 import SSPRK33
from neuralode.methods.tableaus.ssprk43 import SSPRK43
from neuralode.methods.tableaus.trapezoid import TRAPEZOID
from neuralode.methods.tableaus.trbdf2 import TRBDF2
from neuralode.methods.tableaus.tsit5 import TSIT5
from neuralode.methods.tableaus.vern6 import VERN6
from neuralode.methods.tableaus.vern7 import VERN7
from neuralode.methods.tableaus.vern8 import VERN8
from neuralode.methods.tableaus.vern9 import VERN9
from neuralode.registry import pick

Method: TypeAlias = ExplicitRungeKutta | ImplicitRungeKutta | ExplicitAdams | ImplicitAdams | Partitioned | Scipy

_EXPLICIT = (
    EULER, MIDPOINT, HEUN2, HEUN3, RK4, RK4_38, ADAPTIVE_HEUN, FEHLBERG2, BOSH3, DOPRI5, TSIT5, DOPRI8,
    RALSTON, SSPRK33, SSPRK43, FEHLBERG45, CASH_KARP, DOP853,
    VERN6, VERN7, VERN8, VERN9,
)  # fmt: skip
_IMPLICIT = (
    IMPLICIT_EULER, IMPLICIT_MIDPOINT, TRAPEZOID, SDIRK2, TRBDF2, RADAU_IIA3, RADAU_IIA5, GL4, GL6,
    KVAERNO3, KVAERNO4, KVAERNO5,
)  # fmt: skip


def of_tableau(tableau: Tableau) -> ExplicitRungeKutta | ImplicitRungeKutta:
    """The method that takes the steps of a tableau."""
    return ExplicitRungeKutta(tableau) if tableau.explicit else ImplicitRungeKutta(tableau)


_METHODS: dict[str, Method] = {
    **{tableau.name: of_tableau(tableau) for tableau in (*_EXPLICIT, *_IMPLICIT)},
    **{
        method.name: method
        for method in (LowStorageRungeKutta(CARPENTER_KENNEDY54), ExplicitAdams(), ImplicitAdams(), *COMPOSITIONS)
    },
}


def methods() -> Mapping[str, Method]:
    """All methods by name, to read.

    Examples
    --------
    >>> [name for name, method in methods().items() if method.adaptive and not method.implicit]
    ['adaptive_heun', 'fehlberg2', 'bosh3', 'dopri5', 'tsit5', 'dopri8', 'ssprk43', 'fehlberg45', 'cash_karp', 'dop853',
     'vern6', 'vern7', 'vern8', 'vern9']
    >>> [name for name, method in methods().items() if method.adaptive and method.implicit]
    ['kvaerno3', 'kvaerno4', 'kvaerno5']
    """
    return MappingProxyType(_METHODS)


def find_method(method: str | Method | Tableau) -> Method:
    """The method that a name, a tableau or a method stands for."""
    if isinstance(method, Tableau):
        return of_tableau(method)
    return pick("method", method, _METHODS, get_args(Method))
