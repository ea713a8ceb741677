"""From a name that someone typed to the object it stands for, or to the nearest name there is."""

from __future__ import annotations

from collections.abc import Mapping
from difflib import get_close_matches
from typing import Any, TypeVar

T = TypeVar("T")


def pick(argument: str, value: Any, table: Mapping[str, T], kind: type | tuple[type, ...]) -> T:
    """Return ``value`` if it is already a ``kind``, or what ``table`` holds under that name.

    Examples
    --------
    >>> pick("colour", "red", {"red": 1.0}, float)
    1.0
    >>> pick("colour", "rad", {"red": 1.0}, float)
    Traceback (most recent call last):
    ...
    ValueError: colour='rad' is unknown; did you mean 'red'? Known: 'red'.
    """
    if isinstance(value, kind):
        return value
    if not isinstance(value, str):
        kinds = [k.__name__ for k in (kind if isinstance(kind, tuple) else (kind,))]
        raise TypeError(f"{argument} must be {' or a '.join(['a name', *kinds])}, not {type(value).__name__}.")
    if value in table:
        return table[value]
    near = get_close_matches(value, table, n=1, cutoff=0.4)
    hint = f"; did you mean {near[0]!r}?" if near else ";"
    known = ", ".join(repr(name) for name in table)
    raise ValueError(f"{argument}={value!r} is unknown{hint} Known: {known}.")
