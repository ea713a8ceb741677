"""Sources of tables: data frames, arrays and files."""

from __future__ import annotations

import hashlib
import re
import warnings
from difflib import get_close_matches
from functools import partial
from io import BytesIO, StringIO, TextIOWrapper
from os import PathLike
from pathlib import Path
from typing import NamedTuple

import numpy as np

from neuralode.core.extras import require
from neuralode.data.tables.cells import list_names

require("series", "pandas", "pyarrow")

# These imports need the extra above.
import pandas as pd  # noqa: E402
from pyarrow import ArrowException  # noqa: E402

Source = pd.DataFrame | np.ndarray | str | PathLike


def read_table(source: Source) -> pd.DataFrame:
    """Return a table whose columns are named by distinct strings.

    Parameters
    ----------
    source : DataFrame, array [rows, channels] or path of a .csv, .tsv or .parquet file
        The table. The columns of an array are named ``x0``, ``x1``, …. In .csv and .tsv files, lines that begin with
        ``#`` are comments, spaces before a cell are skipped, and cells that pandas regards as missing (empty, ``NA``,
        ``nan``, …) are missing.

    Raises
    ------
    FileNotFoundError
        If the file does not exist.
    TypeError
        If ``source`` is not a table.
    ValueError
        For a file that cannot be read as its suffix says, an array without two axes, or duplicate names.

    Examples
    --------
    >>> read_table(np.ones((1, 2))).to_dict("list")
    {'x0': [1.0], 'x1': [1.0]}
    """
    if isinstance(source, pd.DataFrame):
        return _rename(source, [str(name) for name in source.columns])
    if isinstance(source, np.ndarray):
        if source.ndim != 2:
            raise ValueError(f"the array has shape {list(source.shape)}; wanted [rows, channels].")
        return pd.DataFrame(source, columns=[f"x{channel}" for channel in range(source.shape[1])])
    if not isinstance(source, str | PathLike):
        kind = type(source).__name__
        raise TypeError(f"the table is a {kind}; wanted a DataFrame, an array or the path of a .csv, .tsv or .parquet.")
    return read_table_file(Path(source)).table


class TableFile(NamedTuple):
    """A table and the digest of the file that it was parsed from.

    Parameters
    ----------
    table : DataFrame
        As `read_table` returns it.
    digest : str
        SHA-256 of the content of the file, in hexadecimal digits.
    """

    table: pd.DataFrame
    digest: str


def read_table_file(path: Path) -> TableFile:
    """Read a .csv, .tsv or .parquet file once, and return its table and its digest.

    Raises
    ------
    FileNotFoundError
        If the file does not exist.
    ValueError
        If it cannot be read as its suffix says, or names are duplicate.
    """
    if not path.is_file():
        raise FileNotFoundError(f"there is no file {str(path)!r}; wanted a .csv, .tsv or .parquet file.")
    suffix = path.suffix.lower()
    if suffix not in (".csv", ".tsv", ".parquet"):
        raise ValueError(f"{str(path)!r} ends in {suffix!r}; wanted .csv, .tsv or .parquet.")
    try:
        content = path.read_bytes()
        return TableFile(_parse(content, suffix), hashlib.sha256(content).hexdigest())
    except (ValueError, OSError, ArrowException) as error:
        reason = " ".join(str(error).split()).rstrip(".")
        raise ValueError(f"{str(path)!r} cannot be read as {suffix}: {reason}.") from error


def check_column(table: pd.DataFrame, name: str, role: str | None = None) -> None:
    """Raise `ValueError` for a column that does not exist, with the closest name.

    Examples
    --------
    >>> check_column(pd.DataFrame({"pulse": [71.0]}), "puls", "values")
    Traceback (most recent call last):
    ...
    ValueError: the table has no column 'puls' for values; did you mean 'pulse'? Its columns: 'pulse'.
    """
    if name not in table.columns:
        near = get_close_matches(name, list(table.columns), n=1, cutoff=0.4)
        hint = f"; did you mean {near[0]!r}?" if near else ";"
        use = "" if role is None else f" for {role}"
        raise ValueError(f"the table has no column {name!r}{use}{hint} Its columns: {list_names(table.columns)}.")


def _parse(content: bytes, suffix: str) -> pd.DataFrame:
    if suffix == ".parquet":
        table = pd.read_parquet(BytesIO(content))
        return _rename(table, [str(name) for name in table.columns])
    text = TextIOWrapper(BytesIO(content), encoding="utf-8-sig").read()  # translates line ends
    return _parse_delimited(text, "," if suffix == ".csv" else "\t")


def _parse_delimited(text: str, separator: str) -> pd.DataFrame:
    # pandas' comment="#" would also truncate a cell such as "bed #3"
    text = re.sub(r"(?m)^[ \t]*#.*\n?", "", text)
    read = partial(pd.read_csv, sep=separator, skipinitialspace=True)
    # Read the first line separately: pandas renames duplicate names.
    header = read(StringIO(text), header=None, nrows=1, dtype=str, keep_default_na=False)
    names = header.iloc[0].str.strip().tolist()
    if "" in names:
        raise ValueError(f"column {names.index('') + 1} has no name in the first line; give it one or leave it out")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", pd.errors.ParserWarning)
            table = read(StringIO(text), index_col=False, low_memory=False)
    except pd.errors.ParserWarning as error:
        raise ValueError(f"rows have more cells than the first line has names ({len(names)}); name them all") from error
    return _rename(table, names)


def _rename(table: pd.DataFrame, names: list[str]) -> pd.DataFrame:
    duplicated = pd.Index(names).duplicated()
    if duplicated.any():
        raise ValueError(f"column {names[np.argmax(duplicated)]!r} comes twice; wanted names that differ.")
    return table.set_axis(pd.Index(names, dtype=object), axis=1)
