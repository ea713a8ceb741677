"""Parameters of estimators that are numbers: the first that cannot be is named in a sentence."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from numbers import Integral, Real
from typing import Any

Asked = Mapping[str, Any]


def check_whole(asked: Asked, *names: str, least: int = 1) -> None:
    """Raise `ValueError` for the first that is no whole number from ``least`` on.

    Examples
    --------
    >>> check_whole({"width": 0}, "width")
    Traceback (most recent call last):
    ValueError: width=0; wanted a whole number of at least 1.
    """
    _check(asked, names, Integral, lambda x: x >= least, f"a whole number of at least {least}")


def check_above_zero(asked: Asked, *names: str) -> None:
    """The same for numbers above 0."""
    _check(asked, names, Real, lambda x: 0 < x < math.inf, "a number above 0")


def check_not_below_zero(asked: Asked, *names: str) -> None:
    """The same for numbers from 0 on."""
    _check(asked, names, Real, lambda x: 0 <= x < math.inf, "a number not below 0")


def check_share(asked: Asked, *names: str) -> None:
    """The same for what is a part of something that must leave some."""
    _check(asked, names, Real, lambda x: 0 <= x < 1, "at least 0 and less than 1")


def given(asked: Asked, *names: str) -> list[str]:
    """Those of the names that are not None."""
    return [name for name in names if asked[name] is not None]


def _check(asked: Asked, names: tuple[str, ...], kind: Any, fits: Callable[[Any], bool], wanted: str) -> None:
    for name in names:
        value = asked[name]
        if isinstance(value, bool) or not isinstance(value, kind) or not fits(value):
            raise ValueError(f"{name}={value!r}; wanted {wanted}.")
