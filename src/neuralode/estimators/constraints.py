"""Constraints on the parameters of estimators. As in scikit-learn, `fit` checks them, and the constructor does not."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from numbers import Integral, Real
from typing import Any, ClassVar, Protocol


@dataclass(frozen=True)
class Constraint:
    """A condition on the value of a parameter.

    Parameters
    ----------
    description : str
        The allowed values, as error messages name them.
    accepts : callable
        Return whether a value is allowed.

    Examples
    --------
    >>> integer(at_least=1).check("width", 0)
    Traceback (most recent call last):
    ValueError: width=0; wanted a whole number of at least 1.
    """

    description: str
    accepts: Callable[[Any], bool]

    def check(self, name: str, value: object) -> None:
        """Raise `ValueError` unless ``value`` is allowed."""
        if not self.accepts(value):
            raise ValueError(f"{name}={value!r}; wanted {self.description}.")

    def or_none(self) -> Constraint:
        """Return the constraint that also allows None."""
        return Constraint(self.description, lambda value: value is None or self.accepts(value))


class HasConstraints(Protocol):
    """An estimator that declares constraints on its parameters."""

    _constraints: ClassVar[Mapping[str, Constraint]]


def check_parameters(estimator: HasConstraints) -> None:
    """Raise `ValueError` for the first parameter of ``estimator`` that violates its constraint.

    Examples
    --------
    >>> from neuralode.estimators import LatentODEForecaster
    >>> check_parameters(LatentODEForecaster(window=1))
    Traceback (most recent call last):
    ...
    ValueError: window=1; wanted a whole number of at least 2.
    """
    for name, constraint in estimator._constraints.items():
        constraint.check(name, getattr(estimator, name))


def integer(at_least: int) -> Constraint:
    """Allow whole numbers of at least ``at_least``."""
    return _number(Integral, lambda x: x >= at_least, f"a whole number of at least {at_least}")


def one_of(names: Iterable[str]) -> Constraint:
    """Allow one of several names."""
    names = tuple(names)
    return Constraint(f"one of {', '.join(map(repr, names))}", lambda value: value in names)


def _number(kind: type, accepts: Callable[[Any], bool], description: str) -> Constraint:
    """Allow numbers of ``kind``; True and False are not numbers here."""
    return Constraint(description, lambda x: isinstance(x, kind) and not isinstance(x, bool) and accepts(x))


COUNT = integer(at_least=1)
POSITIVE = _number(Real, lambda x: 0 < x < math.inf, "a number above 0")
NON_NEGATIVE = _number(Real, lambda x: 0 <= x < math.inf, "a number not below 0")
FRACTION = _number(Real, lambda x: 0 <= x < 1, "at least 0 and less than 1")
