"""Check that the optional dependencies of an extra are installed."""

from __future__ import annotations

from importlib.util import find_spec


def require(extra: str, *modules: str) -> None:
    """Raise an `ImportError` that names ``extra`` unless all of ``modules`` can be imported.

    Examples
    --------
    >>> require("train", "json")
    >>> require("train", "json", "no_such_module")
    Traceback (most recent call last):
    ...
    ImportError: no_such_module is not installed; pip install 'neuralode[train]' brings it.
    """
    missing = [module for module in modules if find_spec(module) is None]
    if missing:
        raise ImportError(f"{missing[0]} is not installed; pip install 'neuralode[{extra}]' brings it.")
