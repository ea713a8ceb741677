"""Japanese Vowels: nine men say two vowels; who speaks [1]_? 640 series of 12 channels, 7 to 29 steps long.

The file is the one that comes with the package aeon, in which every series keeps its own length; aeon itself is neither
imported nor needs its dependencies.

References
----------
.. [1] M. Kudo, J. Toyama, M. Shimbo, "Multidimensional curve classification using passing-through regions", Pattern
   Recognition Letters 20, 1999. https://doi.org/10.24432/C5NS47
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from jaxtyping import Float64, Int64

FOLDER = Path("datasets", "data", "JapaneseVowels")
INSTALL = "pip install --no-deps aeon==1.6.0"


@dataclass(frozen=True, eq=False)
class Vowels:
    """Some of the utterances.

    Attributes
    ----------
    series : list of arrays [steps, 12]
        Coefficients of the spectrum, as recorded; steps of equal length, 7 to 29 of them.
    speakers : array [series]
        1 to 9.
    """

    series: list[Float64[np.ndarray, "steps 12"]]
    speakers: Int64[np.ndarray, " series"]

    def __len__(self) -> int:
        return len(self.series)


def japanese_vowels() -> tuple[Vowels, Vowels]:
    """Return the 270 utterances to learn from and the 370 to report on, as they were published.

    Raises
    ------
    ImportError
        Where aeon is not installed; only its files are read.

    Examples
    --------
    >>> train, test = japanese_vowels()  # doctest: +SKIP
    >>> len(train), len(test), train.series[0].shape  # doctest: +SKIP
    (270, 370, (20, 12))
    """
    spec = find_spec("aeon")
    places = list(spec.submodule_search_locations or ()) if spec is not None else []
    if not places:
        raise ImportError(f"aeon, which has Japanese Vowels, is not installed; {INSTALL} brings its files.")
    folder = Path(places[0]) / FOLDER
    train, test = (folder / f"JapaneseVowels_{part}.ts" for part in ("TRAIN", "TEST"))
    for file in (train, test):
        if not file.is_file():
            raise ImportError(f"the aeon that is installed has no {file.name}; {INSTALL} brings it.")
    return parse_ts(train.read_text()), parse_ts(test.read_text())


def parse_ts(text: str) -> Vowels:
    r"""Read the ``.ts`` format: lines of channels separated by colons, the label last, behind a header up to @data.

    Examples
    --------
    >>> some = parse_ts("# who speaks\n@classLabel true 1 2\n@data\n1,2,3:4,5,?:2\n6:7:1\n")
    >>> some.series[0].tolist(), some.speakers.tolist()
    ([[1.0, 4.0], [2.0, 5.0], [3.0, nan]], [2, 1])
    """
    lines = [line.strip() for line in text.splitlines()]
    begin = next(place for place, line in enumerate(lines) if line.lower() == "@data") + 1
    rows = [line.split(":") for line in lines[begin:] if line]
    series = [np.array([_numbers(channel) for channel in channels]).T for *channels, _ in rows]
    return Vowels(series, np.array([int(label) for *_, label in rows]))


def _numbers(channel: str) -> list[float]:
    return [np.nan if number == "?" else float(number) for number in channel.split(",")]
