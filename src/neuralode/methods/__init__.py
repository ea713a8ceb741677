"""What a step is: the methods by name."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from neuralode.methods.explicit import ExplicitRungeKutta
from neuralode.methods.tableau import Tableau
from neuralode.methods.tableaus.bosh3 import BOSH3
from neuralode.methods.tableaus.dopri5 import DOPRI5
from neuralode.methods.tableaus.euler import EULER
from neuralode.methods.tableaus.heun2 import HEUN2
from neuralode.methods.tableaus.midpoint import MIDPOINT
from neuralode.methods.tableaus.rk4 import RK4
from neuralode.methods.tableaus.tsit5 import TSIT5
from neuralode.registry import pick

Method = ExplicitRungeKutta

_METHODS: dict[str, Method] = {
    tableau.name: ExplicitRungeKutta(tableau) for tableau in (EULER, MIDPOINT, HEUN2, RK4, BOSH3, DOPRI5, TSIT5)
}


def methods() -> Mapping[str, Method]:
    """All methods by name, to read.

    Examples
    --------
    >>> [name for name, method in methods().items() if method.adaptive]
    ['bosh3', 'dopri5', 'tsit5']
    """
    return MappingProxyType(_METHODS)


def find_method(method: str | Method | Tableau) -> Method:
    """The method that a name, a tableau or a method stands for."""
    if isinstance(method, Tableau):
        return ExplicitRungeKutta(method)
    return pick("method", method, _METHODS, ExplicitRungeKutta)
