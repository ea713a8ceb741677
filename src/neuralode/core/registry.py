"""Look up objects by name, and check objects against a Protocol."""

from __future__ import annotations

from collections.abc import Mapping
from difflib import get_close_matches
from typing import TypeVar, cast

T = TypeVar("T")


def members(protocol: type) -> list[str]:
    """Return the public members that a Protocol declares, in the order of its definition.

    Examples
    --------
    >>> from typing import Protocol
    >>> class Named(Protocol):
    ...     name: str
    ...     def greet(self) -> str: ...
    >>> members(Named)
    ['name', 'greet']
    """
    names: dict[str, None] = {}
    for base in reversed(protocol.__mro__):
        if getattr(base, "_is_protocol", False) and base.__module__ != "typing":
            names |= dict.fromkeys((*vars(base).get("__annotations__", {}), *vars(base)))
    return [name for name in names if not name.startswith("_")]


def pick(argument: str, value: object, table: Mapping[str, T], kind: type | tuple[type, ...]) -> T:
    """Return ``value`` if it is a ``kind``, or the entry of ``table`` with that name.

    Parameters
    ----------
    argument : str
        The name of the argument, for messages.
    value : object
        A name, or an object of the kind.
    table : mapping
        Objects by name.
    kind : type or tuple of type
        Accepted types; a Protocol accepts every object with its members.

    Raises
    ------
    TypeError
        For an object that is no ``kind``; of a Protocol the message names the missing members.
    ValueError
        For an unknown name, with the nearest known one.

    Examples
    --------
    >>> pick("colour", "red", {"red": 1.0}, float)
    1.0
    >>> pick("colour", "rad", {"red": 1.0}, float)
    Traceback (most recent call last):
    ...
    ValueError: colour='rad' is unknown; did you mean 'red'? Known: 'red'.
    """
    if not isinstance(value, str):
        if isinstance(kind, type) and getattr(kind, "_is_protocol", False):
            check_members(argument, value, kind)
            return cast(T, value)
        if isinstance(value, kind):
            return cast(T, value)
        kinds = [k.__name__ for k in (kind if isinstance(kind, tuple) else (kind,))]
        raise TypeError(f"{argument} must be {' or a '.join(['a name', *kinds])}, not {type(value).__name__}.")
    if value in table:
        return table[value]
    near = get_close_matches(value, table, n=1, cutoff=0.4)
    hint = f"; did you mean {near[0]!r}?" if near else ";"
    known = ", ".join(repr(name) for name in table)
    raise ValueError(f"{argument}={value!r} is unknown{hint} Known: {known}.")


def check_members(argument: str, value: object, protocol: type, *, named: bool = True) -> None:
    """Refuse an object that lacks a member of a Protocol, and a class where an instance is wanted.

    ``named`` says whether the argument also accepts names, for the message.
    """
    came = f"the class {value.__name__}" if isinstance(value, type) else f"a {type(value).__name__}"
    missing = [name for name in members(protocol) if not hasattr(value, name)]
    if isinstance(value, type) and not missing:
        raise TypeError(f"{argument} is {came}; wanted an instance, {value.__name__}(...).")
    if missing:
        lacks = ", ".join(repr(name) for name in missing)
        raise TypeError(
            f"{argument} is {came}, which has no {lacks}; wanted {'a name, or ' if named else ''}an object with the "
            f"members of {protocol.__module__}.{protocol.__qualname__} (docs/extending.md)."
        )
