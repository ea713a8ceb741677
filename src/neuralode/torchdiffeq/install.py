"""Let ``import torchdiffeq`` in other people's code find this package."""

from __future__ import annotations

import sys
import warnings
from importlib import import_module
from types import ModuleType

OURS = "neuralode.torchdiffeq"
THEIRS = "torchdiffeq"
PARTS = ("", "._impl", "._impl.odeint", "._impl.adjoint", "._impl.misc", "._impl.solvers")

_replaced: dict[str, ModuleType] = {}


def install() -> ModuleType:
    """From here on ``import torchdiffeq`` gives this package, also to code that was not written for it.

    Call it before whatever uses torchdiffeq is imported: names that a module has taken from the other one stay with it.
    Calling it again changes nothing.

    Returns
    -------
    module
        What ``import torchdiffeq`` gives now.

    Examples
    --------
    >>> from neuralode.torchdiffeq import install, uninstall
    >>> module = install()
    >>> import torchdiffeq
    >>> torchdiffeq is module
    True
    >>> uninstall()
    """
    ours = import_module(OURS)
    if sys.modules.get(THEIRS) is ours:
        return ours
    loaded = {name: module for name, module in sys.modules.items() if _belongs(name)}
    if loaded:
        warnings.warn(
            "torchdiffeq was imported before neuralode.torchdiffeq.install(): modules that took names from it keep "
            "those. Call install() first.",
            stacklevel=2,
        )
    _replaced.clear()
    _replaced.update(loaded)
    for name in loaded:
        del sys.modules[name]
    for part in PARTS:
        sys.modules[THEIRS + part] = import_module(OURS + part)
    return ours


def uninstall() -> None:
    """Undo `install`."""
    if sys.modules.get(THEIRS) is not import_module(OURS):
        return
    for name in [name for name in sys.modules if _belongs(name)]:
        del sys.modules[name]
    sys.modules.update(_replaced)
    _replaced.clear()


def _belongs(name: str) -> bool:
    return name == THEIRS or name.startswith(THEIRS + ".")
