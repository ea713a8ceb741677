"""What a run was asked to do, read back from its config.json and checked field by field."""

from __future__ import annotations

import math
import types
import warnings
from collections.abc import Callable, Collection, Mapping
from dataclasses import MISSING, fields
from typing import Any, TypeVar, Union, get_args, get_origin, get_type_hints

from neuralode.training.run import Run

T = TypeVar("T")

SEEDS = 2**32 - 1  # the highest seed that numpy's legacy generators accept
LEAST, MOST = 1, 2**31 - 1  # of a whole number, unless it is one of these
BOUNDS = {"seed": (0, SEEDS), "last": (0, MOST)}
BOUNDS |= dict.fromkeys(("width", "hidden", "latent", "layers"), (LEAST, 2**14))


class RunWarning(UserWarning):
    """Something about a run that one should know."""


def asked(
    run: Run,
    kind: type[T],
    tasks: Collection[str],
    command: str,
    *,
    names: Mapping[str, str] = types.MappingProxyType({}),
    sections: Collection[str] = ("training",),
) -> T:
    """Return what ``run`` was asked to do, as a dataclass of ``kind``.

    Parameters
    ----------
    run : Run
        Whose ``config.json`` is read.
    kind : type
        A dataclass whose fields have these types: str, int, float, bool, tuple of str, or None.
    tasks : collection of str
        What its task may be.
    command : str
        What makes such runs, to be named where it is another.
    names : mapping
        From fields of the dataclass to entries of the config.
    sections : collection of str
        Entries of the config that hold fields; null is an empty one.

    Raises
    ------
    ValueError
        Where the run is of another task, or its config was damaged: an entry is missing, unknown or of another type.
    """
    config = run.config
    if config.get("task") not in tuple(tasks):
        raise ValueError(f"{run.folder} is a run of {config.get('task')!r}; wanted one of `{command}`.")
    where = str(run.folder / "config.json")
    told = {field: _entry(config, name, where) for field, name in names.items()}
    for name in sections:
        section = _entry(config, name, where)
        if not isinstance(section, dict | None):
            raise ValueError(f"{where}: {name} is {_shown(section)}; wanted an object.")
        told |= section or {}
    return read_as(kind, told, where)


def is_done(run: Run, wanted: T, asked: Callable[[Run], T]) -> bool:
    """Whether there is nothing to go on with in ``run``, since it is finished and did what is ``wanted``; says so."""
    done = run.finished and asked(run) == wanted
    if done:
        warnings.warn(f"{run.folder} is finished: there is nothing to go on with.", RunWarning, stacklevel=3)
    return done


def read_as(kind: type[T], told: Mapping[str, Any], where: str) -> T:
    """Make a dataclass of what a file says; see `asked`.

    Examples
    --------
    >>> from neuralode.tasks.config import Spirals
    >>> read_as(Spirals, {"observed": 30}, "config.json").observed
    30
    >>> read_as(Spirals, {"observed": "30"}, "config.json")
    Traceback (most recent call last):
    ValueError: config.json: observed is '30'; wanted int.
    """
    hints = get_type_hints(kind)
    known = {field.name: field for field in fields(kind)}  # type: ignore[arg-type]
    if strange := [name for name in told if name not in known]:
        raise ValueError(f"{where} has {_shown(strange[0])}, which this version of neuralode does not know.")
    for name, field in known.items():
        if name not in told and field.default is MISSING:
            raise ValueError(f"{where} has no {name}; was it changed?")
    return kind(**{name: _value(name, value, hints[name], where) for name, value in told.items()})


def _entry(config: Mapping[str, Any], name: str, where: str) -> Any:
    if name not in config:
        raise ValueError(f"{where} has no {name}; was it changed?")
    return config[name]


def _value(name: str, value: Any, hint: Any, where: str) -> Any:
    for kind in get_args(hint) if get_origin(hint) in (Union, types.UnionType) else (hint,):
        if _fits(name, value, kind):
            return tuple(value) if get_origin(kind) is tuple else float(value) if kind is float else value
    wanted = getattr(hint, "__name__", None) if get_origin(hint) is None else str(hint)
    if isinstance(value, int) and not isinstance(value, bool):
        least, most = BOUNDS.get(name, (LEAST, MOST))
        wanted = f"{wanted} from {least:,} to {most:,}"
    raise ValueError(f"{where}: {name} is {_shown(value)}; wanted {wanted}.")


def _fits(name: str, value: Any, kind: Any) -> bool:
    if get_origin(kind) is tuple:
        return isinstance(value, list) and all(isinstance(part, str) for part in value)
    if kind is int:
        least, most = BOUNDS.get(name, (LEAST, MOST))
        return isinstance(value, int) and not isinstance(value, bool) and least <= value <= most
    if kind is float:
        numeric = isinstance(value, int | float) and not isinstance(value, bool)
        return numeric and abs(value) < 2**1000 and math.isfinite(value)
    return isinstance(value, kind)


def _shown(value: Any, most: int = 60) -> str:
    """A value as a sentence can have it: not longer than a line."""
    shown = ascii(value) if not isinstance(value, int) or abs(value) < 2**64 else "a very large number"
    return shown if len(shown) <= most else f"{shown[:most]}…"
