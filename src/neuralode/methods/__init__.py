"""What a step is: the methods by name."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import TypeAlias, get_args

from neuralode.methods.explicit import ExplicitRungeKutta
from neuralode.methods.multistep import ExplicitAdams, ImplicitAdams
from neuralode.methods.tableau import Tableau
from neuralode.methods.tableaus.bosh3 import BOSH3
from neuralode.methods.tableaus.dopri5 import DOPRI5
from neuralode.methods.tableaus.euler import EULER
from neuralode.methods.tableaus.heun2 import HEUN2
from neuralode.methods.tableaus.heun3 import HEUN3
from neuralode.methods.tableaus.midpoint import MIDPOINT
from neuralode.methods.tableaus.rk4 import RK4
from neuralode.methods.tableaus.rk4_38 import RK4_38
from neuralode.methods.tableaus.tsit5 import TSIT5
from neuralode.registry import pick

Method: TypeAlias = ExplicitRungeKutta | ExplicitAdams | ImplicitAdams

_EXPLICIT = (EULER, MIDPOINT, HEUN2, HEUN3, RK4, RK4_38, BOSH3, DOPRI5, TSIT5)
_METHODS: dict[str, Method] = {
    **{tableau.name: ExplicitRungeKutta(tableau) for tableau in _EXPLICIT},
    **{method.name: method for method in (ExplicitAdams(), ImplicitAdams())},
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
    return pick("method", method, _METHODS, get_args(Method))
