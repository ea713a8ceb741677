"""Read the config of a run from its ``config.json`` and check it field by field."""

from __future__ import annotations

import math
import types
import warnings
from collections.abc import Callable, Collection, Mapping
from dataclasses import MISSING, fields
from typing import Any, TypeVar, Union, get_args, get_origin, get_type_hints

from neuralode.training.run import Run

T = TypeVar("T")

SEEDS = 2**32 - 1  # largest seed that numpy's legacy generators accept
LEAST, MOST = 1, 2**31 - 1  # bounds of an integer field without an entry below
BOUNDS = {"seed": (0, SEEDS), "last": (0, MOST)}
BOUNDS |= dict.fromkeys(("width", "hidden", "latent", "layers"), (LEAST, 2**14))


class RunWarning(UserWarning):
    """Warning about a run that does not stop the training."""


def load_config(
    run: Run,
    kind: type[T],
    *,
    tasks: Collection[str],
    command: str,
    names: Mapping[str, str] = types.MappingProxyType({}),
    sections: Collection[str] = ("training",),
) -> T:
    """Return the config of a run as a dataclass.

    Parameters
    ----------
    run : Run
        Run whose ``config.json`` is read.
    kind : type
        Dataclass of the config. Its fields have type str, int, float, bool, tuple of str, or None.
    tasks : collection of str
        Valid values of the entry ``task``.
    command : str
        Command that makes such runs, for the message if the run is of another task.
    names : mapping of str to str, default={}
        Fields that are entries of the config by themselves, and the names of these entries.
    sections : collection of str, default=("training",)
        Entries of the config that hold further fields. A section may be null.

    Raises
    ------
    ValueError
        If the run is of another task; if an entry of the config is missing, unknown or of the wrong type.
    """
    config = run.config
    if config.get("task") not in tuple(tasks):
        raise ValueError(f"{run.folder} is a run of {config.get('task')!r}; wanted one of `{command}`.")
    path = str(run.folder / "config.json")
    values = {field: _entry(config, name, path) for field, name in names.items()}
    for name in sections:
        section = _entry(config, name, path)
        if not isinstance(section, dict | None):
            raise ValueError(f"{path}: {name} is {_shorten(section)}; wanted an object.")
        values |= section or {}
    return parse_config(kind, values, path)


def is_done(run: Run, config: T, load_config: Callable[[Run], T]) -> bool:
    """Return whether a run is finished and has this config, in which case there is nothing to resume; warn if so."""
    done = run.finished and load_config(run) == config
    if done:
        warnings.warn(f"{run.folder} is finished: there is nothing to resume.", RunWarning, stacklevel=4)
    return done


def parse_config(kind: type[T], values: Mapping[str, Any], path: str) -> T:
    """Make a config dataclass from values read from a file; see `load_config`.

    Examples
    --------
    >>> from neuralode.training.fit import FitOptions
    >>> parse_config(FitOptions, {"epochs": 30, "patience": None}, "config.json").epochs
    30
    >>> parse_config(FitOptions, {"epochs": "30", "patience": None}, "config.json")
    Traceback (most recent call last):
    ValueError: config.json: epochs is '30'; wanted int.
    """
    hints = get_type_hints(kind)
    known = {field.name: field for field in fields(kind)}  # type: ignore[arg-type]
    if unknown := [name for name in values if name not in known]:
        raise ValueError(f"{path} has {_shorten(unknown[0])}, which this version of neuralode does not support.")
    for name, field in known.items():
        if name not in values and field.default is MISSING:
            raise ValueError(f"{path} has no {name}; was it changed?")
    return kind(**{name: _convert(name, value, hint=hints[name], path=path) for name, value in values.items()})


def _entry(config: Mapping[str, Any], name: str, path: str) -> Any:
    if name not in config:
        raise ValueError(f"{path} has no {name}; was it changed?")
    return config[name]


def _convert(name: str, value: Any, *, hint: Any, path: str) -> Any:
    for kind in get_args(hint) if get_origin(hint) in (Union, types.UnionType) else (hint,):
        if _fits(name, value, kind):
            return tuple(value) if get_origin(kind) is tuple else float(value) if kind is float else value
    wanted = getattr(hint, "__name__", None) if get_origin(hint) is None else str(hint)
    if isinstance(value, int) and not isinstance(value, bool):
        least, most = BOUNDS.get(name, (LEAST, MOST))
        wanted = f"{wanted} from {least:,} to {most:,}"
    raise ValueError(f"{path}: {name} is {_shorten(value)}; wanted {wanted}.")


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


def _shorten(value: Any, most: int = 60) -> str:
    """Return the repr of a value, cut to fit into a message of one line."""
    text = ascii(value) if not isinstance(value, int) or abs(value) < 2**64 else "a very large number"
    return text if len(text) <= most else f"{text[:most]}…"
