"""Docstrings of estimators: inherited parameters are listed with the defaults of the class that inherits them."""

from __future__ import annotations

import inspect
import re

SECTION = re.compile(r"^(?=\w[^\n]*\n-{3,}$)", re.MULTILINE)  # before the title of a section
ENTRY = re.compile(r"^(?=\w+ : )", re.MULTILINE)  # before the name of a parameter
PARAMETERS = "Parameters\n----------\n"


def with_inherited_parameters(cls: type) -> str | None:
    r"""Return the docstring of ``cls`` with the parameters that its base classes document added to its own.

    Parameters
    ----------
    cls : type
        A class whose constructor is generated from annotated attributes. Docstrings follow the NumPy style, one
        parameter an entry, and an entry ends its first line with ``default=…``.

    Returns
    -------
    str or None
        The completed docstring; None where docstrings are stripped (``python -OO``).

    Examples
    --------
    >>> from dataclasses import dataclass
    >>> @dataclass
    ... class Base:
    ...     '''A base.
    ...
    ...     Parameters
    ...     ----------
    ...     rate : float, default=0.1
    ...         The learning rate.
    ...     '''
    ...     rate: float = 0.1
    >>> @dataclass
    ... class Model(Base):
    ...     '''A model.'''
    ...     rate: float = 0.5
    >>> with_inherited_parameters(Model)
    'A model.\n\nParameters\n----------\nrate : float, default=0.5\n    The learning rate.\n'
    """
    if cls.__doc__ is None:
        return None
    summary, entries, sections = _split(cls.__doc__)
    for base in cls.__mro__[1:]:
        inherited = _split(base.__doc__ or "")[1]
        entries |= {name: entry for name, entry in inherited.items() if name not in entries}
    parameters = inspect.signature(cls).parameters
    documented = [
        _with_default(entry, parameters[name].default) for name, entry in entries.items() if name in parameters
    ]
    return "\n\n".join([summary, PARAMETERS + "\n".join(documented), *sections]) + "\n"


def _split(docstring: str) -> tuple[str, dict[str, str], list[str]]:
    """Return the text before the sections, the entries of the parameters by name, and the other sections."""
    summary, *sections = SECTION.split(inspect.cleandoc(docstring))
    documented = "".join(section.removeprefix(PARAMETERS) for section in sections if section.startswith(PARAMETERS))
    entries = [entry.rstrip() for entry in ENTRY.split(documented) if entry.strip()]
    others = [section.rstrip() for section in sections if not section.startswith(PARAMETERS)]
    return summary.rstrip(), {entry.split(" : ")[0]: entry for entry in entries}, others


def _with_default(entry: str, default: object) -> str:
    return re.sub(r"default=[^\n]*", lambda _: f"default={default!r}", entry, count=1)
