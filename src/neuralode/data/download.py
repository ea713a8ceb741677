"""Files of data sets, in the folder NEURALODE_DATA or downloaded to the user's cache."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from neuralode.core.extras import require

require("train", "pooch")

import pooch  # noqa: E402  (needs the extra above)

VARIABLE = "NEURALODE_DATA"
CACHE = "neuralode"  # folder in the user's cache


def data_home(folder: str, *files: str) -> Path:
    """Return the path of a data set in the folder that the environment variable NEURALODE_DATA names.

    Parameters
    ----------
    folder : str
        Name of the data set's folder.
    *files : str
        Files that must exist in it.

    Raises
    ------
    FileNotFoundError
        If the variable is not set, or a file does not exist.
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


def find_file(folder: str, name: str, md5: str, mirrors: Sequence[str]) -> Path:
    """Return the path of a published file, which is downloaded if necessary and verified by its checksum.

    The file ``folder/name`` is searched for in the folder that the environment variable NEURALODE_DATA names, and then
    in the user's cache.

    Parameters
    ----------
    folder : str
        Folder of the data set.
    name : str
        Name of the file.
    md5 : str
        Checksum of the file.
    mirrors : sequence of str
        URLs of folders with the file, tried in turn. A downloaded file is stored in the cache.

    Raises
    ------
    ValueError
        If the file in NEURALODE_DATA has another checksum.
    FileNotFoundError
        If the file does not exist and cannot be downloaded; the message lists the problem of each mirror.
    """
    root = os.environ.get(VARIABLE)
    local = Path(root) / folder / name if root else None
    if local is not None and local.is_file():
        digest = pooch.file_hash(str(local), alg="md5")
        if digest != md5:
            raise ValueError(f"{local} has the md5 {digest}; wanted {md5}, that of the published file. Replace it.")
        return local

    problems = []
    for mirror in mirrors:
        try:
            cache = Path(pooch.os_cache(CACHE)) / folder
            return Path(pooch.retrieve(mirror + name, f"md5:{md5}", fname=name, path=cache))
        except OSError as error:  # no connection, or no such file: the message would be pages long
            problems.append(f"{mirror + name} ({type(error).__name__})")
        except ValueError as error:  # wrong checksum
            problems.append(f"{mirror + name} ({error})")
    missing = f"{local} does not exist" if local is not None else f"{VARIABLE} is not set"
    raise FileNotFoundError(
        f"{missing}, and {name} could not be downloaded from {', nor from '.join(problems)}; "
        f"{VARIABLE} should name a folder that holds {folder}/{name}."
    )
