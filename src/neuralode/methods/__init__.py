"""Methods: one step of an ODE solver each, registered by name."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import cast

from neuralode.core.registry import check_members, pick
from neuralode.methods.base import Method, OneCallMethod, Step, StepStart
from neuralode.methods.implicit.runge_kutta import ImplicitRungeKutta
from neuralode.methods.multistep.adams import ExplicitAdams, ImplicitAdams
from neuralode.methods.one_step import OneStepMethod
from neuralode.methods.runge_kutta.explicit import ExplicitRungeKutta
from neuralode.methods.runge_kutta.low_storage import LowStorageRungeKutta
from neuralode.methods.runge_kutta.tableau import Tableau
from neuralode.methods.runge_kutta.tableaus import EXPLICIT, IMPLICIT, LOW_STORAGE
from neuralode.methods.scipy_ivp import Scipy
from neuralode.methods.symplectic.coefficients import SYMPLECTIC
from neuralode.methods.symplectic.kick_drift import Partitioned

__all__ = [
    "ExplicitAdams",
    "ExplicitRungeKutta",
    "ImplicitAdams",
    "ImplicitRungeKutta",
    "Method",
    "OneCallMethod",
    "OneStepMethod",
    "Partitioned",
    "Scipy",
    "Step",
    "StepStart",
    "Tableau",
    "find_method",
    "methods",
]

_METHODS: dict[str, Method] = {
    method.name: method
    for method in (
        *map(ExplicitRungeKutta, EXPLICIT),
        *map(ImplicitRungeKutta, IMPLICIT),
        *map(LowStorageRungeKutta, LOW_STORAGE),
        ExplicitAdams(),
        ImplicitAdams(),
        *SYMPLECTIC,
    )
}


def methods() -> Mapping[str, Method]:
    """Return all registered methods by name, read-only.

    Examples
    --------
    >>> import neuralode as node
    >>> [name for name, method in node.methods().items() if method.adaptive and not method.implicit]
    ['adaptive_heun', 'fehlberg2', 'bosh3', 'dopri5', 'tsit5', 'dopri8', 'ssprk43', 'fehlberg45', 'cash_karp', 'dop853',
     'vern6', 'vern7', 'vern8', 'vern9']
    >>> [name for name, method in node.methods().items() if method.adaptive and method.implicit]
    ['kvaerno3', 'kvaerno4', 'kvaerno5']
    """
    return MappingProxyType(_METHODS)


def find_method(method: str | Method | OneCallMethod | Tableau) -> Method:
    """Return the method of a name or tableau, or the method itself.

    Parameters
    ----------
    method : str, Method, OneCallMethod or Tableau
        A registered name, an object with the members of a method, or the coefficients of a Runge–Kutta method.

    Raises
    ------
    TypeError
        For an object that lacks members of `Method` (of `OneCallMethod` if its ``one_call`` is True); the message names
        them.
    ValueError
        For an unknown name.
    """
    if isinstance(method, Tableau):
        return ExplicitRungeKutta(method) if method.explicit else ImplicitRungeKutta(method)
    if not isinstance(method, str) and getattr(method, "one_call", False):
        check_members("method", method, OneCallMethod)
        return cast(Method, method)  # engines distinguish them by `one_call`
    return pick("method", method, _METHODS, kind=Method)
