"""Where data sets lie that are not bundled with a package."""

from __future__ import annotations

import os
from pathlib import Path

VARIABLE = "NEURALODE_DATA"


def data_home(folder: str, *files: str) -> Path:
    """Return ``folder`` below the folder that the environment variable NEURALODE_DATA names.

    Raises
    ------
    FileNotFoundError
        Where the variable is not set, or one of ``files`` is not there; the sentence says what is wanted.
    """
    root = os.environ.get(VARIABLE)
    wanted = f"a folder that holds {', '.join(f'{folder}/{name}' for name in files)}"
    if not root:
        raise FileNotFoundError(f"{VARIABLE} is not set; wanted the path of {wanted}.")
    home = Path(root) / folder
    for name in files:
        if not (home / name).is_file():
            raise FileNotFoundError(f"{home / name} does not exist; {VARIABLE} should name {wanted}.")
    return home
