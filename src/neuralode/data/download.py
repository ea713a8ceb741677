"""Where data sets lie that are not bundled with a package."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from neuralode.core.extras import require

require("train", "pooch")

import pooch  # noqa: E402  (after the sentence above)

VARIABLE = "NEURALODE_DATA"
CACHE = "neuralode"  # the folder in the user's cache


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


def find_file(folder: str, name: str, md5: str, mirrors: Sequence[str]) -> Path:
    """Return the path of a file that was published with its checksum; it is downloaded if it has to be.

    Parameters
    ----------
    folder, name : str
        The file is looked for as ``folder/name``, first below the folder that the environment variable NEURALODE_DATA
        names, then in the user's cache.
    md5 : str
        What the file's checksum must be, wherever it comes from.
    mirrors : sequence of str
        URLs of folders that have the file, tried in turn; it is then kept in the cache.

    Raises
    ------
    ValueError
        Where the file below NEURALODE_DATA has another checksum.
    FileNotFoundError
        Where it is not there, and no mirror has it; the sentence says what each answered.
    """
    root = os.environ.get(VARIABLE)
    given = Path(root) / folder / name if root else None
    if given is not None and given.is_file():
        came = pooch.file_hash(str(given), alg="md5")
        if came != md5:
            raise ValueError(f"{given} has the md5 {came}; wanted {md5}, that of the published file. Replace it.")
        return given

    answers = []
    for mirror in mirrors:
        try:
            cache = Path(pooch.os_cache(CACHE)) / folder
            return Path(pooch.retrieve(mirror + name, f"md5:{md5}", fname=name, path=cache))
        except OSError as problem:  # no connection, or no such file there: what went wrong takes pages to say
            answers.append(f"{mirror + name} ({type(problem).__name__})")
        except ValueError as problem:  # another checksum
            answers.append(f"{mirror + name} ({problem})")
    looked = f"{given} does not exist" if given is not None else f"{VARIABLE} is not set"
    raise FileNotFoundError(
        f"{looked}, and {name} could not be downloaded from {', nor from '.join(answers)}; "
        f"{VARIABLE} should name a folder that holds {folder}/{name}."
    )
