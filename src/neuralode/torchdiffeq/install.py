"""Make ``import torchdiffeq`` in other packages load this package instead."""

from __future__ import annotations

import sys
import warnings
from importlib import import_module
from types import ModuleType

OURS = "neuralode.torchdiffeq"
THEIRS = "torchdiffeq"
MODULES = ("", "._impl", "._impl.odeint", "._impl.adjoint", "._impl.misc", "._impl.solvers")

_replaced: dict[str, ModuleType] = {}


def install() -> ModuleType:
    """Make every later ``import torchdiffeq`` load this package, including in packages written for torchdiffeq.

    Call it before importing packages that use torchdiffeq: names that a module has already imported from torchdiffeq
    are not replaced. Calling it again changes nothing.

    Returns
    -------
    module
        The module that ``import torchdiffeq`` now loads.

    Warns
    -----
    UserWarning
        If torchdiffeq was imported before.

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
    loaded = {name: module for name, module in sys.modules.items() if _belongs_to_torchdiffeq(name)}
    if loaded:
        warnings.warn(
            "torchdiffeq was imported before neuralode.torchdiffeq.install(): names that modules have imported from it "
            "are not replaced. Call install() first.",
            stacklevel=2,
        )
    _replaced.clear()
    _replaced.update(loaded)
    for name in loaded:
        del sys.modules[name]
    for module in MODULES:
        sys.modules[THEIRS + module] = import_module(OURS + module)
    return ours


def uninstall() -> None:
    """Undo `install`."""
    if sys.modules.get(THEIRS) is not import_module(OURS):
        return
    for name in [name for name in sys.modules if _belongs_to_torchdiffeq(name)]:
        del sys.modules[name]
    sys.modules.update(_replaced)
    _replaced.clear()


def _belongs_to_torchdiffeq(name: str) -> bool:
    return name == THEIRS or name.startswith(THEIRS + ".")
